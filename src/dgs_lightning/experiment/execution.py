"""The execution of one stage: in this process, or as a command of its own where it uses several devices."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from dgs_lightning.commands.process import PARENT
from dgs_lightning.configs import load_yaml
from dgs_lightning.errors import InputError
from dgs_lightning.files import explain_disk_errors, remove_leftovers
from dgs_lightning.runs import layout
from dgs_lightning.runs.lock import is_held, locked
from dgs_lightning.runs.results import Results, make_durable, measure

ALL_GPUS = "DGS_ALL_GPUS"  # a worker sees one GPU; this variable names all GPUs that the run was given
commands_at_work: list[int] = []  # process groups of the commands that this process waits for


class Outcome(NamedTuple):
    """How a stage went.

    Attributes:
        seconds: Its time.
        device: What it ran on: the name of a GPU, with the number where there are several, or ``cpu``.
        said: What its command printed.
        results: The files that it left, which the disk has.
    """

    seconds: float
    device: str
    said: str
    results: Results


class Job(NamedTuple):
    """A stage to run.

    Attributes:
        stage: Its name.
        command: Its command of ``dgs``.
        config: YAML file with its settings.
        run: Folder of the run.
    """

    stage: str
    command: str
    config: str
    run: Path


def stage_at_work(job: Job) -> bool:
    """Whether a process still writes a stage, such as one of a run that has died on another machine."""
    return is_held(job.run / layout.stage_lock(job.stage))


def run_stage(job: Job, on_step: Callable[[int, int], None]) -> Outcome:
    """Run one stage, and wait until the disk has what it left. As long as it runs, its lock is held.

    Args:
        job: The stage.
        on_step: Told the steps done and the steps in all.

    Raises:
        InputError: If the settings or the inputs of the stage cannot be used, or another process writes it.
    """
    held = job.run / layout.stage_lock(job.stage)
    with locked(held, job.run / job.stage):
        try:
            return _run(job, on_step)
        finally:
            held.unlink(missing_ok=True)


def _run(job: Job, on_step: Callable[[int, int], None]) -> Outcome:
    from dgs_lightning.commands.cli import execute

    start, said = time.monotonic(), ""
    _, command, config, _ = job
    trainer = load_yaml(Path(config)).get("trainer")
    if devices_of(trainer) == 1:
        said = execute(command, ["--config", config], on_step)
    else:
        # A strategy of several processes starts this program again for each of them.
        arguments = [sys.executable, "-m", "dgs_lightning", command, "--config", config]
        environment = {**os.environ, PARENT: str(os.getpid())}
        if ALL_GPUS in os.environ:
            environment["CUDA_VISIBLE_DEVICES"] = os.environ[ALL_GPUS]
        if _exit_status(arguments, environment):
            found, remedy = "a failure, shown above", "Mend its cause and run again; what is done stays"
            raise InputError(f"dgs {command} --config {config}", found, "an end without one", remedy)
    with explain_disk_errors(job.run / job.stage):
        for part in layout.left_by(job.stage):
            remove_leftovers(job.run / part)
        results = measure(job.run, layout.left_by(job.stage))
        make_durable(job.run, [*results, layout.stage_settings(job.stage)])
    return Outcome(time.monotonic() - start, device_of(trainer), said, results)


def devices_of(trainer: dict[str, Any] | None) -> int | None:
    """Number of devices that settings of a trainer name; none if it is to take all that there are."""
    devices = (trainer or {}).get("devices", 1)
    named = devices if isinstance(devices, list) else str(devices).split(",")
    if len(named) > 1 or isinstance(devices, list):
        return len(named)
    return int(devices) if str(devices).isdigit() else None


def device_of(trainer: dict[str, Any] | None) -> str:
    """What a stage with these settings of its trainer, if it has one, runs on."""
    import torch

    if trainer is None or trainer.get("accelerator") == "cpu" or not torch.cuda.is_available():
        return "cpu"
    number = trainer.get("devices", 1)
    return torch.cuda.get_device_name() if number == 1 else f"{number} x {torch.cuda.get_device_name()}"


def _exit_status(arguments: list[str], environment: dict[str, str]) -> int:
    """Exit status of a command. When this process is ended, no process of the command is left."""
    with subprocess.Popen(arguments, env=environment, start_new_session=True) as command:
        commands_at_work.append(command.pid)
        try:
            return command.wait()
        except BaseException:
            os.killpg(command.pid, signal.SIGKILL)
            raise
        finally:
            commands_at_work.remove(command.pid)
