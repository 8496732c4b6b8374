"""Length of a downstream training and interval of its evaluations, by the published protocol."""

import logging
from collections.abc import Mapping
from typing import Annotated, Any

import lightning.pytorch as pl

from dgs_lightning.bounds import AtLeast, check_bounds
from dgs_lightning.errors import InputError
from dgs_lightning.tasks.protocol import EVALUATIONS, MOST_TIMES, asked_epochs, epochs_of, evaluation_interval
from dgs_lightning.tasks.size import DataSize

log = logging.getLogger(__name__)


class PublishedLength(pl.Callback):
    """Sets the number of epochs of a training and the interval between its evaluations.

    The settings of the trainer come first. The number of epochs is set only if ``max_epochs`` and ``max_steps`` of the
    trainer are -1 (Lightning replaces a missing ``max_epochs`` by 1000), and the interval only if
    ``check_val_every_n_epoch`` is 1. The last epoch is always followed by an evaluation.

    >>> from dgs_lightning.examples import SILENT
    >>> length = PublishedLength(epochs=300, evaluations=20)  # one evaluation after every 15 epochs
    >>> trainer = pl.Trainer(**SILENT, max_epochs=-1, callbacks=[length])

    Args:
        epochs: Passes over the training images. Without this and `steps`, it is the published number for this
            number of images per class (Section 4.1).
        steps: Number of batches, instead of `epochs`. It is rounded up to whole epochs.
        evaluations: Approximate number of evaluations during the training.
        steps_ipc: Images per class of the sets that `steps` are meant for. A training on more images then has more
            steps, in the ratio of the published numbers of steps: the published epochs (Section 4.1) times the batches
            in an epoch. `dgs run` sets this where a network is trained on the whole training set, so that this training
            is no shorter than its size asks for.
        most_times: That ratio is at most this number.
        meant_for: Size of the data that `steps` are meant for. Data of another size then have more or fewer steps
            (:func:`~dgs_lightning.tasks.size.steps_by_size`).

    Raises:
        InputError: If a number is out of its range, or settings are given that exclude each other.
    """

    def __init__(
        self,
        epochs: Annotated[int | None, AtLeast(1)] = None,
        steps: Annotated[int | None, AtLeast(1)] = None,
        evaluations: Annotated[int, AtLeast(1)] = EVALUATIONS,
        steps_ipc: Annotated[int | None, AtLeast(1)] = None,
        most_times: Annotated[float, AtLeast(1)] = MOST_TIMES,
        meant_for: DataSize | None = None,
    ) -> None:
        self.asked: dict[str, Any] = {"epochs": epochs, "steps": steps, "steps_ipc": steps_ipc}
        self.asked |= {"most_times": most_times, "meant_for": meant_for}
        check_bounds(type(self), {**self.asked, "evaluations": evaluations})
        self.evaluations = evaluations
        self.length: dict[str, int | None] = {}

    @classmethod
    def check_combination(cls, settings: Mapping[str, Any]) -> None:
        """Refuse both `epochs` and `steps`, `steps_ipc` and `meant_for` without `steps`, and both of these."""
        for name in ("steps_ipc", "meant_for"):
            if settings[name] is not None and settings["steps"] is None:
                found, remedy = f"{settings[name]}, but no steps", f"Set steps, or remove {name}"
                raise InputError.setting(name, found, "steps that are meant for it", remedy)
        if None not in (settings["steps_ipc"], settings["meant_for"]):
            found = f"{settings['steps_ipc']}, beside meant_for"
            raise InputError.setting("steps_ipc", found, "either steps_ipc or meant_for", "Remove one of the two")
        if None not in (settings["epochs"], settings["steps"]):
            found = f"{settings['epochs']}, beside steps {settings['steps']}"
            raise InputError.setting("epochs", found, "either epochs or steps", "Set the other one to null")

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Set the length and the interval in the trainer."""
        if stage != "fit" or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        data = trainer.datamodule  # type: ignore[attr-defined]
        batches = len(data.train_dataloader())
        if (trainer.max_epochs, trainer.max_steps) == (-1, -1):
            trainer.fit_loop.max_epochs = self._epochs(data, batches)
        elif trainer.is_global_zero:
            limits = f"max_epochs {trainer.max_epochs}, max_steps {trainer.max_steps}"
            log.info("The trainer decides the length (%s); with -1 in both PublishedLength decides", limits)
        if trainer.check_val_every_n_epoch == 1:
            trainer.check_val_every_n_epoch = evaluation_interval(epochs_of(trainer, batches) or 1, self.evaluations)
        interval = trainer.check_val_every_n_epoch
        self.length = {"epochs": trainer.max_epochs, "steps": trainer.max_steps, "epochs per evaluation": interval}

    def _epochs(self, data: Any, batches: int) -> int:  # noqa: ANN401
        """Epochs of a training with so many batches in an epoch."""
        size = DataSize(data.train_images, len(data.labels), data.image_size)
        epochs = asked_epochs(**self.asked, batches=batches, batch_size=data.train_batch_size, size=size)
        if self.asked["steps_ipc"] is not None:
            log.info(
                "%d steps on %.0f images per class, as %d steps are meant for an IPC of %d",
                *(epochs * batches, size.images / size.classes, self.asked["steps"], self.asked["steps_ipc"]),
            )
        return epochs

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Evaluate after the last epoch, even if it is not at an interval."""
        if trainer.current_epoch + 1 == trainer.max_epochs:
            trainer.check_val_every_n_epoch = 1

    def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
        """Evaluate after the last step, even if it ends within an epoch."""
        if trainer.global_step == trainer.max_steps and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            trainer.check_val_every_n_epoch = 1
            trainer.should_stop = True  # Lightning then evaluates before the epoch is complete

    def state_dict(self) -> dict[str, Any]:
        """The length of this run."""
        return dict(self.length)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Refuse to resume a run of another length, whose learning rate follows another schedule."""
        changed = [name for name, value in self.length.items() if state_dict.get(name) != value]
        if changed:
            begun, own = (", ".join(f"{key}: {run.get(key)}" for key in changed) for run in (state_dict, self.length))
            raise InputError.resume(f"one made with {begun}", f"the length of this run, {own}")
