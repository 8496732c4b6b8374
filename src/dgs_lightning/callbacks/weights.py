"""Writing of trained weights."""

from pathlib import Path

import lightning.pytorch as pl

from dgs_lightning.errors import InputError


class WeightsWriter(pl.Callback):
    """Writes the trained weights to the folder ``weights`` of the trainer's ``default_root_dir`` when training ends.

    It calls the method ``save_weights(folder)`` of the task, such as
    :meth:`DiffusionTask.save_weights <dgs_lightning.tasks.diffusion.DiffusionTask.save_weights>`. A finished run that
    is started again writes the same weights again.

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> import torch
        >>> from lightning.pytorch.demos.boring_classes import BoringModel
        >>> from dgs_lightning.examples import SILENT
        >>> class MyTask(BoringModel):
        ...     def save_weights(self, folder: Path) -> None:
        ...         folder.mkdir()
        ...         torch.save(self.layer.state_dict(), folder / "layer.pt")
        >>> with TemporaryDirectory() as folder:
        ...     pl.Trainer(**SILENT, max_steps=1, default_root_dir=folder, callbacks=[WeightsWriter()]).fit(MyTask())
        ...     [path.name for path in Path(folder, "weights").iterdir()]
        ['layer.pt']
    """

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Check that the task can write weights."""
        if stage == "fit" and not hasattr(pl_module, "save_weights"):
            expected = "a task with a method save_weights, such as DiffusionTask"
            raise InputError.wrong_class("WeightsWriter", [pl_module], expected, "Remove the callback")

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the weights."""
        if trainer.is_global_zero:
            pl_module.save_weights(Path(trainer.default_root_dir) / "weights")  # type: ignore[operator]
