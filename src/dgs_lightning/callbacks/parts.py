"""Parts of a run that callbacks work with: task, data and TensorBoard."""

from typing import Any, TypeVar

import lightning as L
from lightning.pytorch.loggers import TensorBoardLogger

from dgs_lightning.errors import InputError

Part = TypeVar("Part")


def require(kind: type[Part], found: object, callback: L.Callback) -> Part:
    """Return a task or datamodule if it is of the kind that a callback works with.

    Raises:
        InputError: If it is of another kind.
    """
    if isinstance(found, kind):
        return found
    raise InputError.wrong_class(type(callback).__name__, [found], kind.__name__)


def tensorboards(trainer: L.Trainer) -> list[Any]:
    """The ``SummaryWriter`` of each TensorBoard logger."""
    return [logger.experiment for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
