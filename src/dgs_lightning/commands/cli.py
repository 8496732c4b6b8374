"""The commands that work on one thing: LightningCLI for tasks, plain functions for the rest."""

import importlib
import inspect
import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from jsonargparse import ArgumentParser, Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback

import dgs_lightning
from dgs_lightning.bounds import Above, AtLeast, Between, check_bounds, check_value
from dgs_lightning.callbacks.checkpointing import ResumeCheckpoint, check_readable
from dgs_lightning.commands.arguments import YAML, parse, short_message, with_names, with_one_config
from dgs_lightning.commands.process import prepared_process
from dgs_lightning.errors import InputError, printable
from dgs_lightning.tasks.scoring import ScoringTask

LIGHTNING_COMMANDS = ("fit", "validate", "test", "predict")
FUNCTION_COMMANDS = {
    "prepare": "dgs_lightning.commands.prepare",
    "select": "dgs_lightning.commands.select",
    "crops": "dgs_lightning.commands.crops",
    "stitch": "dgs_lightning.commands.stitch",
    "centers": "dgs_lightning.commands.centers",
    "report": "dgs_lightning.commands.report",
    "export": "dgs_lightning.commands.export",
}
Settings = dict[str, Any]
OnStep = Callable[[int, int], None]
SEEDS = Between(0, 4294967295)  # what NumPy and Lightning take
THREADS = Between(1, 1024)
_NATURAL: tuple[str, ...] = ("min_epochs", "min_steps", "overfit_batches", "log_every_n_steps", "gradient_clip_val")
_NATURAL += tuple(f"limit_{part}_batches" for part in ("train", "val", "test", "predict"))
TRAINER_LIMITS = {
    **dict.fromkeys((*_NATURAL, "reload_dataloaders_every_n_epochs"), AtLeast(0)),
    **dict.fromkeys(("max_epochs", "max_steps", "num_sanity_val_steps"), AtLeast(-1)),
    **dict.fromkeys(("check_val_every_n_epoch", "accumulate_grad_batches"), AtLeast(1)),
    "devices": Between(-1, 1024),
    "num_nodes": Between(1, 65536),
    "val_check_interval": Above(0),
}


class StepReport(pl.Callback):
    """Calls a function with the progress of training or prediction, at most twice a second.

    Args:
        on_step: Called with the number of steps done and of all steps.
    """

    def __init__(self, on_step: OnStep) -> None:
        self.on_step = on_step
        self.last = 0.0

    def _report(self, done: int, total: float) -> None:
        if time.monotonic() - self.last > 0.5 and 0 < total < float("inf"):
            self.last = time.monotonic()
            self.on_step(done, int(total))

    def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
        """After an optimiser step."""
        self._report(trainer.global_step, trainer.estimated_stepping_batches)

    def on_predict_batch_end(self, trainer: pl.Trainer, *batch: Any) -> None:  # noqa: ANN401
        """After a batch of predictions."""
        number: int = batch[3]
        self._report(number + 1, sum(trainer.num_predict_batches))


class SaveFitConfig(SaveConfigCallback):
    """Saves the config of a training beside its logs. Predictions have their settings on their card instead."""

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Save the config of ``fit``."""
        if stage == "fit":
            super().setup(trainer, pl_module, stage)


class DGSCommandLine(LightningCLI):
    """LightningCLI that knows the package's tasks, datamodules and callbacks by the names of their classes.

    Args:
        args: Subcommand and its arguments.
        on_step: Called with the progress. Without it, a terminal shows Lightning's progress bar.
    """

    def __init__(self, args: list[str], on_step: OnStep | None = None) -> None:
        for name in dgs_lightning.__all__:
            getattr(dgs_lightning, name)  # jsonargparse finds imported classes by their bare names
        self.command = args[0]
        super().__init__(
            pl.LightningModule,
            pl.LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            seed_everything_default=0,
            save_config_callback=SaveFitConfig,
            save_config_kwargs={"overwrite": True},
            trainer_defaults={
                "enable_progress_bar": on_step is None and sys.stderr.isatty(),
                "enable_model_summary": False,
                "log_every_n_steps": 20,
                "callbacks": [StepReport(on_step)] if on_step else [],
            },
            parser_kwargs={"prog": "dgs", "exit_on_error": False, "parser_mode": YAML}
            | {self.command: {"exit_on_error": False, "parser_mode": YAML}},
            args=[args[0], *with_one_config(args[1:])],
        )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]  # Lightning's depends on nothing
        """The command that is given: parsers of the others would take three quarters of the time.

        Returns:
            Its name, and arguments of the trainer's method that are no settings.
        """
        return {self.command: super().subcommands()[self.command]}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the option that all commands of the package have."""
        add_threads(parser)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:  # noqa: ANN401
        """Parse and check the command line.

        Raises:
            InputError: If a setting or the checkpoint to start from cannot be used.
        """
        self.config = parse(parser, args, f"dgs {args[0]}")
        settings = self.config[self.config.subcommand]
        check_value("seed_everything", settings.seed_everything, SEEDS)
        check_value("threads", settings.threads, THREADS)
        for name, limit in TRAINER_LIMITS.items():
            check_value(name, settings.trainer.get(name), limit)
        settings.trainer.logger = logger_of(self.config.subcommand, settings.trainer)
        for kind, own in named_classes(settings):
            check_bounds(kind, own)
        if settings.ckpt_path not in (None, "last", "best", "hpc"):
            check_readable(Path(settings.ckpt_path))
        # LightningCLI would now replace the settings given here by those in the checkpoint, if it saw its path.
        self.checkpoint, settings.ckpt_path = settings.ckpt_path, None

    def before_instantiate_classes(self) -> None:
        """Set the number of threads before anything is computed, and check the classes before models are fetched.

        Raises:
            InputError: If the task does not know the classes of the images.
        """
        settings = self.config[self.config.subcommand]
        settings.ckpt_path = self.checkpoint
        set_threads(settings.threads)
        folder = settings.get("data.init_args.predict")
        for kind, own in named_classes(settings.get("model")):
            if folder is not None and issubclass(kind, ScoringTask):
                kind.check_images(own, Path(folder))

    def instantiate_classes(self) -> None:
        """Build the objects that the settings describe.

        Raises:
            InputError: If one refuses its settings.
        """
        try:
            super().instantiate_classes()
        except (ValueError, TypeError, ImportError, MisconfigurationException) as error:
            raise as_input_error(error) from error

    def after_instantiate_classes(self) -> None:
        """Find the checkpoint that ``ckpt_path: last`` means, where the run has a :class:`ResumeCheckpoint`.

        Raises:
            InputError: If it is broken.
        """
        resumes = any(isinstance(callback, ResumeCheckpoint) for callback in self.trainer.callbacks)  # type: ignore[attr-defined]
        if self.checkpoint == "last" and resumes:
            found = ResumeCheckpoint.find(self.trainer.default_root_dir)
            self.config_init[self.subcommand].ckpt_path = None if found is None else str(found)


class SettingsCheck(DGSCommandLine):
    """Parses and checks the settings of a command, and stops there."""

    class Done(Exception):
        """The settings are right."""

    def before_instantiate_classes(self) -> None:
        """Stop before anything is built.

        Raises:
            SettingsCheck.Done: Always.
        """
        raise self.Done


def logger_of(command: str, trainer: Any) -> Any:  # noqa: ANN401
    """Settings of the trainer's logger.

    Lightning's default logger would begin a new folder when a training resumes, ``lightning_logs/version_1``. In its
    place, TensorBoard gets its files in ``default_root_dir`` itself: ``tensorboard --logdir`` then names a training by
    its folder, and the repeats of a training stand together. A prediction has a logger only if ``logger`` is true. A
    logger that the user describes stays as it is.
    """
    wanted = command != "predict" if trainer.logger is None else trainer.logger
    if wanted is not True or trainer.default_root_dir is None:
        return wanted
    namespace: Callable[..., Namespace] = Namespace  # jsonargparse does not type its constructor
    place = namespace(save_dir=str(trainer.default_root_dir), name="", version="", default_hp_metric=False)
    return namespace(class_path="lightning.pytorch.loggers.TensorBoardLogger", init_args=place)


def named_classes(settings: Any) -> Iterator[tuple[type, Settings]]:  # noqa: ANN401
    """The classes that settings name, each with its own settings."""
    if isinstance(settings, list):
        for value in settings:
            yield from named_classes(value)
    elif isinstance(settings, Namespace):
        if isinstance(path := settings.get("class_path"), str):
            module, _, name = path.rpartition(".")
            own = settings.get("init_args")
            yield getattr(importlib.import_module(module), name), own.as_dict() if own else {}
        for value in vars(settings).values():
            yield from named_classes(value)


def as_input_error(error: BaseException) -> InputError:
    """The error of a class that refuses its settings, or the :class:`InputError` that caused it."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, InputError):
            return cause
        cause = cause.__cause__ or cause.__context__
    return InputError("settings", short_message(error), "settings that go together", "Correct them")


def function_of(command: str) -> Callable[..., Any]:
    """The function behind a command that is a plain function, such as ``dgs prepare``."""
    function: Callable[..., Any] = getattr(importlib.import_module(FUNCTION_COMMANDS[command]), command)
    return function


def function_arguments(command: str, args: list[str]) -> tuple[dict[str, Any], int | None]:
    """Arguments of such a command's function, parsed and checked, and the number of threads.

    Raises:
        InputError: If a setting is unknown, of the wrong type, missing or out of its range.
    """
    description = (inspect.getdoc(function_of(command)) or "").partition("\n\nArgs:")[0]
    parser = ArgumentParser(prog=f"dgs {command}", description=description, exit_on_error=False, parser_mode=YAML)
    parser.add_argument("--config", action="config", help="a YAML file with these settings")
    parser.add_function_arguments(function_of(command), fail_untyped=True)
    add_threads(parser)
    arguments: dict[str, Any] = parse(parser, with_one_config(with_names(command, args)), f"dgs {command}").as_dict()
    del arguments["config"]
    check_value("threads", arguments["threads"], THREADS)
    threads: int | None = arguments.pop("threads")
    check_bounds(function_of(command), arguments)
    module = importlib.import_module(FUNCTION_COMMANDS[command])
    if check_combination := getattr(module, "check_combination", None):
        check_combination(arguments)
    return arguments, threads


def check(command: str, args: list[str]) -> None:
    """Parse and check the arguments of a command without running it.

    Raises:
        InputError: If a setting is unknown, of the wrong type, or missing.
    """
    if command in LIGHTNING_COMMANDS:
        with prepared_process(), suppress(SettingsCheck.Done):
            SettingsCheck([command, *args])
    else:
        function_arguments(command, args)


def add_threads(parser: ArgumentParser) -> None:
    """Add the option ``--threads``."""
    parser.add_argument("--threads", type=int | None, default=None, help="threads of torch on a CPU (default: its own)")


def set_threads(threads: int | None) -> None:
    """Let torch compute with so many threads on a CPU; with its own number where none is given."""
    if threads is not None:
        torch.set_num_threads(threads)


class PrintableLog(logging.Formatter):
    """Formats logs for a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """The message of a log, with the characters shown that control a terminal."""
        return printable(super().format(record))


@contextmanager
def logs_on_stderr() -> Iterator[None]:
    """Show the package's logs of sizes and rates."""
    log, handler = logging.getLogger(dgs_lightning.__name__), logging.StreamHandler()
    handler.setFormatter(PrintableLog())
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


def execute(command: str, args: list[str], on_step: OnStep | None = None) -> str:
    """Run one command.

    Args:
        command: Name of the command.
        args: Its arguments.
        on_step: Called with its progress. Without it, the command prints its logs and its answer.

    Returns:
        Its answer, if any: ``prepare`` says what it read, and others where they wrote.
    """
    with prepared_process():
        if command in LIGHTNING_COMMANDS:
            try:
                with nullcontext() if on_step else logs_on_stderr():
                    DGSCommandLine([command, *args], on_step)
            except MisconfigurationException as error:
                raise as_input_error(error) from error
            return ""
        arguments, threads = function_arguments(command, args)
        set_threads(threads)
        answer = str(function_of(command)(**arguments))
    if on_step is None:
        print(printable(answer))
    return answer
