"""The image sets that an experiment starts from, before anything is made of them."""

from pathlib import Path

from dgs_lightning.bounds import with_defaults
from dgs_lightning.commands.prepare import prepare
from dgs_lightning.configs import expand
from dgs_lightning.data.folders import read_set
from dgs_lightning.data.named import is_named
from dgs_lightning.data.sources import SPLITS, Split, has_parts
from dgs_lightning.experiment.settings import Experiment

Trees = dict[str, Split]
"""Image sets by their use: ``train`` and ``val``, or ``data`` (to be split), ``original`` and ``pool``."""


def image_folders(experiment: Experiment) -> dict[str, Path]:
    """The folders of images that an experiment names, by their use."""
    folders = {role: Path(name) for role in ("original", "pool") if (name := getattr(experiment, role)) is not None}
    if experiment.data is None or is_named(experiment.data):
        return folders
    data = Path(experiment.data)
    split = experiment.prepare is None or has_parts(data)
    return folders | ({name: data / name for name in SPLITS} if split else {"data": data})


def read_images(experiment: Experiment, role: str, folder: Path) -> Split:
    """The image set in one of the :func:`image_folders`.

    Raises:
        InputError: If it cannot be read.
    """
    return Split(role, folder, read_set(folder, links=experiment.links), experiment.links)


def classes_from(trees: Trees) -> Split | None:
    """The set with the classes of the experiment; ``None`` if it cannot be read."""
    return next((trees[role] for role in ("train", "data", "original", "pool") if role in trees), None)


def val_fraction(experiment: Experiment) -> float:
    """Share of the images that becomes the validation set if one tree is split."""
    return float(with_defaults(prepare, expand(experiment.prepare or {}))["val_fraction"])
