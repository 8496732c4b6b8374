import fcntl
import hashlib
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import struct
import time
import zlib
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any, Literal

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image
from tests.callbacks.conftest import in_two_processes

from dgs_lightning.callbacks.image_writer import ImageWriter, write_png
from dgs_lightning.data.cards import read_card
from dgs_lightning.data.folders import read_set
from dgs_lightning.data.records import read_manifest
from dgs_lightning.data.unfinished import Unfinished
from dgs_lightning.datamodules.requests import RequestDataModule
from dgs_lightning.errors import InputError
from dgs_lightning.seeding import image_seed
from dgs_lightning.tasks.generation import GenerationTask

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning", "ignore:.*fork.*:DeprecationWarning")


def generate(
    output: Path,
    dit: Path,
    *,
    images: int = 7,
    batch: int | Literal["auto"] = 4,
    steps: int = 5,
    seed: int = 0,
    devices: int = 1,
    limit: int | None = None,
    logger: TensorBoardLogger | None = None,
) -> None:
    L.Trainer(
        accelerator="cpu",
        devices=devices,
        strategy="auto" if devices == 1 else "ddp_fork",
        callbacks=[ImageWriter(str(output))],
        default_root_dir=output.parent,
        logger=logger or False,
        limit_predict_batches=limit,
        enable_progress_bar=False,
    ).predict(
        GenerationTask(str(dit), steps=steps),
        datamodule=RequestDataModule(images_per_class=images, batch_size=batch, seed=seed),
    )


def content(folder: Path) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def pixels(folder: Path) -> dict[str, np.ndarray[Any, Any]]:
    return {name: np.asarray(Image.open(folder / name)).astype(int) for name in content(folder) if name[-4:] == ".png"}


def in_child(
    job: Callable[..., None], *args: Path, seconds: float | None = None, by: int = signal.SIGKILL
) -> int | None:
    """Exit code of a job in a process of its own, which is killed after so many seconds."""

    def alone() -> None:
        torch.set_num_threads(1)  # the threads of the parent are not there after a fork
        job(*args)

    process = multiprocessing.get_context("fork").Process(target=alone)
    process.start()
    process.join(seconds)
    if process.is_alive() and process.pid:
        os.kill(process.pid, by)
        process.join()
    return process.exitcode


@pytest.fixture(scope="module")
def undisturbed(dit: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("undisturbed") / "pool"
    generate(output, dit)
    return output


def test_an_image_set_is_written(undisturbed: Path) -> None:
    records = read_set(undisturbed)
    assert [record.file_name for record in records] == [
        f"{c}/{i:05d}.png" for c in ("cat", "cow", "dog") for i in range(7)
    ]
    assert records[9].seed == image_seed(0, "cow", 2)
    assert Image.open(undisturbed / "cat/00000.png").size == (4, 4)
    card = read_card(undisturbed)
    assert (card["kind"], card["images"]) == ("pool", 21)
    assert card["settings"]["requests"] == {
        "batch_size": 4,
        "images_per_class": 7,
        "labels": ["cat", "cow", "dog"],
        "seed": 0,
    }
    assert {name.split("/")[0] for name in content(undisturbed)} == {
        "cat",
        "cow",
        "dog",
        "metadata.jsonl",
        "dataset.json",
    }
    assert str(undisturbed.parent) not in (undisturbed / "dataset.json").read_text()


def test_the_same_settings_give_the_same_bytes_and_another_seed_other_images(
    undisturbed: Path, dit: Path, tmp_path: Path
) -> None:
    generate(tmp_path / "pool", dit)
    assert content(tmp_path / "pool") == content(undisturbed)
    generate(tmp_path / "other" / "pool", dit, seed=1)
    assert all(
        (a != b).any() for a, b in zip(pixels(undisturbed).values(), pixels(tmp_path / "other").values(), strict=True)
    )


@pytest.mark.parametrize("batch", [1, 16])
def test_images_do_not_depend_on_the_batch_size(undisturbed: Path, dit: Path, tmp_path: Path, batch: int) -> None:
    generate(tmp_path / "pool", dit, batch=batch)
    expected, found = pixels(undisturbed), pixels(tmp_path / "pool")
    assert content(tmp_path / "pool").keys() == content(undisturbed).keys()
    assert max(abs(found[name] - expected[name]).max() for name in expected) <= 1


@in_two_processes
def test_two_devices_write_the_same_bytes_as_one(undisturbed: Path, dit: Path, tmp_path: Path) -> None:
    output = tmp_path / "pool"
    generate(output, dit, devices=2)
    assert content(output) == content(undisturbed)


@in_two_processes
def test_more_devices_than_batches_are_no_hindrance(undisturbed: Path, dit: Path, tmp_path: Path) -> None:
    output = tmp_path / "pool"
    generate(output, dit, batch=21, devices=2)
    assert content(output).keys() == content(undisturbed).keys()


def all_valid(output: Path) -> bool:
    """Whether every image and every manifest can be read."""
    for image in output.rglob("*.png"):
        Image.open(image).verify()
    return all(read_manifest(manifest.parent) for manifest in output.rglob("metadata.jsonl"))


@pytest.mark.fault
def test_twenty_kills_at_random_moments_end_in_the_same_bytes(undisturbed: Path, dit: Path, tmp_path: Path) -> None:
    start = time.monotonic()
    in_child(generate, tmp_path / "whole", dit)
    whole = time.monotonic() - start
    moments, kills = random.Random(0), 0
    for folder in count():
        output, exit_code = tmp_path / str(folder) / "pool", None
        while kills < 20 and exit_code != 0:  # a run that ends before its kill is none of the twenty
            exit_code = in_child(generate, output, dit, seconds=moments.uniform(0, 0.8 * whole))
            assert exit_code in (0, -signal.SIGKILL)
            kills += exit_code != 0
            assert all_valid(output)
        assert in_child(generate, output, dit) == 0
        assert content(output) == content(undisturbed)
        if kills == 20:
            return


@pytest.mark.fault
def test_a_terminated_run_stops_after_its_batch_and_goes_on_later(undisturbed: Path, dit: Path, tmp_path: Path) -> None:
    def slow() -> None:
        generate(tmp_path / "slow", dit, images=100, steps=200)

    assert in_child(slow, seconds=0.5, by=signal.SIGTERM) == 128 + signal.SIGTERM
    assert all_valid(tmp_path / "slow")
    assert not (tmp_path / "slow" / "metadata.jsonl").exists()


def test_a_second_run_in_the_same_folder_is_refused(dit: Path, tmp_path: Path) -> None:
    hidden = tmp_path / "pool" / ".unfinished"
    hidden.mkdir(parents=True)
    with (hidden / "lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another run that writes into it"):
            generate(tmp_path / "pool", dit)
    generate(tmp_path / "pool", dit)


def test_finished_batches_are_kept_and_broken_ones_made_again_whole(
    undisturbed: Path, dit: Path, tmp_path: Path
) -> None:
    output = tmp_path / "pool"
    generate(output, dit, limit=3)
    assert not (output / "metadata.jsonl").exists()
    first, second = (
        sorted(f"{c}/{i:05d}.png" for c, i in batch)
        for batch in (
            [("cat", 0), ("cow", 0), ("dog", 0), ("cat", 1)],
            [("cow", 1), ("dog", 1), ("cat", 2), ("cow", 2)],
        )
    )
    broken = output / second[0]
    broken.write_bytes(broken.read_bytes()[:-20])
    times = {name: (output / name).stat().st_mtime_ns for name in (*first, *second)}
    generate(output, dit)
    assert content(output) == content(undisturbed)
    again = {name for name in times if (output / name).stat().st_mtime_ns != times[name]}
    assert again == set(second)


def test_a_complete_set_is_left_alone_and_a_lost_image_replaced(undisturbed: Path, dit: Path, tmp_path: Path) -> None:
    output = tmp_path / "pool"
    generate(output, dit)
    (output / "dog" / "00006.png").unlink()
    time_of_cat = (output / "cat" / "00000.png").stat().st_mtime_ns
    generate(output, dit)
    generate(output, dit)
    assert content(output) == content(undisturbed)
    assert (output / "cat" / "00000.png").stat().st_mtime_ns == time_of_cat


def test_a_distilled_set_has_a_readme_that_is_written_again_where_it_is_lost(
    undisturbed: Path, dit: Path, tmp_path: Path
) -> None:
    output = tmp_path / "set"

    def generate_again() -> dict[str, bytes]:
        quiet: dict[str, Any] = dict.fromkeys(("logger", "enable_progress_bar"), False)
        trainer = L.Trainer(accelerator="cpu", callbacks=[ImageWriter(str(output))], **quiet)
        data = RequestDataModule(images=str(undisturbed), batch_size=4)
        trainer.predict(GenerationTask(str(dit), steps=5), data)
        return content(output)

    first = generate_again()
    assert first["README.md"].decode().count("# set\n") == 1
    (output / "README.md").unlink()
    assert generate_again() == first


@pytest.mark.parametrize("finished", [True, False])
def test_a_folder_made_with_other_settings_is_refused(dit: Path, tmp_path: Path, finished: bool) -> None:
    generate(tmp_path / "pool", dit, steps=2, limit=None if finished else 2)
    before = content(tmp_path / "pool")
    with pytest.raises(InputError, match=r"other settings \(model.steps: 2 -> 3; requests.batch_size: 4 -> 5\)"):
        generate(tmp_path / "pool", dit, steps=3, batch=5)
    assert content(tmp_path / "pool") == before


def test_an_automatic_batch_goes_on_with_the_size_of_the_run_before(
    undisturbed: Path, dit: Path, tmp_path: Path
) -> None:
    generate(tmp_path / "pool", dit, limit=2)
    generate(tmp_path / "pool", dit, batch="auto")
    assert content(tmp_path / "pool") == content(undisturbed)


def test_an_automatic_batch_does_not_go_on_with_a_set_of_another_kind(dit: Path, tmp_path: Path) -> None:
    (tmp_path / "pool").mkdir()
    (tmp_path / "pool" / "dataset.json").write_text('{"settings": {"ipc": 3}}')
    with pytest.raises(InputError, match="other settings"):
        generate(tmp_path / "pool", dit, batch="auto")


def test_a_folder_with_other_images_is_refused(dit: Path, tmp_path: Path) -> None:
    write_png(tmp_path / "pool" / "cat" / "mine.png", torch.zeros(3, 4, 4, dtype=torch.uint8))
    with pytest.raises(InputError, match=r"cat/mine\.png, which this command did not make"):
        generate(tmp_path / "pool", dit)


@pytest.mark.fault
@pytest.mark.parametrize("batch", [4, 21])  # the disk is full at the end, or at the lines of the first batch
def test_a_full_disk_is_named_and_what_is_written_stays_valid(
    undisturbed: Path, dit: Path, tmp_path: Path, batch: int
) -> None:
    def with_little_space() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))
        with pytest.raises(InputError, match=r"pool.*: found file too large, .*it keeps what is finished"):
            generate(output, dit, batch=batch)

    output = tmp_path / "pool"
    assert in_child(with_little_space) == 0
    assert all_valid(output)
    generate(output, dit, batch=batch)
    assert read_set(output) == read_set(undisturbed)


def test_a_sample_grid_goes_to_tensorboard(dit: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logger = TensorBoardLogger(tmp_path / "logs")
    generate(tmp_path / "pool", dit, steps=1, logger=logger)
    events = EventAccumulator(logger.log_dir).Reload()
    assert events.Tags()["images"] == ["samples"]


@pytest.mark.parametrize("channels", [1, 3])
def test_a_png_holds_the_pixels_and_is_always_the_same(tmp_path: Path, channels: int) -> None:
    image = torch.arange(channels * 6, dtype=torch.uint8).reshape(channels, 2, 3) * 10
    for name in ("a.png", "b.png"):
        write_png(tmp_path / name, image)
    found = np.asarray(Image.open(tmp_path / "a.png")).reshape(2, 3, channels)
    assert (found == image.permute(1, 2, 0).numpy()).all()
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_lines_of_the_manifest_are_plain_json(undisturbed: Path) -> None:
    lines = [json.loads(line) for line in (undisturbed / "metadata.jsonl").read_text().splitlines()]
    assert lines[0] == {
        "file_name": "cat/00000.png",
        "label": "cat",
        "class_name": "cat",
        "index": 0,
        "seed": image_seed(0, "cat", 0),
    }


def cut(path: Path, by: int) -> None:
    path.write_bytes(path.read_bytes()[:-by])


def change_checksum(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1  # of the last chunk, which decoders do not check
    path.write_bytes(data)


def flip_header(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[11] ^= 4  # in the length of the header
    path.write_bytes(data)


def add_bomb(path: Path) -> None:
    """Add a text of 64 MB, compressed."""
    data = path.read_bytes()
    content = b"zTXt" + b"key\0\0" + zlib.compress(bytes(2**26))
    chunk = struct.pack(">I", len(content) - 4) + content + struct.pack(">I", zlib.crc32(content))
    path.write_bytes(data[:33] + chunk + data[33:])


HARM: dict[str, Callable[[Path], object]] = {
    "one byte lost": lambda path: cut(path, 1),
    "four bytes lost": lambda path: cut(path, 4),
    "another checksum": change_checksum,
    "a bit of the header": flip_header,
    "a bomb": add_bomb,
    "another picture": lambda path: Image.new("L", (4, 4)).save(path),
}


@pytest.mark.parametrize("harm", HARM)
def test_an_altered_image_is_made_again_when_a_set_is_resumed(
    undisturbed: Path, dit: Path, tmp_path: Path, harm: str
) -> None:
    output = tmp_path / "pool"
    generate(output, dit, limit=2)
    HARM[harm](output / "cow" / "00001.png")
    generate(output, dit)
    assert content(output) == content(undisturbed)


@pytest.mark.parametrize("harm", ["a bit of the header", "another picture"])
def test_an_altered_image_of_a_finished_set_is_made_again(
    undisturbed: Path, dit: Path, tmp_path: Path, harm: str
) -> None:
    output = Path(shutil.copytree(undisturbed, tmp_path / "pool"))
    HARM[harm](output / "cow" / "00001.png")
    generate(output, dit)
    assert content(output) == content(undisturbed)


def test_a_finished_set_with_lost_and_altered_images_is_made_again_by_the_same_command(
    undisturbed: Path, dit: Path, tmp_path: Path
) -> None:
    output = Path(shutil.copytree(undisturbed, tmp_path / "pool"))
    (output / "cow" / "00001.png").unlink()
    change_checksum(output / "dog" / "00006.png")
    with pytest.raises(InputError, match="Run the same command again"):
        generate(output, dit)
    generate(output, dit)
    assert content(output) == content(undisturbed)


def test_a_set_is_resumed_whenever_it_is_killed(
    dit: Path, tmp_path: Path, killed_at_changes: Callable[..., list[int]]
) -> None:
    def job(number: int) -> None:
        generate(tmp_path / f"{number}" / "pool", dit, images=1, batch=2, steps=1)

    job(0)
    kills = killed_at_changes(lambda number: tmp_path / f"{number}" / "pool", job)
    assert len(kills) > 6
    for number in kills:
        assert content(tmp_path / f"{number}" / "pool") == content(tmp_path / "0" / "pool")


def test_a_set_that_lost_its_card_is_completed_where_a_run_vouches_for_it(
    undisturbed: Path, dit: Path, tmp_path: Path
) -> None:
    output = Path(shutil.copytree(undisturbed, tmp_path / "pool"))
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in content(output).items()}
    (output / "dataset.json").unlink()
    with pytest.raises(InputError, match="which this command did not make"):
        generate(output, dit)
    Unfinished(output, "pools/dit").adopt(hashes)
    HARM["another picture"](output / "cow" / "00001.png")
    time_of_cat = (output / "cat" / "00000.png").stat().st_mtime_ns
    generate(output, dit)
    assert content(output) == content(undisturbed)
    assert (output / "cat" / "00000.png").stat().st_mtime_ns == time_of_cat
