"""Length of a DiT's training by the number of its images, classes and pixels."""

import logging

import lightning.pytorch as pl

from dgs_lightning.bounds import check_bounds
from dgs_lightning.callbacks.parts import require
from dgs_lightning.datamodules.latents import LatentDataModule
from dgs_lightning.tasks.size import AtLeastOne, DataSize, steps_by_size

log = logging.getLogger(__name__)


class StepsBySize(pl.Callback):
    """Sets the number of steps of a training on cached latents by :func:`~dgs_lightning.tasks.size.steps_by_size`.

    The settings of the trainer come first: the number is set only if its ``max_epochs`` and ``max_steps`` are -1.

    >>> from tempfile import TemporaryDirectory
    >>> from dgs_lightning import DiffusionTask
    >>> from dgs_lightning.examples import SILENT, write_latents
    >>> from dgs_lightning.tasks.diffusion import ModelSize
    >>> task = DiffusionTask(size=ModelSize(hidden_size=16, depth=1, num_heads=2))
    >>> with TemporaryDirectory() as folder:
    ...     data = LatentDataModule(write_latents(folder), batch_size=4)  # 8 latents of 4 x 4 pixels, of two classes
    ...     length = StepsBySize(10, DataSize(images=32, classes=2, side=8))
    ...     trainer = pl.Trainer(**SILENT, max_epochs=-1, callbacks=[length])
    ...     trainer.fit(task, data)
    ...     trainer.global_step  # 10 steps x the root of 1/4 as many images and 1/4 as many pixels
    2

    Args:
        steps: Steps on data of the size that they are meant for.
        meant_for: That size.

    Raises:
        InputError: If a number is out of its range, or the data are no cached latents.
    """

    def __init__(self, steps: AtLeastOne, meant_for: DataSize) -> None:
        check_bounds(type(self), {"steps": steps, "meant_for": meant_for})
        self.steps, self.meant_for = steps, DataSize.of(meant_for)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Set the number of steps in the trainer."""
        if stage != "fit" or trainer.fast_dev_run or (trainer.max_epochs, trainer.max_steps) != (-1, -1):  # type: ignore[attr-defined]
            return
        data = require(LatentDataModule, trainer.datamodule, self)  # type: ignore[attr-defined]
        size = DataSize(len(data.cache), len(data.labels), data.latent_shape[-1])
        trainer.fit_loop.epoch_loop.max_steps = steps_by_size(self.steps, self.meant_for, size)
        log.info("%d steps on %d images of %d classes", trainer.max_steps, size.images, size.classes)
