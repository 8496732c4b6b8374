"""The checkpoint that a training resumes from, saved at intervals of steps or at the ends of epochs."""

import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.trainer.states import TrainerFn

from dgs_lightning.bounds import AtLeast, check_bounds
from dgs_lightning.errors import InputError
from dgs_lightning.files import replacing
from dgs_lightning.models.weights import read_file

AT_SIGNAL = re.compile(r"hpc_ckpt_\d+\.ckpt")  # what Lightning writes when SLURM says that the job's time ends
KEYS = ("pytorch-lightning_version", "state_dict", "epoch", "global_step", "loops", "optimizer_states")


class ResumeCheckpoint(Checkpoint):
    """Keeps one checkpoint, ``checkpoints/last.ckpt`` in the trainer's ``default_root_dir``.

    It is saved every ``every_n_steps`` steps and after the last step. A new one replaces the old one as a whole: if the
    process is killed while it saves, the old one stays. ``dgs fit`` resumes from it if ``ckpt_path`` is ``last``, or
    from a later one that Lightning wrote when the time of a SLURM job ended. The next save removes those.
    In Python, pass the path that :meth:`find` returns:

    >>> from tempfile import mkdtemp
    >>> from lightning.pytorch.demos.boring_classes import BoringModel
    >>> from dgs_lightning.examples import QUIET
    >>> root = mkdtemp()
    >>> for steps in (4, 6):  # the second training goes on after step 4
    ...     trainer = pl.Trainer(**QUIET, max_steps=steps, default_root_dir=root, callbacks=[ResumeCheckpoint(2)])
    ...     trainer.fit(BoringModel(), ckpt_path=ResumeCheckpoint.find(root))
    >>> ResumeCheckpoint.find(root).relative_to(root).as_posix()
    'checkpoints/last.ckpt'

    Args:
        every_n_steps: Steps of the optimiser from one checkpoint to the next; 0: only after the last step.
    """

    def __init__(self, every_n_steps: Annotated[int, AtLeast(0)] = 1000) -> None:
        check_bounds(ResumeCheckpoint, {"every_n_steps": every_n_steps})
        self.every_n_steps = every_n_steps
        self.saved_step = 0  # of the checkpoint that this object saved last

    @staticmethod
    def path(root: str | Path) -> Path:
        """Path of the checkpoint of a run, below the trainer's ``default_root_dir``."""
        return Path(root) / "checkpoints" / "last.ckpt"

    @classmethod
    def find(cls, root: str | Path) -> Path | None:
        """The checkpoint of a run with most steps, or ``None`` if there is none yet.

        Raises:
            InputError: If one is broken, or holds anything but tensors and plain values.
        """
        found = [path for path in (cls.path(root), *_at_signal(root)) if path.is_file()]
        return max(found, key=lambda path: int(check_readable(path)["global_step"]), default=None)

    def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
        """Save after every ``every_n_steps`` steps."""
        if self.every_n_steps and trainer.global_step % self.every_n_steps == 0:
            self.save(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save after the last step."""
        self.save(trainer)

    def save(self, trainer: pl.Trainer) -> None:
        """Save a checkpoint, unless there is one of this step. All devices must call it.

        Raises:
            InputError: If the disk is full or may not be written to.
        """
        step = trainer.global_step
        if step == self.saved_step or trainer.state.fn != TrainerFn.FITTING or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        path = self.path(trainer.default_root_dir)
        if trainer.is_global_zero:
            with replacing(path, durable=True, apart=True) as partial, _temporary_files_in(partial.parent):
                trainer.save_checkpoint(partial)
            self._remove_earlier(trainer.default_root_dir)
        else:
            trainer.save_checkpoint(path)  # takes part, and writes nothing
        trainer.strategy.barrier("checkpoint in place")
        self.saved_step = step

    def _remove_earlier(self, root: str) -> None:
        """Remove what Lightning wrote at signals, if it is of this training: same weights, no later."""
        if at_signal := _at_signal(root):
            own = check_readable(self.path(root))
            for path in at_signal:
                found = check_readable(path)
                if (
                    found["state_dict"].keys() == own["state_dict"].keys()
                    and found["global_step"] <= own["global_step"]
                ):
                    path.unlink()


class EpochCheckpoint(ResumeCheckpoint):
    """Keeps a checkpoint of the end of an epoch, for tasks that can resume only there.

    The checkpoint is deleted when the training ends, since its results are then complete.

    >>> from tempfile import mkdtemp
    >>> from lightning.pytorch.demos.boring_classes import BoringModel
    >>> from dgs_lightning.examples import QUIET
    >>> root = mkdtemp()
    >>> trainer = pl.Trainer(**QUIET, max_epochs=2, default_root_dir=root, callbacks=[EpochCheckpoint(minutes=0)])
    >>> trainer.fit(BoringModel(), ckpt_path=EpochCheckpoint.find(root))
    >>> EpochCheckpoint.find(root) is None  # the training is complete
    True

    Args:
        minutes: Least time from one checkpoint to the next.
    """

    def __init__(self, minutes: float = 2.0) -> None:
        super().__init__(every_n_steps=0)
        self.minutes = minutes

    @classmethod
    def find(cls, root: str | Path) -> Path | None:
        """The checkpoint of a run, or ``None`` if there is none yet.

        What Lightning wrote at a signal is within an epoch, and is removed: Lightning would resume from it otherwise.

        Raises:
            InputError: If a checkpoint is broken, or holds anything but tensors and plain values.
        """
        for path in _at_signal(root):
            check_readable(path)
            path.unlink(missing_ok=True)
        return super().find(root)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self.last_time = time.monotonic()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save if the last checkpoint is old enough."""
        if trainer.strategy.broadcast(time.monotonic() - self.last_time >= 60 * self.minutes):
            self.save(trainer)
            self.last_time = time.monotonic()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save nothing: the training is complete."""

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Delete the checkpoint."""
        if trainer.is_global_zero:
            self.path(trainer.default_root_dir).unlink(missing_ok=True)


@contextmanager
def _temporary_files_in(folder: Path) -> Iterator[None]:
    """Let Lightning make its temporary file in a folder, on the disk of the checkpoint, and not in ``/tmp``."""
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before


def _at_signal(root: str | Path) -> list[Path]:
    """Checkpoints that Lightning wrote into the folder of a training at signals."""
    return sorted(path for path in Path(root).glob("*.ckpt") if AT_SIGNAL.fullmatch(path.name))


def check_readable(path: Path) -> dict[str, Any]:
    """The content of a checkpoint.

    Raises:
        InputError: If the file is not a complete checkpoint with only tensors and plain values.
    """
    expected, remedy = (
        "a checkpoint to resume, with only tensors and plain values",
        "Delete it to start from the beginning",
    )
    content: dict[str, Any] = read_file(path, mmap=True, expected=expected, remedy=remedy)
    if missing := [key for key in KEYS if not isinstance(content, dict) or key not in content]:
        raise InputError(path, f"no {', '.join(missing)}", expected, remedy)
    return content
