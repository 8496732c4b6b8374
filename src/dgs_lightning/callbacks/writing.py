"""What all writers of predictions share: how a run that was stopped goes on."""

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
    """Base class of the callbacks that write what a task predicts, batch by batch, into a folder.

    All writers treat a folder that a stopped run left half finished in the same way:

    1. Before the first batch, each device looks at the folder. A folder that is not the writer's is refused, before
       anything is written. Only then does a device write.
    2. Batches that are in the folder are not predicted again, on whichever device they were predicted.
    3. A batch is in the folder as a whole or not at all. A kill loses only the batches that are not written yet.
    4. When all devices have written their batches, the first device puts them together. The card is written last: it
       is the sign that everything is there.

    The same command, run again after a stop, therefore ends in the same bytes as a run that was not stopped. A subclass
    says how: :meth:`begin` is step 1 and 2, :meth:`write` and :meth:`flush` are step 3, and :meth:`finish` is step 4.

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
        """Look at the folder.

        Raises:
            InputError: If task or data are of another kind, or the folder is not the writer's.
        """
        trainer.predict_loop.return_predictions = False  # they are on the disk, and may not fit in memory
        self.task = require(self.TASK, pl_module, self)
        self.data = require(self.DATA, trainer.datamodule, self)  # type: ignore[attr-defined]
        self.begin(trainer)

    def on_predict_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,  # noqa: ANN401
        batch: Any,  # noqa: ANN401
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write a batch, and stop if the process is to terminate."""
        self.write(trainer, outputs, batch)
        if trainer.received_sigterm:  # Lightning itself stops for it in training alone
            raise SIGTERMException(128 + signal.SIGTERM)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Put together what all devices wrote.

        Raises:
            InputError: If the disk is full, or not all parts are there.
        """
        self.flush()
        trainer.strategy.barrier("all batches written")
        if trainer.is_global_zero:
            self.finish(trainer)
        trainer.strategy.barrier("parts put together")

    @abstractmethod
    def begin(self, trainer: L.Trainer) -> None:
        """Refuse a folder that is not the writer's, and tell the datamodule which batches to leave out."""

    @abstractmethod
    def write(self, trainer: L.Trainer, prediction: Any, batch: Any) -> None:  # noqa: ANN401
        """Write the prediction of a batch, or keep it until :meth:`flush`."""

    @abstractmethod
    def flush(self) -> None:
        """Write the batches of this device that are not written yet."""

    @abstractmethod
    def finish(self, trainer: L.Trainer) -> None:
        """Put the batches of all devices together. Only the first device does this."""


def hash_images(trainer: L.Trainer, data: ImageDataModule) -> str:
    """Hash of the images that are predicted. The first device reads them, and tells the others."""
    hashed = hash_files(data.predict_folder, data.predict_records) if trainer.is_global_zero else ""
    return str(trainer.strategy.broadcast(hashed))
