"""Base of all writers of predictions: how a stopped run goes on."""

import logging
import signal
from abc import abstractmethod
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Generic, TypeVar

import lightning as L
from lightning.pytorch.utilities.exceptions import SIGTERMException

from dgs_lightning.callbacks.parts import require
from dgs_lightning.data.cards import hash_files
from dgs_lightning.data.unfinished import Unfinished
from dgs_lightning.datamodules.images import ImageDataModule
from dgs_lightning.files import explain_disk_errors
from dgs_lightning.runs.lock import locked
from dgs_lightning.runs.results import make_durable

_log = logging.getLogger(__name__)
Task = TypeVar("Task", bound=L.LightningModule)
Data = TypeVar("Data", bound=L.LightningDataModule)


class ResumableWriter(L.Callback, Generic[Task, Data]):
    """Base class of the callbacks that write the predictions of a task into a folder, batch by batch.

    1. :meth:`begin`: Before the first batch, :meth:`take` lets the first device look at the folder. If it holds
       something else, the run ends before anything is written. Then the folder is locked and marked as
       :class:`~dgs_lightning.data.unfinished.Unfinished`. Batches that are in it are not predicted again.
    2. :meth:`write` and :meth:`flush`: A batch is written as a whole or not at all, and then noted in the journal, so a
       kill loses only the batches that are not written yet.
    3. :meth:`finish`: When all devices have written their batches, the first device puts them together. It writes the
       card last, and :meth:`complete` removes the mark.

    The same command, run again after a stop, therefore ends in the same bytes as a run that was not stopped.

    Attributes:
        TASK: Class of the task that the writer works with.
        DATA: Class of its datamodule.
        KIND: What it writes, for the mark.
        task: The task.
        data: The datamodule.
        unfinished: Mark and journals of the folder.
    """

    TASK: type[Task]
    DATA: type[Data]
    KIND: str
    task: Task
    data: Data
    unfinished: Unfinished
    _held: ExitStack | None = None  # the lock of the folder

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
        if self._held is not None:
            self.finish(trainer)
        self._release()
        trainer.strategy.barrier("parts put together")

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Let others use the folder."""
        self._release()

    def _release(self) -> None:
        if self._held is not None:
            self._held.close()
        self._held = None

    def take(self, trainer: L.Trainer, folder: Path) -> Any:  # noqa: ANN401
        """Take a folder for this run. All devices must call it.

        Returns:
            What is finished in it, as :meth:`resume` tells it.

        Raises:
            InputError: If the folder holds something else, or another process writes into it.
        """
        self.unfinished = Unfinished(folder, self.KIND)
        finished = None
        if trainer.is_global_zero:
            self.check()
            hidden = self.unfinished.hidden
            with explain_disk_errors(folder), ExitStack() as held:
                hidden.mkdir(parents=True, exist_ok=True)
                if how := held.enter_context(locked(hidden / "lock", folder)):
                    _log.info(how)
                self.check()  # again: the holder before may have changed it
                finished = self.resume()
                self._held = held.pop_all()
        return trainer.strategy.broadcast(finished)

    def complete(self, names: Iterable[str]) -> None:
        """Wait until the disk has the files of the folder, and remove the mark."""
        make_durable(self.unfinished.folder, names)
        self.unfinished.end()

    @abstractmethod
    def begin(self, trainer: L.Trainer) -> None:
        """Take the folder, and tell the datamodule which batches to leave out."""

    @abstractmethod
    def check(self) -> None:
        """Raise an InputError if the folder holds something else. Touch nothing. Only the first device does this."""

    @abstractmethod
    def resume(self) -> Any:  # noqa: ANN401
        """Mark the folder unless all is finished, and tell what is. Only the first device does this."""

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
