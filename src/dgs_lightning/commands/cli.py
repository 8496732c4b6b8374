"""The commands that work on one thing: LightningCLI for tasks, plain functions for the rest."""

import importlib
import inspect
import json
import logging
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from itertools import takewhile
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from jsonargparse import ArgumentError, ArgumentParser, Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback

import dgs_lightning
from dgs_lightning.bounds import Above, AtLeast, Between, Ranged, check_bounds, check_value
from dgs_lightning.commands.arguments import complaint, moved_setting
from dgs_lightning.configs import find_config
from dgs_lightning.errors import InputError
from dgs_lightning.files import refusals_told_once

LIGHTNING_COMMANDS = ("fit", "validate", "test", "predict")
FUNCTION_COMMANDS = {
    "prepare": "dgs_lightning.commands.prepare",
    "select": "dgs_lightning.commands.select",
    "report": "dgs_lightning.commands.report",
    "export": "dgs_lightning.commands.export",
}
Settings = dict[str, Any]
OnStep = Callable[[int, int], None]
SEEDS = Between(0, 4294967295)  # what NumPy and Lightning take
TRAINER_LIMITS = {
    "devices": Between(-1, 1024),
    "num_nodes": Between(1, 65536),
    "max_epochs": AtLeast(-1),
    "min_epochs": AtLeast(0),
    "max_steps": AtLeast(-1),
    "min_steps": AtLeast(0),
    "limit_train_batches": AtLeast(0),
    "limit_val_batches": AtLeast(0),
    "limit_test_batches": AtLeast(0),
    "limit_predict_batches": AtLeast(0),
    "overfit_batches": AtLeast(0),
    "val_check_interval": Above(0),
    "check_val_every_n_epoch": AtLeast(1),
    "num_sanity_val_steps": AtLeast(-1),
    "log_every_n_steps": AtLeast(0),
    "accumulate_grad_batches": AtLeast(1),
    "gradient_clip_val": AtLeast(0),
    "reload_dataloaders_every_n_epochs": AtLeast(0),
}

# Lightning's remarks on what is meant here: runs measured in steps, few batches, no workers.
REMARKS = (
    r"`max_epochs` was not set",
    r"The number of training batches",
    r".*does not have many workers",
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
)


class StepReport(pl.Callback):
    """Tells a listener how far training or prediction is, at most twice a second.

    Args:
        on_step: Called with the steps done and the steps in all.
    """

    def __init__(self, on_step: OnStep) -> None:
        self.on_step = on_step
        self.last = 0.0

    def _tell(self, done: int, total: float) -> None:
        if time.monotonic() - self.last > 0.5 and 0 < total < float("inf"):
            self.last = time.monotonic()
            self.on_step(done, int(total))

    def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
        """After an optimiser step."""
        self._tell(trainer.global_step, trainer.estimated_stepping_batches)

    def on_predict_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,  # noqa: ANN401
        batch: Any,  # noqa: ANN401
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """After a batch of predictions."""
        self._tell(batch_idx + 1, sum(trainer.num_predict_batches))


class SaveFitConfig(SaveConfigCallback):
    """Keeps the config of a training beside its logs; what is predicted has a card with its settings."""

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Save the config of ``fit``."""
        if stage == "fit":
            super().setup(trainer, pl_module, stage)


class DGSCommandLine(LightningCLI):
    """LightningCLI over the project's tasks, datamodules and callbacks by bare class name.

    Args:
        args: Subcommand and its arguments.
        on_step: Listener for progress; without one Lightning's own progress bar is shown on a terminal.
    """

    def __init__(self, args: list[str], on_step: OnStep | None = None) -> None:
        for name in dgs_lightning.__all__:
            getattr(dgs_lightning, name)  # imported, and so known by its bare name
        for name in ("lightning.pytorch", "lightning.fabric"):
            logging.getLogger(name).setLevel(logging.WARNING)
        for remark in REMARKS:
            warnings.filterwarnings("ignore", remark)
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
            parser_kwargs={"prog": "dgs", "exit_on_error": False}
            | {command: {"exit_on_error": False} for command in LIGHTNING_COMMANDS},
            args=with_shipped_configs(args),
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:  # noqa: ANN401
        """Parse the command line, or say in one line what is wrong with it."""
        self.config = parsed(parser, args, f"dgs {args[0]}")
        settings = self.config[self.config.subcommand]
        check_value("seed_everything", settings.seed_everything, SEEDS)
        for name, limit in TRAINER_LIMITS.items():
            check_value(name, settings.trainer.get(name), limit)
        if self.config.subcommand == "predict" and settings.trainer.logger is None:
            # Lightning's own would begin a folder in the current one, and have nothing to log.
            settings.trainer.logger = False
        for kind, own in named_classes(settings):
            check_bounds(kind, own)
            if issubclass(kind, Ranged):
                kind.check_settings(own)

    def _parse_ckpt_path(self) -> None:
        """Look at a checkpoint that is named. Lightning would take settings out of it; here those given count."""
        path = self.config[self.config.subcommand].get("ckpt_path")
        if path not in (None, "last", "best", "hpc"):
            from dgs_lightning.callbacks.checkpointing import check_readable

            check_readable(Path(path))

    def instantiate_classes(self) -> None:
        """Build what the settings name.

        Raises:
            InputError: If one refuses its settings, which jsonargparse tells of in words of its own.
        """
        try:
            super().instantiate_classes()
        except (ValueError, TypeError, ImportError, MisconfigurationException) as error:
            raise refusal(error) from error


class SettingsCheck(DGSCommandLine):
    """Parses and checks the settings of a command, and does nothing else."""

    def instantiate_classes(self) -> None:
        """Nothing is built."""

    def _run_subcommand(self, subcommand: str) -> None:
        """Nothing is run."""


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


def refusal(error: BaseException) -> InputError:
    """What a class has against its settings: its own words where it has any."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, InputError):
            return cause
        cause = cause.__cause__ or cause.__context__
    return InputError("settings", found=complaint(error), expected="settings that go together", remedy="Correct them")


def with_shipped_configs(args: list[str]) -> list[str]:
    """Arguments with the name of each shipped config after ``--config`` or ``-c`` replaced by its path."""
    resolved, names_config = [], False
    for arg in args:
        flag, equals, name = arg.partition("=")
        if names_config:
            resolved.append(str(find_config(arg)))
        elif flag == "--config" and equals:
            resolved.append(f"--config={find_config(name)}")
        else:
            resolved.append(arg)
        names_config = arg in ("-c", "--config")
    return resolved


def function_of(command: str) -> Callable[..., Any]:
    """The function behind ``dgs prepare``, ``select``, ``report`` or ``export``."""
    function: Callable[..., Any] = getattr(importlib.import_module(FUNCTION_COMMANDS[command]), command)
    return function


def function_arguments(command: str, args: list[str]) -> dict[str, Any]:
    """Arguments of such a command, parsed and checked.

    Raises:
        InputError: If a setting is unknown, of the wrong type, missing or out of its range.
    """
    description = (inspect.getdoc(function_of(command)) or "").partition("\n\nArgs:")[0]
    parser = ArgumentParser(prog=f"dgs {command}", description=description, exit_on_error=False)
    parser.add_argument("--config", action="config", help="a YAML file with these settings")
    parser.add_function_arguments(function_of(command), fail_untyped=True)
    folders = list(takewhile(lambda arg: not arg.startswith("-"), args)) if command == "report" else []
    args = [f"--runs={json.dumps(folders)}", *args[len(folders) :]] if folders else args
    arguments: dict[str, Any] = parsed(parser, with_shipped_configs(args), f"dgs {command}").as_dict()
    del arguments["config"]
    check_bounds(function_of(command), arguments)
    module = importlib.import_module(FUNCTION_COMMANDS[command])
    if check_combination := getattr(module, "check_combination", None) or getattr(module, "check_settings", None):
        check_combination(arguments)
    return arguments


def parsed(parser: ArgumentParser, args: list[str], command: str) -> Namespace:
    """Arguments as a parser reads them.

    Raises:
        InputError: If a setting is unknown, of the wrong type, or missing.
    """
    try:
        return parser.parse_args(args)
    except ArgumentError as error:
        found, moved = complaint(error), moved_setting(error)
    if moved is not None:
        raise moved
    raise InputError("settings", found=found, expected=f"what '{command} --help' lists", remedy="Correct that setting")


def check(command: str, args: list[str]) -> None:
    """Parse and check the arguments of a command without running it.

    Raises:
        InputError: If a setting is unknown, of the wrong type, or missing.
    """
    if command in LIGHTNING_COMMANDS:
        SettingsCheck([command, *args])
    else:
        function_arguments(command, args)


@contextmanager
def remarks_on_stderr() -> Iterator[None]:
    """Show what the commands say of their sizes and rates, which a run's own progress says otherwise."""
    log, handler = logging.getLogger(dgs_lightning.__name__), logging.StreamHandler()
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)


def execute(command: str, args: list[str], on_step: OnStep | None = None) -> str:
    """Run one command.

    Args:
        command: Name of the command.
        args: Its arguments.
        on_step: Listener for its progress; without one, what the command says is printed.

    Returns:
        What it has to say, if anything: ``prepare`` what it read, others where they wrote.
    """
    if command in LIGHTNING_COMMANDS:
        try:
            with refusals_told_once(), nullcontext() if on_step else remarks_on_stderr():
                DGSCommandLine([command, *args], on_step)
        except MisconfigurationException as error:
            raise refusal(error) from error
        return ""
    answer = str(function_of(command)(**function_arguments(command, args)))
    if on_step is None:
        print(answer)
    return answer
