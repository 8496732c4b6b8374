"""Runners: where the stages of a run are executed. A runner starts stages, tells their progress, and ends."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import active_children, get_context, parent_process
from multiprocessing.connection import wait as wait_for
from multiprocessing.managers import SyncManager
from queue import Queue
from types import FrameType, TracebackType
from typing import NamedTuple, Protocol

from dgs_lightning.errors import InputError
from dgs_lightning.experiment.execution import ALL_GPUS, Outcome, commands_at_work, run_stage


class Job(NamedTuple):
    """A stage to run.

    Attributes:
        stage: Its name.
        command: Command of ``dgs``.
        config: YAML file with its settings.
    """

    stage: str
    command: str
    config: str


Listener = Callable[[str, int, int], None]  # name of a stage, steps done, steps in all
Result = Callable[[], Outcome]  # gives the outcome of a stage, or raises its error


class Runner(Protocol):
    """What a run asks of the place where its stages are executed.

    Attributes:
        slots: Number of stages that run at the same time.
    """

    slots: int

    def start(self, job: Job) -> None:
        """Start a stage; the run starts no more than ``slots`` at a time."""

    def finished(self) -> Iterator[tuple[str, Result]]:
        """Wait until a stage ends, or for a moment; names of the stages that ended, with their results."""

    def __enter__(self) -> "Runner":
        """Begin."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End; where the run ends with an error, end the stages that still run, too."""


class InProcess:
    """Runs one stage after another in this process.

    Args:
        listener: Told how far a stage is.
    """

    slots = 1

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._waiting: list[Job] = []

    def start(self, job: Job) -> None:
        """Take the next stage, which runs when the run waits for it."""
        self._waiting.append(job)

    def finished(self) -> Iterator[tuple[str, Result]]:
        """The stage, which runs when its result is asked for."""
        job = self._waiting.pop()
        yield job.stage, partial(run_stage, job.command, job.config, partial(self._listener, job.stage))

    def __enter__(self) -> "InProcess":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is left to end."""


class ProcessPool:
    """Runs stages in processes of its own, each on a GPU of its own where there are any.

    Args:
        slots: Number of processes.
        listener: Told how far a stage is.

    Raises:
        InputError: While waiting, if a process was killed from outside.
    """

    def __init__(self, slots: int, listener: Listener) -> None:
        self.slots = slots
        self._listener = listener
        self._running: dict[Future[Outcome], str] = {}

    def __enter__(self) -> "ProcessPool":
        context = get_context("forkserver")
        context.set_forkserver_preload(["dgs_lightning.commands.cli"])
        self._manager = SyncManager(ctx=context)
        self._manager.start(_end_with_parent)
        self._steps: Queue[tuple[str, int, int]] = self._manager.Queue()
        gpus: Queue[int] = self._manager.Queue()
        for slot in range(self.slots):
            gpus.put(slot)
        self._workers = ProcessPoolExecutor(self.slots, context, _start_worker, (gpus,))
        return self

    def start(self, job: Job) -> None:
        """Hand a stage to a process that is free."""
        with self._killed_from_outside():
            self._running[self._workers.submit(_run_in_worker, job, self._steps)] = job.stage

    def finished(self) -> Iterator[tuple[str, Result]]:
        """Wait for half a second at most, and pass on what the processes told."""
        with self._killed_from_outside():
            ended, _ = wait(self._running, timeout=0.5, return_when=FIRST_COMPLETED)
            while not self._steps.empty():
                self._listener(*self._steps.get())
        for future in ended:
            yield self._running.pop(future), partial(self._result, future)

    def _result(self, future: Future[Outcome]) -> Outcome:
        with self._killed_from_outside():
            return future.result()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            for process in active_children():
                process.terminate()
        self._workers.shutdown(wait=error is None, cancel_futures=True)

    def _killed_from_outside(self) -> "_KilledFromOutside":
        return _KilledFromOutside(self.slots)


class _KilledFromOutside:
    """Turns the error of a pool whose process was killed into one that says what to do."""

    def __init__(self, jobs: int) -> None:
        self.jobs = jobs

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, BrokenProcessPool | ConnectionError | EOFError):
            raise InputError(
                f"jobs={self.jobs}",
                found="a process of the run that was killed from outside, as when memory runs out",
                expected="processes that end by themselves",
                remedy="Run it again, with fewer jobs where memory is short: it keeps what is finished",
            ) from None


def _run_in_worker(job: Job, steps: "Queue[tuple[str, int, int]]") -> Outcome:
    return run_stage(job.command, job.config, lambda done, total: steps.put((job.stage, done, total)))


def _start_worker(slots: "Queue[int]") -> None:
    """Give a worker a GPU of its own, where there are any, and tie it to the run."""
    import torch

    gpus = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(torch.cuda.device_count())))
    if gpus:
        os.environ[ALL_GPUS] = gpus
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus.split(",")[slots.get() % len(gpus.split(","))]
    _end_with_parent()


def _end_worker(number: int, frame: FrameType | None) -> None:
    """End without an exception: the pool would take that for the outcome of a stage and wait for the next."""
    for group in commands_at_work:
        os.killpg(group, signal.SIGKILL)
    os._exit(128 + number)


def _end_with_parent() -> None:
    """Leave Ctrl-C to the run, and end this process as soon as the run has ended, however it ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end_worker)
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=lambda: (wait_for([parent.sentinel]), os._exit(1)), daemon=True).start()
