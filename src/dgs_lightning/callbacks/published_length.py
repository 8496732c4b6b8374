"""The length of a downstream training and how often it is evaluated, by the published protocol."""

import logging
from collections.abc import Mapping
from typing import Annotated, Any

import lightning.pytorch as pl

from dgs_lightning.bounds import AtLeast, check_bounds
from dgs_lightning.errors import InputError
from dgs_lightning.tasks.protocol import EVALUATIONS, asked_epochs, epochs_of, evaluation_interval

log = logging.getLogger(__name__)


class PublishedLength(pl.Callback):
    """Sets the number of epochs of a training and the interval between its evaluations.

    A trainer that has a length of its own keeps it: this callback sets the number of epochs only where ``max_epochs``
    and ``max_steps`` of the trainer are -1 (Lightning replaces a missing ``max_epochs`` by 1000). In the same way a
    ``check_val_every_n_epoch`` other than 1 is kept. The last epoch is always followed by an evaluation.

    >>> from lightning import Trainer
    >>> from dgs_lightning import PublishedLength
    >>> length = PublishedLength(epochs=300, evaluations=20)  # one evaluation after every 15 epochs
    >>> trainer = Trainer(max_epochs=-1, callbacks=[length], logger=False, enable_checkpointing=False)

    Args:
        epochs: Passes over the training images. With neither this nor `steps`, the published number for as many
            images per class (Section 4.1).
        steps: Instead of `epochs`, the number of batches, rounded up to whole epochs.
        evaluations: About how often the network is evaluated during the training.

    Raises:
        InputError: If a number is out of its range, or both `epochs` and `steps` are given.
    """

    def __init__(
        self,
        epochs: Annotated[int | None, AtLeast(1)] = None,
        steps: Annotated[int | None, AtLeast(1)] = None,
        evaluations: Annotated[int, AtLeast(1)] = EVALUATIONS,
    ) -> None:
        check_bounds(type(self), {"epochs": epochs, "steps": steps, "evaluations": evaluations})
        self.epochs = epochs
        self.steps = steps
        self.evaluations = evaluations
        self.length: dict[str, int | None] = {}

    @classmethod
    def check_combination(cls, settings: Mapping[str, Any]) -> None:
        """Refuse a length that is given twice.

        Raises:
            InputError: If both `epochs` and `steps` are given.
        """
        if None not in (settings["epochs"], settings["steps"]):
            raise InputError(
                "epochs",
                found=f"{settings['epochs']}, beside steps {settings['steps']}",
                expected="either epochs or steps",
                remedy="Set the other one to null",
            )

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Set the length and the interval in the trainer."""
        if stage != "fit" or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        batches = len(trainer.datamodule.train_dataloader())  # type: ignore[attr-defined]
        if (trainer.max_epochs, trainer.max_steps) == (-1, -1):
            trainer.fit_loop.max_epochs = self._epochs(trainer, batches)
        elif trainer.is_global_zero:
            log.info(
                "The trainer decides the length (max_epochs %s, max_steps %s); with -1 in both PublishedLength decides",
                trainer.max_epochs,
                trainer.max_steps,
            )
        if trainer.check_val_every_n_epoch == 1:
            trainer.check_val_every_n_epoch = evaluation_interval(epochs_of(trainer, batches) or 1, self.evaluations)
        interval = trainer.check_val_every_n_epoch
        self.length = {"epochs": trainer.max_epochs, "steps": trainer.max_steps, "epochs per evaluation": interval}

    def _epochs(self, trainer: pl.Trainer, batches: int) -> int:
        """Epochs that the settings ask for, of so many batches each."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        ipc, classes = data.train_images / len(data.labels), len(data.labels)
        return asked_epochs(self.epochs, self.steps, batches=batches, ipc=ipc, classes=classes)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Evaluate after the last epoch, whatever the interval is."""
        if trainer.current_epoch + 1 == trainer.max_epochs:
            trainer.check_val_every_n_epoch = 1

    def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
        """Evaluate after the last step, where the trainer counts steps and ends within an epoch."""
        if trainer.global_step == trainer.max_steps and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            trainer.check_val_every_n_epoch = 1
            trainer.should_stop = True  # Lightning then evaluates before the epoch is complete

    def state_dict(self) -> dict[str, Any]:
        """The length of this run."""
        return dict(self.length)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Compare the length of a resumed run with the one that it began with.

        Raises:
            InputError: If they differ; the learning rate would follow another schedule.
        """
        if self.length and state_dict != self.length:
            changed = [name for name, value in self.length.items() if state_dict.get(name) != value]
            raise InputError(
                "checkpoint to resume",
                found=f"one made with {', '.join(f'{name}: {state_dict.get(name)}' for name in changed)}",
                expected=f"the length of this run, {', '.join(f'{name}: {self.length[name]}' for name in changed)}",
                remedy="Resume with the old settings, or start in a new folder",
            )
