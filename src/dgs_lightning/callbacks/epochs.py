"""The resume checkpoint of runs whose data are in order at the ends of epochs alone."""

import time

import lightning as L

from dgs_lightning.callbacks.checkpointing import ResumeCheckpoint


class EpochCheckpoint(ResumeCheckpoint):
    """Keeps a checkpoint of the end of an epoch while a run lasts; a finished run has its results and needs none.

    Args:
        minutes: Least time from one checkpoint to the next.
    """

    def __init__(self, minutes: float = 2.0) -> None:
        super().__init__(every_n_steps=0)
        self.minutes = minutes

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        super().on_train_start(trainer, pl_module)
        self.last_time = time.monotonic()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save, if it is time to."""
        due = time.monotonic() - self.last_time >= 60 * self.minutes
        if trainer.strategy.broadcast(due) and not self._should_skip_saving_checkpoint(trainer):
            self._save_last_checkpoint(trainer, {})
            self.last_time = time.monotonic()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Nothing more to save."""

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Remove the checkpoint."""
        if trainer.is_global_zero:
            self._path(trainer).unlink(missing_ok=True)
