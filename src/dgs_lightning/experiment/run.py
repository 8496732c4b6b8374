"""``dgs run``: the stages of an experiment, each skipped where it is done and resumed where it stopped."""

import math
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from dgs_lightning.commands.arguments import experiment_parser
from dgs_lightning.commands.process import prepared_process
from dgs_lightning.configs import class_name
from dgs_lightning.data.sources import read_trees
from dgs_lightning.documents.texts import yaml_text
from dgs_lightning.errors import InputError, counted, listed, printable
from dgs_lightning.experiment.cluster import RaySettings
from dgs_lightning.experiment.execution import Job, Outcome, device_of, stage_at_work
from dgs_lightning.experiment.fast import advice
from dgs_lightning.experiment.folder import RunOutput
from dgs_lightning.experiment.loggers import check_logger, send_report, with_logger
from dgs_lightning.experiment.plan import Plan
from dgs_lightning.experiment.progress import Progress, Reading
from dgs_lightning.experiment.runners import InProcess, Result, Runner, process_pool
from dgs_lightning.experiment.settings import Experiment, load_experiment
from dgs_lightning.experiment.stage import Stage, one_of_each_kind, stage_keys, within
from dgs_lightning.files import write_text
from dgs_lightning.runs import layout
from dgs_lightning.runs.fingerprints import files_below, fingerprints
from dgs_lightning.runs.lock import locked
from dgs_lightning.runs.records import DONE, Records


def main(args: list[str]) -> None:
    """Run the experiment that the command line names."""
    parser = experiment_parser("run", "Run an experiment: all its stages, skipping what is done.")
    parser.add_argument("--dry-run", action="store_true", help="show what would run, and run nothing")
    parser.add_argument("--verify", action="store_true", help="compare hashes of all files that finished stages left")
    parser.add_argument(
        "--mixed-versions", action="store_true", help="complete stages that other versions of the libraries began"
    )
    parser.add_argument("--keep-going", action="store_true", help="if a stage fails, run the others without it")
    options = parser.parse_args(args)
    run = ExperimentRun(load_experiment(options.experiment, options.set, options.output))
    if options.dry_run:
        run.show()
        return
    how = {name: getattr(options, name) for name in ("verify", "mixed_versions", "keep_going")}
    run_and_print(run, **how)


def run_and_print(run: "ExperimentRun", **how: bool) -> None:
    """Run an experiment, and show its results; ``how`` are arguments of :meth:`ExperimentRun.execute`."""
    with run.lock():
        run.execute(**how)
    from dgs_lightning.reporting.terminal import print_summary  # numpy, which a dry run does not need

    print_summary(run.output)


def without_what_needs(failed: str, stages: list[Stage]) -> list[Stage]:
    """The stages that do not need the results of a failed one, and the report, which shows what there is.

    Args:
        failed: Name of the stage that failed.
        stages: Stages, each after what it needs.
    """
    lost = {failed}
    for stage in stages:
        if stage.command != "report" and any(needed.name in lost for needed in stage.needs):
            lost.add(stage.name)
    return [stage for stage in stages if stage.name not in lost]


class ExperimentRun:
    """One experiment in its folder.

    Args:
        experiment: The experiment.
    """

    def __init__(self, experiment: Experiment) -> None:
        check_logger(experiment)
        self.experiment = experiment
        self.elsewhere = experiment.launcher != "local"  # a stage may run on a machine where paths begin elsewhere
        self.output = Path(experiment.output or "runs")
        if self.elsewhere:
            self.output = self.output.absolute()
        self.stages = Plan(experiment).everything()
        self.records = Records(self.output)
        self.folder = RunOutput(self.output, experiment, self.records)
        self.kept = self.folder.kept()
        if not self.kept:
            self._check_names()
        links, paths = experiment.links, {path for stage in self.stages for path in stage.inputs}
        self.inputs = {path: files_below(Path(path), links) for path in paths}  # as they are now
        self.keys = stage_keys(self.stages, fingerprints(paths, experiment.fingerprint, Reading().step, links))
        self.progress = Progress(len(self.stages))

    def _check_names(self) -> None:
        """Check what the names of the images tell, before the first file is read: to read all may take long.

        Raises:
            InputError: If the images cannot be prepared.
        """
        for stage in self.stages:
            if stage.command == "prepare" and stage.inputs:
                settings = stage.settings(self.output)
                read_trees(Path(settings["data"]), None, settings.get("classes"), self.experiment.links)

    def settings_path(self, stage: Stage) -> Path:
        """The YAML file with the settings of a stage."""
        return self.output / layout.stage_settings(stage.name)

    def command(self, stage: Stage) -> str:
        """The command that runs the stage alone."""
        return f"dgs {stage.command} --config {self.settings_path(stage)}"

    def status(self, stage: Stage) -> str:
        """How far a stage is: ``done``, ``resume``, ``changed`` or ``new``."""
        if self.kept:
            return DONE
        return self.records.status(stage.name, self.keys[stage.name])

    def show(self) -> None:
        """Print each stage, its status and its command, and the callbacks that the command uses.

        Raises:
            InputError: If the run would be refused because of what is in its folder.
        """
        self.check_folder()
        for stage in self.stages:
            callbacks = (stage.config.get("trainer") or {}).get("callbacks") or []
            names = f"  # {', '.join(str(class_name(callback)) for callback in callbacks)}" if callbacks else ""
            print(printable(f"{self.status(stage):8} {stage.name:45} {self.command(stage)}{names}"))

    def check_folder(self) -> None:
        """Check that the run would neither write among its inputs nor over files that are not its own.

        Raises:
            InputError: If it would.
        """
        self.folder.check(self.stages, self.keys)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder of the run, so that no second run writes into it.

        Raises:
            InputError: If another run holds it, or it holds files that are not this run's.
        """
        self.check_folder()
        self.output.mkdir(parents=True, exist_ok=True)
        with locked(self.output / layout.LOCK) as how:
            if how:
                self.progress.say(how)
            yield

    def execute(self, *, verify: bool = False, mixed_versions: bool = False, keep_going: bool = False) -> None:
        """Run every stage that is not done; ``jobs`` of them at the same time.

        Args:
            verify: Compare the hashes of all files that finished stages left. By default names and sizes are compared.
            mixed_versions: Complete stages that were begun with other versions of the libraries.
            keep_going: If a stage fails, run the others that do not need its results, and the report.

        Raises:
            InputError: If the settings of a stage are wrong, which is found before any is run, or a stage fails.
        """
        if self.kept:
            lacks = "It has no lists of its results, so files and data are not compared"
            self.progress.say(f"{self.output}: version {self.kept} finished this run. It is kept as it is. {lacks}")
            return
        self._mend(verify)
        pending = [stage for stage in self.stages if self.status(stage) != DONE]
        self._check_versions(pending, mixed_versions)
        if not pending:
            return
        write_text(self.output / layout.EXPERIMENT, yaml_text(vars(self.experiment)), durable=True)
        for stage in pending:
            settings = yaml_text(with_logger(stage, self.experiment, self.output, absolute=self.elsewhere))
            write_text(self.settings_path(stage), f"# {self.command(stage)}\n{settings}")
        from dgs_lightning.commands.cli import check

        for stage in one_of_each_kind(pending):
            check(stage.command, ["--config", str(self.settings_path(stage))])
        if device_of(self.experiment.trainer) == "cpu" and (line := advice(pending, self.experiment.fast)):
            self.progress.say(line)
        with self.progress, self._runner() as runner:
            self.progress.skip(len(self.stages) - len(pending))
            self._work(runner, self.in_order(pending) if runner.slots > 1 else pending, keep_going)
        if any(stage.command == "report" for stage in pending):
            with prepared_process():
                send_report(self.experiment, self.output)

    def in_order(self, pending: list[Stage]) -> list[Stage]:
        """Stages in the order in which they start as soon as they can: the longest chain first.

        Subsets of the validation images go before all: one that cannot be selected stops the run before hours of work.
        """
        from dgs_lightning.experiment.order import longest_chain_first, operations_of  # torch

        subsets = [stage.name for stage in pending if within(stage.name, layout.VALIDATION)]
        lengths = operations_of(self.experiment, self.stages) | dict.fromkeys(subsets, math.inf)
        return longest_chain_first(pending, lengths)

    def _mend(self, verify: bool) -> None:
        """Reopen finished stages whose results were changed since, and set the changed files aside."""
        for stage in self.stages:
            if changed := self.records.damage(stage.name, self.keys[stage.name], hashes=verify):
                moved = self.records.set_aside(changed)
                self.records.reopen(stage.name)
                name, problem = next(iter(changed.items()))
                where = f"; what there was of them is in {self.output / layout.SET_ASIDE}" if moved else ""
                self.progress.say(f"{stage.name}: {len(changed)} files are made again ({name} {problem}){where}")

    def _check_versions(self, pending: list[Stage], mixed: bool) -> None:
        """Tell stages that were made with other versions. Refuse to complete one of them unless that is asked for."""
        changed = {stage.name: others for stage in self.stages if (others := self.records.version_changes(stage.name))}
        unfinished = {stage.name for stage in pending if self.status(stage) == "resume"}
        if changed:
            texts = sorted({text for own in changed.values() for text in own})
            self.progress.say(f"{len(changed)} stages were run with other versions: {listed(texts, 10)}")
        if not mixed and (begun := [name for name in changed if name in unfinished]):
            found, expected = listed(changed[begun[0]]), "the versions that began the stage"
            remedy = "Install these versions, or add --mixed-versions to complete it with others"
            raise InputError(self.output / begun[0], found, expected, remedy)

    def _runner(self) -> AbstractContextManager[Runner]:
        jobs, listener = self.experiment.jobs, self.progress.step
        if self.experiment.launcher == "ray":
            from dgs_lightning.experiment.ray_tasks import ray_tasks

            return ray_tasks(RaySettings(**self.experiment.ray), self.output, self.progress)
        return nullcontext(InProcess(listener)) if jobs == 1 else process_pool(jobs, listener)

    def _work(self, runner: Runner, pending: list[Stage], keep_going: bool) -> None:
        """Start each stage as soon as what it needs is done and the runner has room."""
        waiting, running, failed = list(pending), dict[str, Stage](), list[str]()
        while waiting or running:
            for stage in list(waiting):
                unfinished = {other.name for other in waiting} | running.keys()
                if len(running) < runner.slots and all(needed.name not in unfinished for needed in stage.needs):
                    waiting.remove(stage)
                    job = Job(stage.name, stage.command, str(self.settings_path(stage)), self.output)
                    self._wait_for_its_end(job)
                    self._begin(stage)
                    running[stage.name] = stage
                    runner.start(job)
            for name, result in runner.finished():
                try:
                    self._end(running.pop(name), result)
                except InputError as error:
                    if not keep_going:
                        raise
                    self.progress.say(f"{name}: {error}")
                    failed.append(name)
                    waiting = without_what_needs(name, waiting)
        if failed:
            found = f"{counted(len(failed), 'stage')} that failed ({listed(failed)})"
            remedy = "Correct what the lines above say, and run the same command again: it keeps what is finished"
            raise InputError(self.output, found, "stages that end", remedy)

    def _wait_for_its_end(self, job: Job) -> None:
        """Wait until no process of an earlier run writes a stage: on another machine, one may outlive its run."""
        if stage_at_work(job):
            self.progress.say(f"{job.stage}: a process of an earlier run still writes it; this run waits until it ends")
        while stage_at_work(job):
            time.sleep(0.5)

    def _begin(self, stage: Stage) -> None:
        """Remove what other settings left, or mark what has lost its card, and record that the stage runs."""
        if self.status(stage) in ("changed", "new"):
            self.records.clear(stage.name)
        else:
            self.records.adopt(stage.name)
        self.records.begin(stage.name, stage.command, self.keys[stage.name])
        self.progress.begin(stage.name, self.command(stage))

    def _end(self, stage: Stage, result: Result) -> None:
        """Record that a stage is done, or name it where it failed."""
        try:
            outcome: Outcome = result()
            self._check_inputs(stage)
        except InputError as error:
            self.progress.stop(stage.name)
            raise self._with_damaged_stage(error, stage) from None
        self.records.end(stage.name, outcome.results, round(outcome.seconds, 3), outcome.device)
        self.progress.finish(stage.name, outcome.seconds)
        if stage.command == "prepare":  # what was read from the user's data
            self.progress.say(outcome.said)

    def _check_inputs(self, stage: Stage) -> None:
        """Check that the data are as they were planned with.

        Raises:
            InputError: If a file was changed, added or removed since.
        """
        for path in stage.inputs:
            if changed := set(self.inputs[path]) ^ set(files_below(Path(path), self.experiment.links)):
                found = f"{len({state.path for state in changed})} files that were changed while the run read them"
                remedy = "Run the same command again: the stages that read them are made anew"
                raise InputError(min(state.path for state in changed), found, "data that stay as they are", remedy)

    def _with_damaged_stage(self, error: InputError, failed: Stage) -> InputError:
        """The error of a stage. Where a file of an earlier stage is at fault, the next run makes that stage again."""
        where, found, expected, remedy = error.parts
        for maker in self.stages[: self.stages.index(failed)]:
            if Path(where).is_relative_to(self.output / maker.name):
                self.records.reopen(maker.name)
                remedy += f". Where it was damaged, run the same command again: it goes through {maker.name} once more"
        return InputError(where, found=found, expected=expected, remedy=remedy)
