"""``dgs run``: the stages of an experiment, each skipped where it is done and resumed where it stopped."""

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import yaml

from dgs_lightning.commands.arguments import experiment_parser
from dgs_lightning.configs import class_name
from dgs_lightning.errors import InputError
from dgs_lightning.experiment.execution import Outcome
from dgs_lightning.experiment.plan import Plan
from dgs_lightning.experiment.progress import Progress
from dgs_lightning.experiment.runners import InProcess, Job, Result, Runner, process_pool
from dgs_lightning.experiment.settings import Experiment, load_experiment
from dgs_lightning.experiment.stage import Stage, one_of_each_kind, stage_keys
from dgs_lightning.files import write_text
from dgs_lightning.runs import layout
from dgs_lightning.runs.records import DONE, RUNNING, Records


def main(args: list[str]) -> None:
    """Run the experiment that the command line names."""
    parser = experiment_parser("run", "Run an experiment: all its stages, skipping what is done.")
    parser.add_argument("--dry-run", action="store_true", help="show what would run, and run nothing")
    options = parser.parse_args(args)
    run = ExperimentRun(load_experiment(options.experiment, options.set, options.output))
    if options.dry_run:
        run.show()
        return
    with run.lock():
        run.execute()
    from dgs_lightning.commands.report import print_summary

    print_summary(run.output)


class ExperimentRun:
    """One experiment in its folder.

    Args:
        experiment: The experiment.
    """

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        self.output = Path(experiment.output or "runs")
        self.stages = Plan(experiment).everything()
        self.keys = stage_keys(self.stages)
        self.records = Records(self.output)
        self.progress = Progress(len(self.stages))

    def settings_path(self, stage: Stage) -> Path:
        """The YAML file with the settings of a stage."""
        return self.output / layout.stage_settings(stage.name)

    def command(self, stage: Stage) -> str:
        """The command that runs the stage alone."""
        return f"dgs {stage.command} --config {self.settings_path(stage)}"

    def status(self, stage: Stage) -> str:
        """How far a stage is: ``done``, ``resume``, ``changed`` or ``new``."""
        results = layout.SUMMARY if stage.command == "report" else stage.name
        return self.records.status(stage.name, self.keys[stage.name], results)

    def show(self) -> None:
        """Print each stage, its status and its command, and the callbacks that the command uses."""
        for stage in self.stages:
            callbacks = (stage.config.get("trainer") or {}).get("callbacks") or []
            names = f"  # {', '.join(str(class_name(callback)) for callback in callbacks)}" if callbacks else ""
            print(f"{self.status(stage):8} {stage.name:45} {self.command(stage)}{names}")

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder of the run, so that no second run writes into it.

        Raises:
            InputError: If another run holds it.
        """
        self.output.mkdir(parents=True, exist_ok=True)
        with (self.output / layout.LOCK).open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError.busy(self.output) from None
            yield

    def execute(self) -> None:
        """Run every stage that is not done; ``jobs`` of them at the same time.

        Raises:
            InputError: If the settings of a stage are wrong, which is found before any is run, or a stage fails.
        """
        pending = [stage for stage in self.stages if self.status(stage) != DONE]
        if not pending:
            return
        write_text(self.output / layout.EXPERIMENT, _yaml(vars(self.experiment)))
        for stage in pending:
            settings = _yaml(stage.settings(self.output))
            write_text(self.settings_path(stage), f"# {self.command(stage)}\n{settings}")
        from dgs_lightning.commands.cli import check

        for stage in one_of_each_kind(pending):
            check(stage.command, ["--config", str(self.settings_path(stage))])
        with self.progress, self._runner() as runner:
            self.progress.skip(len(self.stages) - len(pending))
            self._work(runner, pending)

    def _runner(self) -> AbstractContextManager[Runner]:
        jobs, listener = self.experiment.jobs, self.progress.step
        return nullcontext(InProcess(listener)) if jobs == 1 else process_pool(jobs, listener)

    def _work(self, runner: Runner, pending: list[Stage]) -> None:
        """Start each stage as soon as what it needs is done and the runner has room."""
        waiting, running = list(pending), dict[str, Stage]()
        while waiting or running:
            for stage in list(waiting):
                unfinished = {other.name for other in waiting} | running.keys()
                if len(running) < runner.slots and all(needed.name not in unfinished for needed in stage.needs):
                    waiting.remove(stage)
                    self._begin(stage)
                    running[stage.name] = stage
                    runner.start(Job(stage.name, stage.command, str(self.settings_path(stage))))
            for name, result in runner.finished():
                self._end(running.pop(name), result)

    def _begin(self, stage: Stage) -> None:
        """Remove what other settings left, and record that the stage runs."""
        if self.status(stage) in ("changed", "new") and stage.command != "report":
            self.records.forget(stage.name)  # first: half a folder must not pass for what is on record
            shutil.rmtree(self.output / stage.name, ignore_errors=True)
        self.records.write(stage.name, stage.command, self.keys[stage.name], RUNNING)
        self.progress.begin(stage.name, self.command(stage))

    def _end(self, stage: Stage, result: Result) -> None:
        """Record that a stage is done, or name it where it failed."""
        try:
            outcome: Outcome = result()
        except InputError as error:
            self.progress.stop(stage.name)
            raise self._with_damaged_stage(error, stage) from None
        seconds = round(outcome.seconds, 3)
        key = self.keys[stage.name]
        self.records.write(stage.name, stage.command, key, DONE, seconds=seconds, device=outcome.device)
        self.progress.finish(stage.name, outcome.seconds)
        if stage.command == "prepare":  # what was read from the user's data
            self.progress.say(outcome.said)

    def _with_damaged_stage(self, error: InputError, failed: Stage) -> InputError:
        """The error of a stage. Where a file of an earlier stage is at fault, the next run makes that stage again."""
        where, found, expected, remedy = error.parts
        for maker in self.stages[: self.stages.index(failed)]:
            if Path(where).is_relative_to(self.output / maker.name):
                self.records.reopen(maker.name)
                remedy += f". Where it was damaged, run the same command again: it goes through {maker.name} once more"
        return InputError(where, found=found, expected=expected, remedy=remedy)


def _yaml(settings: object) -> str:
    return yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
