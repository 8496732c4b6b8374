"""Base of all writers of predictions: how a stopped run goes on."""

import signal
from abc import abstractmethod
from typing import Any, Generic, TypeVar

import lightning as L
from lightning.pytorch.utilities.exceptions import SIGTERMException

from dgs_lightning.callbacks.parts import require
from dgs_lightning.data.cards import hash_files
from dgs_lightning.datamodules.images import ImageDataModule

Task = TypeVar("Task", bound=L.LightningModule)
Data = TypeVar("Data", bound=L.LightningDataModule)


class ResumableWriter(L.Callback, Generic[Task, Data]):
    """Base class of the callbacks that write the predictions of a task into a folder, batch by batch.

    1. :meth:`begin`: Before the first batch, each device looks at the folder. If it holds something else, the run ends
       before anything is written. Batches that are in the folder are not predicted again.
    2. :meth:`write` and :meth:`flush`: A batch is written as a whole or not at all, so a kill loses only the batches
       that are not written yet.
    3. :meth:`finish`: When all devices have written their batches, the first device puts them together. It writes the
       card last, as the sign that everything is there.

    The same command, run again after a stop, therefore ends in the same bytes as a run that was not stopped.

    Attributes:
        TASK: Class of the task that the writer works with.
        DATA: Class of its datamodule.
        task: The task.
        data: The datamodule.
    """

    TASK: type[Task]
    DATA: type[Data]
    task: Task
    data: Data

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Check task, data and folder."""
        trainer.predict_loop.return_predictions = False  # they are on the disk, and may not fit in memory
        self.task = require(self.TASK, pl_module, self)
        self.data = require(self.DATA, trainer.datamodule, self)  # type: ignore[attr-defined]
        self.begin(trainer)

    def on_predict_batch_end(self, trainer: L.Trainer, *parts: Any) -> None:  # noqa: ANN401
        """Write a batch, and stop if the process is to terminate."""
        _, prediction, batch, *_ = parts
        self.write(trainer, prediction, batch)
        if trainer.received_sigterm:  # Lightning itself checks this only in training
            raise SIGTERMException(128 + signal.SIGTERM)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Put together the batches of all devices."""
        self.flush()
        trainer.strategy.barrier("all batches written")
        if trainer.is_global_zero:
            self.finish(trainer)
        trainer.strategy.barrier("parts put together")

    @abstractmethod
    def begin(self, trainer: L.Trainer) -> None:
        """Refuse a folder with other content, and tell the datamodule which batches to leave out."""

    @abstractmethod
    def write(self, trainer: L.Trainer, prediction: Any, batch: Any) -> None:  # noqa: ANN401
        """Write the prediction of a batch, or keep it until :meth:`flush`."""

    def flush(self) -> None:
        """Write the batches of this device that are not written yet, if the writer keeps any."""

    @abstractmethod
    def finish(self, trainer: L.Trainer) -> None:
        """Put the batches of all devices together. Only the first device does this."""


def hash_images(trainer: L.Trainer, data: ImageDataModule) -> str:
    """Hash of the images to predict. The first device reads them and tells the others."""
    hashed = hash_files(data.predict_folder, data.predict_records) if trainer.is_global_zero else ""
    return str(trainer.strategy.broadcast(hashed))
