"""The checkpoint that a run resumes from: every so many steps, or at the ends of epochs."""

import os
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ModelCheckpoint

from dgs_lightning.bounds import Ranged
from dgs_lightning.errors import InputError
from dgs_lightning.files import told_in_words
from dgs_lightning.models.weights import read_file

KEYS = (
    "pytorch-lightning_version",
    "state_dict",
    "epoch",
    "global_step",
    "loops",
    "optimizer_states",
)


class ResumeCheckpoint(ModelCheckpoint, Ranged):
    """Keeps one checkpoint, ``ROOT/checkpoints/last.ckpt``, which ``ckpt_path: last`` resumes from.

    It is found again whatever logger the run has, and replaced as a whole: a kill while it is written leaves the one
    before. Its last one is of the last step.

    Args:
        every_n_steps: Steps of the optimiser from one to the next.
    """

    RANGES: ClassVar[Mapping[str, str]] = {"every_n_steps": "[0, inf)"}

    def __init__(self, every_n_steps: int = 1000) -> None:
        self.check_settings({"every_n_steps": every_n_steps})
        super().__init__(save_last=True, save_top_k=0, every_n_train_steps=every_n_steps, enable_version_counter=False)

    @staticmethod
    def _path(trainer: pl.Trainer) -> Path:
        return Path(trainer.default_root_dir) / "checkpoints" / "last.ckpt"

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Choose the folder."""
        self.dirpath = str(self._path(trainer).parent)
        super().setup(trainer, pl_module, stage)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the last step."""
        if not self._should_skip_saving_checkpoint(trainer):
            self._save_last_checkpoint(trainer, {})

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the folder may move, and there is only one file in it."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing is kept."""

    def _find_last_checkpoints(self, trainer: pl.Trainer) -> set[str]:
        path = self._path(trainer)
        # Lightning wonders at there being none, which is what a first run with `ckpt_path: last` is.
        warnings.filterwarnings("ignore", ".*there is no last checkpoint available")
        if not path.is_file():
            return set()
        check_readable(path)
        return {str(path)}

    def _save_checkpoint(self, trainer: pl.Trainer, filepath: str) -> None:
        partial = f"{filepath}.partial"
        with told_in_words(Path(filepath)):
            super()._save_checkpoint(trainer, partial)
            if trainer.is_global_zero:
                os.replace(partial, filepath)
        trainer.strategy.barrier("checkpoint in place")


class EpochCheckpoint(ResumeCheckpoint):
    """Keeps a checkpoint of the end of an epoch, for runs whose data are in order there alone.

    A finished run has its results and needs none.

    Args:
        minutes: Least time from one checkpoint to the next.
    """

    def __init__(self, minutes: float = 2.0) -> None:
        super().__init__(every_n_steps=0)
        self.minutes = minutes

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        super().on_train_start(trainer, pl_module)
        self.last_time = time.monotonic()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save, if it is time to."""
        due = time.monotonic() - self.last_time >= 60 * self.minutes
        if trainer.strategy.broadcast(due) and not self._should_skip_saving_checkpoint(trainer):
            self._save_last_checkpoint(trainer, {})
            self.last_time = time.monotonic()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Nothing more to save."""

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Remove the checkpoint."""
        if trainer.is_global_zero:
            self._path(trainer).unlink(missing_ok=True)


def check_readable(path: Path) -> None:
    """Check that a checkpoint is whole, and holds nothing but tensors and plain values.

    Raises:
        InputError: If it is something else.
    """
    try:
        content = read_file(path, mmap=True)
        missing = [key for key in KEYS if not isinstance(content, dict) or key not in content]
        found = f"no {', '.join(missing)}" if missing else ""
    except InputError as error:
        found = error.parts[1]
    if found:
        raise InputError(
            path,
            found=found,
            expected="a checkpoint to resume, of tensors and plain values alone",
            remedy="Delete it to start from the beginning",
        )
