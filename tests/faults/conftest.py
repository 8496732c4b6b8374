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
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from tests.faults.calls import Watch, unwatchable
from tests.waiting import cpu_time, wait_until

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
SMALLEST = (  # changes of it, by which each stage makes few system calls
    "ipc=1",
    "pool_multiple=2",
    "methods=[dag]",
    "guided=minimax",
    "pretrain.trainer={max_steps: 3, callbacks: [{class_path: ResumeCheckpoint, init_args: {every_n_steps: 2}}]}",
    "finetune.trainer={max_steps: 3, callbacks: [{class_path: ResumeCheckpoint, init_args: {every_n_steps: 2}}]}",
    "finetune.data.init_args.batch_size=4",
    "pretrain.data.init_args.batch_size=4",
    "generate.model.init_args.steps=2",
    "cross_fit.trainer.max_epochs=2",
    "score.data.init_args.val_batch_size=4",
    "evaluate.trainer.max_steps=3",
)


def learning(method: str, steps: int, checkpoint: int) -> str:
    """Change of the steps in which a method learns images, and of those between two checkpoints."""
    callbacks = f"[{{class_path: ResumeCheckpoint, init_args: {{every_n_steps: {checkpoint}}}}}, LearnedImagesWriter]"
    return f"options.{method}.trainer={{max_steps: {steps}, callbacks: {callbacks}}}"


RIVALS = (  # changes of the tiny experiment, by which it has the stages of matching methods and of RDED
    "methods=[dm, idc1, rded]",
    "judge={config: classify/judge_digits.yaml, trainer: {max_steps: 12}}",
    "options.rded.mipc=12",
    "options.dm={config: match/dm_digits.yaml, model: {init_args: {width: 8, batch_real: 8}}}",
    "options.idc1={config: match/idc1_digits.yaml, model: {init_args: {width: 8, batch_real: 8}}}",
    "options.idc1.model.init_args.training={rounds: 10, seen: 16, batch_size: 8}",
    *(learning(method, steps=30, checkpoint=7) for method in ("dm", "idc1")),
)
SMALLEST_RIVALS = (  # changes of both together
    "judge.trainer.max_steps=3",
    "options.rded.mipc=4",
    *(learning(method, steps=3, checkpoint=2) for method in ("dm", "idc1")),
)
KINDS_OF_RIVALS = ("matched", "crops", "stitch")  # stages that only the laboratories of rivals have
ROOT = Path(__file__).parents[2]
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
            [sys.executable, "-m", "tests.faults.server"],
            cwd=ROOT,
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
        wait_until(lambda: not living(self.pid), lambda: cpu_time(living(self.pid)))
        return code, self.log.read_text()

    def kill(self, by: signal.Signals) -> tuple[int, str]:
        """Send a signal to the run, and see it end."""
        os.kill(self.pid, by)
        return self.end()

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
        changes: Changes of the tiny experiment.
        classes: Classes of its data.
        images: Images of a class.
    """

    def __init__(
        self, server: Server, folder: Path, changes: tuple[str, ...] = (), classes: int = 4, images: int = 30
    ) -> None:
        self.server = server
        self.changes = changes
        self.data = folder / "digits"
        write_digits(self.data, classes, images)
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
        return self._copy(later, output)

    def without(self, stage: str, output: Path) -> Path:
        """A copy of the undisturbed run in which only one stage is not done."""
        return self._copy({stage, *(REPORT if stage == "report" else ())}, output)

    def _copy(self, missing: set[str], output: Path) -> Path:
        def left_out(folder: str, names: list[str]) -> list[str]:
            below = Path(folder).relative_to(self.undisturbed)
            paths = {name: (below / name).as_posix().removeprefix("stages/") for name in names}
            return [
                name
                for name, path in paths.items()
                if path in missing or path.rpartition(".")[0] in missing or name in UNSTABLE[:3] or is_log(name)
            ]

        return Path(shutil.copytree(self.undisturbed, output, ignore=left_out))

    def start(self, output: Path, *changes: str, file_bytes: int | None = None, watched_at: str | None = None) -> Child:
        """Start the experiment in a folder."""
        log = Path(tempfile.mkstemp(".log", dir=self.data.parent)[1])
        changes = (*TINY, *self.changes, f"data={self.data}", *changes)
        args = ["run", "quickstart", "--output", str(output), *(part for c in changes for part in ("--set", c))]
        pid = self.server.ask(args=args, log=str(log), file_bytes=file_bytes, watched_at=watched_at)
        return Child(self.server, output, pid, log)

    def watched(self, watch: Watch, output: Path) -> tuple[int, str]:
        """Exit code of a run whose calls are answered by a watch, and what it wrote to the terminal."""
        with watch.listening() as address:
            child = self.start(output, watched_at=address)
            watch.answer(child.pid)
        return child.end()

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


def write_digits(folder: Path, classes: int, images: int) -> None:
    """Handwritten digits as a tree of class folders."""
    digits = load_digits()
    for label in range(classes):
        (folder / str(label)).mkdir(parents=True)
        for index in np.flatnonzero(digits.target == label)[:images]:
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
def server() -> Iterator[Server]:
    started = Server()
    yield started
    started.end()


@pytest.fixture(scope="session")
def laboratory(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Laboratory:
    return Laboratory(server, tmp_path_factory.mktemp("faults"))


@pytest.fixture(scope="session")
def rivals(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Laboratory:
    """A laboratory with the stages of matching methods and of RDED."""
    return Laboratory(server, tmp_path_factory.mktemp("rivals"), RIVALS)


@pytest.fixture(scope="session")
def watchable() -> None:
    """Skips where no process can be watched."""
    if reason := unwatchable():
        pytest.skip(reason)


@pytest.fixture(scope="session")
def smallest(watchable: None, server: Server, tmp_path_factory: pytest.TempPathFactory) -> Laboratory:
    """A laboratory whose stages make few system calls."""
    return Laboratory(server, tmp_path_factory.mktemp("smallest"), SMALLEST, classes=2, images=6)


@pytest.fixture(scope="session")
def smallest_rivals(watchable: None, server: Server, tmp_path_factory: pytest.TempPathFactory) -> Laboratory:
    """Another one, with the stages of matching methods and of RDED."""
    changes = (*SMALLEST, *RIVALS, *SMALLEST_RIVALS)
    return Laboratory(server, tmp_path_factory.mktemp("smallest_rivals"), changes, classes=2, images=6)


@pytest.fixture
def laboratory_of(request: pytest.FixtureRequest) -> Callable[[str], Laboratory]:
    """The laboratory that has the stages of a kind."""
    return lambda kind: request.getfixturevalue("rivals" if kind in KINDS_OF_RIVALS else "laboratory")


@pytest.fixture
def smallest_of(request: pytest.FixtureRequest) -> Callable[[str], Laboratory]:
    """The smallest laboratory that has the stages of a kind."""
    return lambda kind: request.getfixturevalue("smallest_rivals" if kind in KINDS_OF_RIVALS else "smallest")


@pytest.fixture
def output(tmp_path: Path) -> Iterator[Path]:
    """Folder of a disturbed run."""
    yield tmp_path / "run"
    shutil.rmtree(tmp_path / "run", ignore_errors=True)
