"""The logger of a run: one for each stage, grouped under the name of the run, and one that gets the report at the end.

It is laid over the settings of a stage when they are written, so it is part of no key: with another logger, no stage is
run again.
"""

import csv
import shutil
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dgs_lightning.configs import class_name, merge
from dgs_lightning.errors import InputError, listed
from dgs_lightning.experiment.settings import Experiment
from dgs_lightning.experiment.stage import Settings, Stage
from dgs_lightning.runs import layout

DEFAULT = "tensorboard"
CLASSES = {DEFAULT: "TensorBoardLogger", "csv": "CSVLogger", "wandb": "WandbLogger", "mlflow": "MLFlowLogger"}
PACKAGES = {"WandbLogger": "wandb", "MLFlowLogger": "mlflow", "CometLogger": "comet_ml", "NeptuneLogger": "neptune"}
LIGHTNING = "lightning.pytorch.loggers"


def check_logger(experiment: Experiment) -> None:
    """Check that the package of the logger is installed.

    Raises:
        InputError: If it is not, or a mapping names no class.
    """
    given = experiment.logger
    name = CLASSES[given] if isinstance(given, str) else class_name(given)
    if name is None:
        found = f"a mapping with {listed(given) or 'nothing'}"
        example = "Write it as logger: {class_path: WandbLogger, init_args: {project: mine}}"
        raise InputError.setting("logger", found, "a mapping with class_path", example)
    if (package := PACKAGES.get(name)) and find_spec(package) is None:
        raise InputError.not_installed(package, f"logger={given if isinstance(given, str) else name}")


def with_logger(stage: Stage, experiment: Experiment, output: Path, *, absolute: bool = False) -> Settings:
    """Settings of a stage for a run in a folder, with the logger of the experiment where the stage has one.

    A stage whose own section says something about its logger keeps that. TensorBoard is what stages have by themselves.
    """
    settings = stage.settings(output, absolute=absolute)
    trainer = settings.get("trainer") or {}
    wanted = trainer.get("logger", stage.command != "predict")
    if experiment.logger == DEFAULT or wanted not in (None, True) or stage.command not in ("fit", "predict"):
        return settings
    return merge(settings, {"trainer": {"logger": logger_of(experiment, output, stage.name)}})


def logger_of(experiment: Experiment, output: Path, name: str) -> Settings:
    """A logger as Lightning's command line takes it: class and settings.

    Args:
        experiment: The experiment, whose own settings of a logger come before those given here.
        output: Folder of the run.
        name: Name of the logger's run: that of a stage.
    """
    given = experiment.logger
    settings: Settings = {"class_path": CLASSES[given]} if isinstance(given, str) else given
    kind, place = class_name(settings), (output / layout.LOGS).as_posix()
    own: dict[str, Settings] = {
        "TensorBoardLogger": {"init_args": {"save_dir": place, "name": name, "version": ""}},
        "CSVLogger": {"init_args": {"save_dir": place, "name": name}},
        "WandbLogger": {
            "init_args": {"save_dir": f"{place}/{name}", "name": name, "project": "dgs-lightning"},
            "dict_kwargs": {"group": experiment.name},
        },
        "MLFlowLogger": {
            "init_args": {"experiment_name": experiment.name, "run_name": name, "save_dir": f"{place}/mlruns"}
        },
    }
    path = str(settings["class_path"])
    return merge(own.get(str(kind), {}), {**settings, "class_path": path if "." in path else f"{LIGHTNING}.{path}"})


def send_report(experiment: Experiment, output: Path) -> None:
    """Send the figures, tables and page of a finished run to its logger, as the run ``report``, where it takes them."""
    settings = logger_of(experiment, output, layout.REPORT)
    module, _, name = str(settings["class_path"]).rpartition(".")
    send = {
        "TensorBoardLogger": _to_tensorboard,
        "WandbLogger": _to_wandb,
        "MLFlowLogger": _to_mlflow,
    }.get(name)
    if send is not None:
        shutil.rmtree(output / layout.LOGS / layout.REPORT, ignore_errors=True)  # that of an earlier end of this run
        kind = getattr(import_module(module), name)
        send(kind(**settings.get("init_args", {}), **settings.get("dict_kwargs", {})), output)


def _figures(output: Path) -> list[Path]:
    return sorted((output / layout.FIGURES).rglob("*.png"))


def _tables(output: Path, ending: str) -> list[Path]:
    return sorted((output / layout.TABLES).glob(f"*.{ending}"))


def _to_tensorboard(logger: Any, output: Path) -> None:  # noqa: ANN401
    """Figures and tables, and the summary; TensorBoard shows no page."""
    from PIL import Image
    from tensorboard.compat.proto.summary_pb2 import Summary

    board = logger.experiment
    for path in _figures(output):
        with Image.open(path) as image:
            width, height = image.size
        shown = Summary.Image(height=height, width=width, colorspace=4, encoded_image_string=path.read_bytes())
        value = Summary.Value(tag=f"{layout.FIGURES}/{path.stem}", image=shown)
        board.file_writer.add_summary(Summary(value=[value]))  # as it is: the board's own method would encode it again
    for path in [output / layout.SUMMARY_TEXT, *_tables(output, "md")]:
        board.add_text(f"{layout.TABLES}/{path.stem}", path.read_text(encoding="utf-8"))
    board.close()


def _to_wandb(logger: Any, output: Path) -> None:  # noqa: ANN401
    """Figures as images, tables as tables, and the page."""
    import wandb

    for path in _figures(output):
        logger.log_image(f"{layout.FIGURES}/{path.stem}", [str(path)])
    for path in _tables(output, "csv"):
        columns, *rows = _lines(path)
        logger.log_table(f"{layout.TABLES}/{path.stem}", columns=columns, data=rows)
    logger.experiment.log({"page": wandb.Html(str(output / layout.PAGE))})


def _lines(path: Path) -> Iterator[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        yield from csv.reader(file)


def _to_mlflow(logger: Any, output: Path) -> None:  # noqa: ANN401
    """All files of the report, as artifacts."""
    for path in [output / layout.PAGE, output / layout.SUMMARY_TEXT, *_figures(output), *_tables(output, "csv")]:
        logger.experiment.log_artifact(logger.run_id, str(path), layout.REPORT)
    logger.finalize("success")
