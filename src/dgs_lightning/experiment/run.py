"""``dgs run``: the stages of an experiment, each skipped where it is done and resumed where it broke."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from multiprocessing import active_children, get_context, parent_process
from multiprocessing.connection import wait as wait_for
from multiprocessing.managers import SyncManager
from pathlib import Path
from queue import Queue
from types import FrameType
from typing import Any, NamedTuple

import yaml

from dgs_lightning.commands.arguments import experiment_parser
from dgs_lightning.configs import load_yaml
from dgs_lightning.errors import InputError
from dgs_lightning.experiment.plan import Plan, Stage, one_of_each_kind, stage_keys
from dgs_lightning.experiment.progress import Progress
from dgs_lightning.experiment.settings import Experiment, load_experiment
from dgs_lightning.files import write_json, write_text

DONE, RUNNING = "done", "running"
_alone: list[int] = []  # process groups of the commands that this process waits for
ALL_GPUS = "DGS_ALL_GPUS"  # set in workers, which see one GPU each, to the GPUs that the run was given


def main(args: list[str]) -> None:
    """Run the experiment that the command line names."""
    parser = experiment_parser("run", "Run an experiment: all its stages, skipping what is done.")
    parser.add_argument("--dry-run", action="store_true", help="show what would run, and run nothing")
    options = parser.parse_args(args)
    experiment = load_experiment(options.experiment, options.set, options.output)
    run = Run(experiment)
    if options.dry_run:
        run.show()
        return
    with run.lock():
        run.execute()
    run.print_table()


class Outcome(NamedTuple):
    """How a stage went.

    Attributes:
        seconds: Its time.
        device: What it ran on: a GPU by its name, with the number where there are several, or ``cpu``.
        said: What its command had to say.
    """

    seconds: float
    device: str
    said: str


class Run:
    """One experiment in its folder.

    Args:
        experiment: The experiment.
    """

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        plan = Plan(experiment)
        self.output = plan.output
        self.stages = plan.everything()
        self.keys = stage_keys(self.stages, self.output)
        self.progress = Progress(len(self.stages))

    # ---- records: stages/NAME.json says what is done, stages/NAME.yaml with which settings -------------------

    def _record(self, stage: Stage) -> dict[str, Any]:
        """What is on record about a stage; nothing where the record is missing or broken off."""
        try:
            record: dict[str, Any] = json.loads(self._record_path(stage).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return {}
        return record

    def _record_path(self, stage: Stage) -> Path:
        return self.output / "stages" / f"{stage.name}.json"

    def config_path(self, stage: Stage) -> Path:
        """The YAML file with the stage's settings."""
        return self.output / "stages" / f"{stage.name}.yaml"

    def command(self, stage: Stage) -> str:
        """The command that runs the stage alone."""
        return f"dgs {stage.command} --config {self.config_path(stage)}"

    def _write_record(self, stage: Stage, status: str, outcome: Outcome | None = None) -> None:
        key = self.keys[stage.name]
        record: dict[str, Any] = {"name": stage.name, "command": stage.command, "key": key, "status": status}
        if outcome is not None:
            record |= {"seconds": round(outcome.seconds, 3), "device": outcome.device}
        write_json(self._record_path(stage), record)

    def status(self, stage: Stage) -> str:
        """``done``, ``resume`` (begun with these settings), ``changed`` (done with others) or ``new``."""
        record = self._record(stage)
        if not record:
            return "new"
        if record.get("key") != self.keys[stage.name]:
            return "changed"
        return DONE if record.get("status") == DONE and self._has_results(stage) else "resume"

    def _has_results(self, stage: Stage) -> bool:
        return (self.output / ("summary.json" if stage.command == "report" else stage.name)).exists()

    # ---- running ---------------------------------------------------------------------------------------------

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run's folder, so that no second run writes into it."""
        self.output.mkdir(parents=True, exist_ok=True)
        with (self.output / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError(
                    self.output,
                    found="another run at work in it",
                    expected="a folder of this run's own",
                    remedy="Wait until that run ends, or give another --output",
                ) from None
            yield

    def show(self) -> None:
        """Print each stage, its status and its command."""
        for stage in self.stages:
            print(f"{self.status(stage):8} {stage.name:45} {self.command(stage)}")

    def execute(self) -> None:
        """Run every stage that is not done, in order, several side by side where ``jobs`` says so."""
        pending = [stage for stage in self.stages if self.status(stage) != DONE]
        if not pending:
            return
        settings = yaml.safe_dump(vars(self.experiment), sort_keys=False, allow_unicode=True)
        write_text(self.output / "experiment.yaml", settings)
        for stage in pending:
            settings = yaml.safe_dump(stage.config, sort_keys=False, allow_unicode=True)
            write_text(self.config_path(stage), f"# {self.command(stage)}\n{settings}")
        from dgs_lightning.commands.cli import check

        for stage in one_of_each_kind(pending, self.output):
            check(stage.command, ["--config", str(self.config_path(stage))])
        with self.progress:
            self.progress.skip(len(self.stages) - len(pending))
            if self.experiment.jobs == 1:
                self._one_after_another(pending)
            else:
                self._side_by_side(pending)

    def _begin(self, stage: Stage) -> None:
        """Clear what other settings left, and record that the stage runs."""
        if self.status(stage) in ("changed", "new") and stage.command != "report":
            self._record_path(stage).unlink(missing_ok=True)  # first: half a folder must not pass for what is on record
            shutil.rmtree(self.output / stage.name, ignore_errors=True)
        self._write_record(stage, RUNNING)
        self.progress.begin(stage.name, self.command(stage))

    def _one_after_another(self, pending: list[Stage]) -> None:
        for stage in pending:
            self._begin(stage)
            config, listener = str(self.config_path(stage)), self._listener(stage)
            self._end(stage, partial(run_stage, stage.command, config, self.experiment.threads, listener))

    def _end(self, stage: Stage, run: Callable[[], Outcome]) -> None:
        """Record that a stage is done, or name it where it failed."""
        try:
            outcome = run()
        except InputError as error:
            self.progress.stop(stage.name)
            raise self._reopened(error, stage) from None
        self._write_record(stage, DONE, outcome)
        self.progress.finish(stage.name, outcome.seconds)
        if stage.command == "prepare":  # what was read from the user's data
            self.progress.say(outcome.said)

    def _reopened(self, error: InputError, failed: Stage) -> InputError:
        """The error; an earlier stage that made what is at fault is no longer done, so that the next run mends it."""
        where, found, expected, remedy = error.parts
        for maker in self.stages[: self.stages.index(failed)]:
            if Path(where).is_relative_to(self.output / maker.name):
                self._write_record(maker, RUNNING)
                remedy += f". Where it was damaged, run the same command again: it goes through {maker.name} once more"
        return InputError(where, found=found, expected=expected, remedy=remedy)

    def _listener(self, stage: Stage) -> Callable[[int, int], None]:
        return lambda done, total: self.progress.step(stage.name, done, total)

    def _side_by_side(self, pending: list[Stage]) -> None:
        """Start each stage as soon as what it needs is done and a worker is free."""
        context = get_context("forkserver")
        context.set_forkserver_preload(["dgs_lightning.commands.cli"])
        manager = SyncManager(ctx=context)
        manager.start(_end_with_parent)
        steps: Queue[tuple[str, int, int]] = manager.Queue()
        slots: Queue[int] = manager.Queue()
        for slot in range(self.experiment.jobs):
            slots.put(slot)
        with ProcessPoolExecutor(self.experiment.jobs, context, _start_worker, (slots,)) as workers:
            waiting, running = list(pending), dict[Future[Outcome], Stage]()
            try:
                while waiting or running:
                    self._start_ready(workers, waiting, running, steps)
                    finished, _ = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
                    while not steps.empty():
                        self.progress.step(*steps.get())
                    for future in finished:
                        self._end(running.pop(future), future.result)
            except (BrokenProcessPool, ConnectionError, EOFError):
                raise InputError(
                    f"jobs={self.experiment.jobs}",
                    found="a process of the run that was killed from outside, as when memory runs out",
                    expected="processes that end by themselves",
                    remedy="Run it again, with fewer jobs where memory is short: it keeps what is finished",
                ) from None
            except BaseException:
                for process in active_children():
                    process.terminate()
                workers.shutdown(wait=False, cancel_futures=True)
                raise

    def _start_ready(
        self,
        workers: Executor,
        waiting: list[Stage],
        running: dict[Future[Outcome], Stage],
        steps: "Queue[tuple[str, int, int]]",
    ) -> None:
        unfinished = {stage.name for stage in waiting} | {stage.name for stage in running.values()}
        for stage in list(waiting):
            if len(running) == self.experiment.jobs:
                return
            if all(needed.name not in unfinished for needed in stage.needs):
                waiting.remove(stage)
                self._begin(stage)
                arguments = (stage.command, str(self.config_path(stage)), self.experiment.threads, stage.name, steps)
                running[workers.submit(_run_in_worker, *arguments)] = stage

    def print_table(self) -> None:
        """Print the summary and where everything is."""
        from dgs_lightning.commands.report import print_summary

        print_summary(self.output)


def run_stage(command: str, config: str, threads: int, on_step: Callable[[int, int], None]) -> Outcome:
    """Run one stage: in this process, or where it uses several devices as the command line of its own that it is."""
    import torch

    from dgs_lightning.commands.cli import execute

    torch.set_num_threads(threads)
    start, said = time.monotonic(), ""
    trainer = load_yaml(Path(config)).get("trainer")
    if (trainer or {}).get("devices", 1) == 1:
        said = execute(command, ["--config", config], on_step)
    else:
        # A strategy of several processes starts this program again for each of them.
        arguments = [sys.executable, "-m", "dgs_lightning", command, "--config", config]
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": os.environ.get(ALL_GPUS, "")}
        if _run_alone(arguments, environment if ALL_GPUS in os.environ else None):
            raise InputError(
                f"dgs {command} --config {config}",
                found="a failure, shown above",
                expected="an end without one",
                remedy="Mend its cause and run again; what is done stays",
            )
    return Outcome(time.monotonic() - start, device_of(trainer), said)


def device_of(trainer: dict[str, Any] | None) -> str:
    """What a stage with these settings of its trainer, if it has one, runs on."""
    import torch

    if trainer is None or trainer.get("accelerator") == "cpu" or not torch.cuda.is_available():
        return "cpu"
    number = trainer.get("devices", 1)
    return torch.cuda.get_device_name() if number == 1 else f"{number} x {torch.cuda.get_device_name()}"


def _run_alone(arguments: list[str], environment: dict[str, str] | None) -> int:
    """Exit code of a command, of whose processes none is left where this one is ended."""
    with subprocess.Popen(arguments, env=environment, start_new_session=True) as command:
        _alone.append(command.pid)
        try:
            return command.wait()
        except BaseException:
            os.killpg(command.pid, signal.SIGKILL)
            raise
        finally:
            _alone.remove(command.pid)


def _run_in_worker(command: str, config: str, threads: int, name: str, steps: "Queue[tuple[str, int, int]]") -> Outcome:
    return run_stage(command, config, threads, lambda done, total: steps.put((name, done, total)))


def _start_worker(slots: "Queue[int]") -> None:
    """Give a worker a GPU of its own, where there are any, and tie it to the run."""
    import torch

    gpus = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(torch.cuda.device_count())))
    if gpus:
        os.environ[ALL_GPUS] = gpus
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus.split(",")[slots.get() % len(gpus.split(","))]
    _end_with_parent()


def _end_worker(number: int, frame: FrameType | None) -> None:
    """End without an exception, which the pool would take for a stage's outcome, and wait for the next."""
    for group in _alone:
        os.killpg(group, signal.SIGKILL)
    os._exit(128 + number)


def _end_with_parent() -> None:
    """Leave Ctrl-C to the run, and end this process as soon as the run is gone, however it went."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end_worker)
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=lambda: (wait_for([parent.sentinel]), os._exit(1)), daemon=True).start()
