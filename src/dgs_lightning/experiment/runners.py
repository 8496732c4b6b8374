"""Runners: where the stages of a run are executed. A runner starts stages, tells their progress, and ends."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from multiprocessing import active_children, get_context, parent_process
from multiprocessing.connection import wait as wait_for
from multiprocessing.managers import SyncManager
from queue import Queue
from types import FrameType
from typing import Protocol

from dgs_lightning.errors import InputError
from dgs_lightning.experiment.execution import ALL_GPUS, Job, Outcome, commands_at_work, run_stage

Listener = Callable[[str, int, int], None]  # name of a stage, steps done, steps in all
Result = Callable[[], Outcome]  # returns the outcome of a stage, or raises its error


class Runner(Protocol):
    """Executes stages. ``slots`` is the number of stages that it runs at the same time."""

    slots: int

    def start(self, job: Job) -> None:
        """Start a stage. A run starts at most ``slots`` stages at a time."""

    def finished(self) -> Iterator[tuple[str, Result]]:
        """Wait until a stage ends, or for a moment. Yields the name and the result of each stage that ended."""


class InProcess:
    """Runs one stage after another in this process, and calls a listener with the progress."""

    slots = 1

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._waiting: list[Job] = []

    def start(self, job: Job) -> None:
        """Take the next stage. It runs when its result is asked for."""
        self._waiting.append(job)

    def finished(self) -> Iterator[tuple[str, Result]]:
        """The stage that was started."""
        job = self._waiting.pop()
        yield job.stage, partial(run_stage, job, partial(self._listener, job.stage))


class ProcessPool:
    """Runs stages in several processes. Open it by :func:`process_pool`."""

    def __init__(self, slots: int, listener: Listener, workers: Executor, steps: "Queue[tuple[str, int, int]]") -> None:
        self.slots = slots
        self._listener = listener
        self._workers = workers
        self._steps = steps
        self._running: dict[Future[Outcome], str] = {}

    def start(self, job: Job) -> None:
        """Hand a stage to a process that is free."""
        self._running[self._workers.submit(_run_in_worker, job, self._steps)] = job.stage

    def finished(self) -> Iterator[tuple[str, Result]]:
        """Wait for half a second at most, and pass on the progress of the processes."""
        ended, _ = wait(self._running, timeout=0.5, return_when=FIRST_COMPLETED)
        while not self._steps.empty():
            self._listener(*self._steps.get())
        for future in ended:
            yield self._running.pop(future), future.result


@contextmanager
def process_pool(slots: int, listener: Listener) -> Iterator[ProcessPool]:
    """A pool of processes for stages; with GPUs, each process has its own. An error of the block ends them.

    Args:
        slots: Number of processes.
        listener: Called with the progress of a stage.

    Raises:
        InputError: If a process is killed from outside.
    """
    context = get_context("forkserver")
    context.set_forkserver_preload(["dgs_lightning.commands.cli"])
    manager = SyncManager(ctx=context)
    with _hang_ups_ignored():  # also by the processes that begin here, and by those that they begin
        manager.start(_end_with_parent)
    gpus: Queue[int] = manager.Queue()
    for slot in range(slots):
        gpus.put(slot)
    with ProcessPoolExecutor(slots, context, _start_worker, (gpus,)) as workers:
        try:
            yield ProcessPool(slots, listener, workers, manager.Queue())
        except (BrokenProcessPool, ConnectionError, EOFError):
            found = "a process of the run that was killed from outside, as when memory runs out"
            remedy = "Run it again, with fewer jobs where memory is short: it keeps what is finished"
            raise InputError(f"jobs={slots}", found, "processes that end by themselves", remedy) from None
        except BaseException:
            for process in active_children():
                process.terminate()
            workers.shutdown(wait=False, cancel_futures=True)
            raise


@contextmanager
def _hang_ups_ignored() -> Iterator[None]:
    """Ignore the end of the terminal for a moment, as child processes then do for good: their parent ends them.

    One that died on its own would leave semaphores behind. Only the main thread of a process can do this.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


def _run_in_worker(job: Job, steps: "Queue[tuple[str, int, int]]") -> Outcome:
    return run_stage(job, lambda done, total: steps.put((job.stage, done, total)))


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
