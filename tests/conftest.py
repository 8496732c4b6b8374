"""What all tests share: golden values, image sets, processes to kill or use as devices, which tests are left out."""

import multiprocessing
import os
import signal
import socket
import sys

# One thread for each test process, before torch is imported: forked processes would miss the other threads and hang.
os.environ["OMP_NUM_THREADS"] = "1"

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import count
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

MakeSet = Callable[..., Path]

if TYPE_CHECKING:
    from torch import Tensor

    from dgs_lightning.models.dit.network import DiT


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what takes long and finds little, unless it was asked for."""
    for mark, asked_by in (("matrix", "fault"), ("sweep", "sweep")):
        if config.getoption("-m") != asked_by:
            left_out = [item for item in items if item.get_closest_marker(mark)]
            items[:] = [item for item in items if not item.get_closest_marker(mark)]
            config.hook.pytest_deselected(items=left_out)
    # Files of slow tests first, so that no worker is left alone with one at the end.
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    every = Counter(item.path for item in items)
    items.sort(key=lambda item: -slow[item.path] / every[item.path])


def pytest_unconfigure(config: pytest.Config) -> None:
    """Count in the last line the faults that were injected and overcome, by stage."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None:
        return
    faults: Counter[str] = Counter()
    for report in reporter.getreports("passed"):
        for name, value in report.user_properties:
            if name == "fault":
                stage, number = (value, 1) if isinstance(value, str) else value
                faults[stage] += number
    if faults:
        counts = ", ".join(f"{stage} {count}" for stage, count in sorted(faults.items()))
        reporter.write_line(f"faults injected: {counts}; {faults.total()} in all")


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder of the golden values: the environment variable ``DGS_GOLDEN``, or ``tests/golden``."""
    return Path(os.environ.get("DGS_GOLDEN", Path(__file__).parent / "golden"))


@pytest.fixture
def generative(golden: Path) -> Callable[[str], "dict[str, Tensor]"]:
    """Reads published values of the generative rivals by the name of their file, which a folder of values may lack."""
    import torch

    def read(name: str) -> "dict[str, Tensor]":
        path = golden / "generative" / name
        if not path.is_file():
            pytest.skip(f"no golden values {path}")
        return {key: torch.from_numpy(array) for key, array in np.load(path).items()}

    return read


@pytest.fixture
def golden_diffusion(golden: Path) -> "dict[str, Tensor]":
    """Published values of the diffusion, by name."""
    import torch

    return {name: torch.from_numpy(array) for name, array in np.load(golden / "diffusion.npz").items()}


@pytest.fixture
def golden_dit(golden: Path) -> "DiT":
    """The model that gave them."""
    from dgs_lightning.models.dit.formats import load_dit

    return load_dit(str(golden / "dit_minimax_state.safetensors"), num_heads=2)


@pytest.fixture
def make_set(tmp_path: Path) -> MakeSet:
    """Writes a set of random images: ``make_set("name", {"cat": ["a.png", ...]}, size=8, mode="RGB")``."""

    def make(name: str, files: dict[str, Sequence[str]], size: int = 8, mode: str = "RGB") -> Path:
        rng = np.random.default_rng(0)
        shape = (size, size) if mode == "L" else (size, size, 3)
        for label, names in files.items():
            (tmp_path / name / label).mkdir(parents=True, exist_ok=True)
            for file in names:
                pixels = rng.integers(0, 256, shape, dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / name / label / file)
        return tmp_path / name

    return make


_CHANGES = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir")  # what Python tells of changes on the disk


def _kill_before_change(number: int, folder: Path) -> None:
    """Kill this process with SIGKILL before it makes, for the n-th time, a change in a folder."""
    left = number

    def watch(event: str, args: tuple[object, ...]) -> None:
        nonlocal left
        if event not in _CHANGES or (
            event == "open" and not int(str(args[2])) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        ):
            return
        if isinstance(args[0], int) or not os.fsdecode(args[0]).startswith(str(folder)):  # type: ignore[arg-type]
            return
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


@pytest.fixture
def killed_before_change() -> Callable[[int, Path, Callable[[], object]], bool]:
    """Runs a job in a process that is killed before its n-th change in a folder; says whether it was killed."""

    def run(number: int, folder: Path, job: Callable[[], object]) -> bool:
        def child() -> None:
            _kill_before_change(number, folder)
            job()

        process = multiprocessing.get_context("fork").Process(target=child)
        process.start()
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL)
        return process.exitcode != 0

    return run


@pytest.fixture
def killed_at_changes(
    killed_before_change: Callable[[int, Path, Callable[[], object]], bool],
) -> Callable[..., list[int]]:
    """Kills a job before each change that it makes in a folder, or before each third one, and runs it again.

    The first function gives the folder in which changes are counted in an attempt, the second one is the job of that
    attempt. After a kill, the job must end by itself. Returns the numbers of the attempts that were killed.
    """

    def run(folder_of: Callable[[int], Path], job: Callable[[int], object], step: int = 3) -> list[int]:
        killed = []
        for number in count(1, step):
            if not killed_before_change(number, folder_of(number), lambda number=number: job(number)):  # type: ignore[misc]
                break
            job(number)
            killed.append(number)
        return killed

    return run


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
    import torch

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
