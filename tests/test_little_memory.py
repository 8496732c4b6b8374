"""Whole files that do not fit in memory are not called broken."""

import multiprocessing
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from dgs_lightning.callbacks.checkpointing import KEYS, check_readable
from dgs_lightning.data.images import load_image
from dgs_lightning.data.latents import read_shard, write_shard
from dgs_lightning.errors import InputError
from dgs_lightning.models.weights import read_weights

NUMBERS = 30_000_000  # of 4 bytes
ROOM = 30_000_000  # bytes that a process may use beyond those that it has


def write_checkpoint(path: Path) -> None:
    torch.save({**dict.fromkeys(KEYS, 0), "state_dict": {"a": torch.zeros(NUMBERS)}}, path)


KINDS: dict[str, tuple[str, Callable[[Path], object], Callable[[Path], object]]] = {
    "checkpoint": ("last.ckpt", write_checkpoint, check_readable),
    "weights": ("w.safetensors", lambda path: save_file({"a": torch.zeros(NUMBERS)}, path), read_weights),
    "latents": (
        "00000000.safetensors",
        lambda path: write_shard(path.parent, "key", torch.arange(1), torch.zeros(1, 1, NUMBERS), None),
        lambda path: read_shard(path, "key", 1),
    ),
    "image": ("i.png", lambda path: Image.new("RGB", (9000, 9000)).save(path, compress_level=1), load_image),
}


def read_with_little_memory(read: Callable[[Path], object], path: Path, answer: Any) -> None:  # noqa: ANN401
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, resource.RLIM_INFINITY))
    try:
        read(path)
        answer.send("read")
    except InputError as error:
        answer.send(str(error))


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_file_that_does_not_fit_in_memory_is_not_called_broken(tmp_path: Path, kind: str) -> None:
    name, write, read = KINDS[kind]
    write(tmp_path / name)
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(
        target=read_with_little_memory, args=(read, tmp_path / name, there)
    )
    process.start()
    process.join()
    assert here.poll(), f"exit code {process.exitcode}"
    message = here.recv()
    assert f"{name}: found too little memory" in message
    assert "Delete" not in message
    assert "broken" not in message
    read(tmp_path / name)
