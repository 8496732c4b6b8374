"""Processes that a test may kill or use as devices; latents and a DiT to train."""

import multiprocessing
import os
import socket
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch
from tests.tasks.dit_training import LABELS

from dgs_lightning.data.latents import CacheSettings, finish_cache, write_shard
from dgs_lightning.data.records import ImageRecord
from dgs_lightning.models.dit.formats import save_dit
from dgs_lightning.models.dit.network import DiT, DiTConfig, initialise


def start(function: Callable[..., object], *args: object, **environment: str) -> BaseProcess:
    """Start a function of a test module in a process with its own environment variables.

    It is forked from a server that has not trained yet: torch does not train in the child of a process that has,
    once that has needed a thread for it.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["dgs_lightning.commands.cli", "dgs_lightning.tasks.minimax", "dgs_lightning.tasks.scoring"]
    )
    process = context.Process(target=run_with, args=(environment, function, *args))
    process.start()
    return process


def run_with(environment: dict[str, str], function: Callable[..., object], *args: object) -> None:
    """What the process does."""
    torch.set_num_threads(1)
    os.environ.update(environment)
    function(*args)


@pytest.fixture
def in_a_process() -> Callable[..., int | None]:
    """Runs a function in a process of its own and returns its exit code: the negative signal where it was killed."""

    def run(function: Callable[..., object], *args: object) -> int | None:
        process = start(function, *args)
        process.join()
        return process.exitcode

    return run


@pytest.fixture
def on_two_devices() -> Callable[..., None]:
    """Runs a function in two processes that a ``Trainer(devices=2, strategy="ddp")`` in it takes for its devices."""

    def run(function: Callable[..., object], *args: object) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            world = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
        processes = [start(function, *args, NODE_RANK="0", LOCAL_RANK=str(rank), **world) for rank in range(2)]
        for process in processes:
            process.join()
        assert [process.exitcode for process in processes] == [0, 0]

    return run


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """22 latents of three classes, 2x4x4, with posteriors and flips."""
    folder = tmp_path_factory.mktemp("latents")
    records = sorted(
        (ImageRecord(f"{LABELS[i % 3]}/{i}.png", LABELS[i % 3]) for i in range(22)), key=lambda r: r.file_name
    )
    settings = CacheSettings("codec", "transform", (2, 4, 4), posterior=True, flips=2, dtype="float32")
    means = torch.randn(22, 2, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    write_shard(folder, settings.key("images"), torch.arange(22), means, torch.full_like(means, -4.0))
    finish_cache(folder, settings, records, "images")
    return folder


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DiT for the latents of ``cache`` that knows its classes and one more, in another order."""
    folder = tmp_path_factory.mktemp("base")
    config = DiTConfig(input_size=4, num_classes=4, in_channels=2, hidden_size=16, depth=2, num_heads=2)
    model = DiT(config, ("cow", "dog", "bee", "ape"))
    initialise(model, 0)
    with torch.no_grad():  # a model whose blocks do something, as after training
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)), alpha=0.05)
    save_dit(model, folder)
    return folder
