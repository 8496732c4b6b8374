"""Difficulty-guided sampling as a datamodule: from an image pool to loaders for any LightningModule."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

from dgs_lightning.data.folders import read_set
from dgs_lightning.data.records import ImageRecord
from dgs_lightning.datamodules.images import ImageDataModule
from dgs_lightning.distil.selection import Selection


class DifficultyGuidedDataModule(ImageDataModule):
    """Trains on images that are selected from a pool by difficulty (Algorithm 1), without writing them anywhere.

    ``fit`` and ``validate`` serve ``(images, label positions)``: float32 ``(B, C, S, S)`` in [0, 1], and positions in
    ``labels``. The pool may be any scored tree of class folders::

        data = DifficultyGuidedDataModule("pool", ipc=10, original="train", val="val")
        trainer = lightning.Trainer(max_epochs=100)
        trainer.fit(MyClassifier(), data)

    Args:
        pool: Folder of the image pool.
        ipc: Images to select of each class.
        original: Folder of the original images. Without it ``scale`` follows the pool's own difficulties.
        val: Image set to validate and test on; by default the originals.
        image_size: Side in pixels; by default that of the first image.
        channels: 1 for grey, 3 for RGB; by default 1 where all images are grey.
        crop: How the centre square is cut: ``plain`` (bilinear, the downstream protocol) or ``adm`` (as DiTs expect).
        batch_size: Images of a training batch, over all devices.
        val_batch_size: Images of a batch for validation, for each device.
        labels: The classes, or the name of a class list; by default those of the folders, sorted.
        in_memory: Keep the images decoded; ``auto`` does where they take a quarter of the memory at most.
        num_workers: Processes that decode images which are not kept.
        selection: Further settings of :class:`~dgs_lightning.distil.selection.Selection`.

    Attributes:
        report: After ``setup``, the account of the selection.
    """

    report: dict[str, Any]

    def __init__(
        self,
        pool: str,
        ipc: int,
        original: str | None = None,
        val: str | None = None,
        image_size: int | None = None,
        channels: int | None = None,
        crop: Literal["plain", "adm"] = "plain",
        batch_size: int = 64,
        val_batch_size: int = 256,
        labels: str | list[str] | None = None,
        in_memory: Literal["auto"] | bool = "auto",
        num_workers: int = 0,
        **selection: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(
            val=val,
            image_size=image_size,
            channels=channels,
            crop=crop,
            batch_size=batch_size,
            val_batch_size=val_batch_size,
            labels=labels,
            in_memory=in_memory,
            num_workers=num_workers,
        )
        for inherited in ("predict", "folds", "fold"):  # LightningCLI saves only what this class itself takes
            self.hparams.setdefault(inherited, None)
        self.selection = Selection(pool=pool, ipc=ipc, original=original, **selection)

    @classmethod
    def check_settings(cls, settings: Mapping[str, Any]) -> None:
        """Refuse settings that no images could go with, those of the selection among them.

        Raises:
            InputError: If one is unknown or out of its range.
        """
        super().check_settings(settings)
        Selection(**{field.name: settings[field.name] for field in fields(Selection) if field.name in settings})

    def _read(self, name: str) -> tuple[Path, list[ImageRecord]]:
        """Folder and records of a set: those to train on are selected, and the originals stand in for ``val``."""
        if name == "train":
            selected = self.selection.run()
            self.report = selected.report
            return Path(self.selection.pool), selected.records
        if self.hparams[name] is None and self.selection.original is not None:
            return Path(self.selection.original), read_set(Path(self.selection.original))
        return super()._read(name)

    def _seed(self) -> int:
        """The order of batches follows the task's seed, so that repeats on one selection differ."""
        seed = self._task_seed()
        return self.selection.seed if seed is None else seed
