"""Runs of a tiny experiment that are disturbed: what they start from, how they are started, and what must come out.

The whole matrix runs with ``-m fault`` (``make test-fault``); other selections leave out what is marked ``matrix``.
"""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from dgs_lightning.data.histograms import EVENTS

TINY = (
    "ipc=2",
    "pool_multiple=3",
    "folds=2",
    "draws=1",
    "repeats=1",
    "methods=[minimax_dgs, dag]",
    "judge=null",
    "jobs=1",
    "pretrain.trainer={max_steps: 30, callbacks: [{class_path: ResumeCheckpoint, init_args: {every_n_steps: 7}}]}",
    "finetune.trainer={max_steps: 30, callbacks: [{class_path: ResumeCheckpoint, init_args: {every_n_steps: 7}}]}",
    "finetune.data.init_args.batch_size=16",
    "pretrain.data.init_args.batch_size=16",
    "generate.model.init_args.steps=10",
    "generate.data.init_args.batch_size=2",
    "cross_fit.trainer.max_epochs=4",
    "cross_fit.trainer.callbacks=[{class_path: EpochCheckpoint, init_args: {minutes: 0}}]",
    "score.data.init_args.val_batch_size=8",
    "evaluate.trainer.max_steps=12",
    "evaluate.trainer.callbacks=[{class_path: EpochCheckpoint, init_args: {minutes: 0}}]",
)
DIGITS, IMAGES = 4, 30  # classes, and images of each
SERVER = Path(__file__).with_name("server.py")
REPORT = ("figures", "tables", "summary.json", "summary.md", "index.html")
UNSTABLE = (
    "checkpoints",
    "config.yaml",
    "hparams.yaml",
    "stages",
    "set_aside",
    "experiment.yaml",
    ".lock",
)  # times, or no result


# ---- runs --------------------------------------------------------------------------------------------------------


class Server:
    """The process that forks a ``dgs`` for each run."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(SERVER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self._answer() == "ready"

    def _answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def ask(self, **request: object) -> int:
        """Answer to a request."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return int(self._answer())

    def end(self) -> None:
        """End it; what it forked goes on."""
        self.process.kill()
        self.process.communicate()


@dataclass
class Child:
    """A run of ``dgs`` in a process group of its own."""

    server: Server
    output: Path
    pid: int
    log: Path
    start: float = field(default_factory=time.time)

    def end(self) -> tuple[int, str]:
        """Exit code, and what it wrote to the terminal, once it and all its processes are gone."""
        code = self.server.ask(wait=self.pid)
        deadline = time.monotonic() + 60
        while orphans := living(self.pid):
            assert time.monotonic() < deadline, f"processes {orphans} outlive their run"
            time.sleep(0.02)
        return code, self.log.read_text()

    def kill(self, by: signal.Signals) -> tuple[int, str]:
        """Send a signal to the run, and see it end soon."""
        start = time.monotonic()
        os.kill(self.pid, by)
        ended = self.end()
        assert time.monotonic() - start < 60, f"{by.name} was not heeded for {time.monotonic() - start:.1f} s"
        return ended

    def record(self, stage: str) -> str | None:
        """Status that this run has put on record of a stage."""
        path = self.output / "stages" / f"{stage}.json"
        try:
            if path.stat().st_mtime < self.start:
                return None
            status: str = json.loads(path.read_text())["status"]
        except FileNotFoundError:
            return None
        return status

    def largest_worker(self) -> int:
        """The process with most memory of those that the fork server of a run of several jobs started."""
        parents = {pid: int(stat_of(pid)[1]) for pid in living(self.pid)}
        workers = [pid for pid, parent in parents.items() if parents.get(parent) == self.pid]
        return max(workers, key=lambda pid: int(Path(f"/proc/{pid}/statm").read_text().split()[1]))

    def reach(self, stage: str, seconds: float = 0.0) -> bool:
        """Wait until so long after the beginning of a stage; false where it is done by then."""
        while self.record(stage) is None:
            time.sleep(0.002)
            assert living(self.pid), self.log.read_text()
        time.sleep(seconds)
        return self.record(stage) == "running"


def living(group: int) -> list[int]:
    """Processes of a group that have not ended."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            state, _, of = stat_of(int(path.name))
            if int(of) == group and state != "Z":
                found.append(int(path.name))
    return found


def stat_of(process: int) -> list[str]:
    """State, parent and group of a process."""
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[:3]


class Laboratory:
    """An undisturbed run, and copies of it that are disturbed.

    Args:
        server: What starts the runs.
        folder: Where the undisturbed run goes.
    """

    def __init__(self, server: Server, folder: Path) -> None:
        self.server = server
        self.data = folder / "digits"
        write_digits(self.data)
        self.undisturbed = folder / "undisturbed"
        code, log = self.run(self.undisturbed)
        assert code == 0, log
        records = [json.loads(path.read_text()) for path in (self.undisturbed / "stages").rglob("*.json")]
        self.seconds = {record["name"]: record["seconds"] for record in records}
        self.order = re.findall(r"^(\S+): dgs ", log, re.MULTILINE)
        self.expected = content(self.undisturbed)

    def before(self, stage: str, output: Path) -> Path:
        """A copy of the undisturbed run as it was before a stage."""
        later = {*self.order[self.order.index(stage) :], *REPORT}
        if "guided/dag-ipc2" in later:
            later.add("centers")

        def left_out(folder: str, names: list[str]) -> list[str]:
            below = Path(folder).relative_to(self.undisturbed)
            paths = {name: (below / name).as_posix().removeprefix("stages/") for name in names}
            return [
                name
                for name, path in paths.items()
                if path in later or path.rpartition(".")[0] in later or name in UNSTABLE[:3] or is_log(name)
            ]

        return Path(shutil.copytree(self.undisturbed, output, ignore=left_out))

    def start(self, output: Path, *changes: str, file_bytes: int | None = None) -> Child:
        """Start the experiment in a folder."""
        log = Path(tempfile.mkstemp(".log", dir=self.data.parent)[1])
        settings = [part for change in (*TINY, f"data={self.data}", *changes) for part in ("--set", change)]
        args = ["run", "quickstart", "--output", str(output), *settings]
        return Child(self.server, output, self.server.ask(args=args, log=str(log), file_bytes=file_bytes), log)

    def run(self, output: Path, *changes: str, file_bytes: int | None = None) -> tuple[int, str]:
        """Exit code of a run, and what it wrote to the terminal."""
        return self.start(output, *changes, file_bytes=file_bytes).end()

    def largest_file(self, stage: str) -> int:
        """Bytes of the largest file that a stage writes."""
        folders = [self.undisturbed / path for path in (REPORT if stage == "report" else [stage])]
        files = [path for folder in folders for path in (folder.rglob("*") if folder.is_dir() else [folder])]
        return max(path.stat().st_size for path in files if path.is_file())

    def check(self, output: Path) -> None:
        """Run the experiment to its end, and compare with the undisturbed run."""
        code, log = self.run(output)
        assert code == 0, log
        found = content(output)
        assert found.keys() == self.expected.keys()
        assert [name for name in found if found[name] != self.expected[name]] == []


def write_digits(folder: Path) -> None:
    """Handwritten digits as a tree of class folders."""
    digits = load_digits()
    for label in range(DIGITS):
        (folder / str(label)).mkdir(parents=True)
        for index in np.flatnonzero(digits.target == label)[:IMAGES]:
            pixels = np.round(digits.images[index] * (255 / 16)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / str(label) / f"{index:05d}.png")


def is_log(name: str) -> bool:
    """Whether a file is TensorBoard's log of a stage, which has times in it; histograms of difficulty have none."""
    return "tfevents" in name and name != EVENTS


def content(output: Path) -> dict[str, str]:
    """Hashes of all results of a run, and the rows of its summary."""
    files = {path.relative_to(output): path for path in output.rglob("*") if path.is_file()}
    stable = {
        name.as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in files.items()
        if not set(name.parts) & {*UNSTABLE, *REPORT} and not is_log(name.name)
    }
    return stable | {"rows": json.dumps(json.loads((output / "summary.json").read_text())["rows"])}


@pytest.fixture(scope="session")
def laboratory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laboratory]:
    server = Server()
    yield Laboratory(server, tmp_path_factory.mktemp("faults"))
    server.end()


@pytest.fixture
def output(tmp_path: Path) -> Iterator[Path]:
    """Folder of a disturbed run."""
    yield tmp_path / "run"
    shutil.rmtree(tmp_path / "run", ignore_errors=True)
