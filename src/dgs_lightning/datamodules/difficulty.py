"""Difficulty-guided sampling as a datamodule: batches from an image pool for any LightningModule."""

from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from dgs_lightning.data.folders import read_set
from dgs_lightning.data.records import ImageRecord
from dgs_lightning.datamodules.images import BatchSize, Channels, ImageDataModule, Loading, Size
from dgs_lightning.distil.selection import ImagesPerClass, Selection, SelectionSettings


class DifficultyGuidedDataModule(ImageDataModule):
    """Batches of images that are selected from a pool by difficulty (Algorithm 1). Nothing is written to disk.

    ``fit`` and ``validate`` serve ``(images, label positions)``: float32 ``(B, C, S, S)`` in [0, 1], and positions in
    ``labels``. The pool may be any scored tree of class folders. Every device makes the same selection.

    Args:
        pool: Folder of the image pool.
        ipc: Number of images to select from each class.
        original: Folder of the original images. Without it, ``scale`` follows the pool's own difficulties.
        val: Image set for validation and testing; by default the originals.
        image_size: Side in pixels; by default that of a prepared set, else the shorter side of the first image.
        channels: 1 for grey, 3 for RGB; by default 1 if all images are grey.
        crop: How the centre square is cut: ``plain`` (bilinear, the downstream protocol) or ``adm`` (as DiTs expect).
        batch_size: Images in a training batch, over all devices.
        val_batch_size: Images in a batch for validation, on each device.
        labels: The classes, or the name of a class list; by default the names of the folders, sorted.
        loading: How images are read.
        selection: How images are selected.

    Attributes:
        report: After ``setup``, the report of the selection.

    Raises:
        InputError: If a setting is outside its limits.

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> from PIL import Image
        >>> from dgs_lightning.data.records import write_manifest
        >>> with TemporaryDirectory() as pool:
        ...     records = []
        ...     for label in ("cat", "dog"):
        ...         Path(pool, label).mkdir()
        ...         for index in range(10):
        ...             name = f"{label}/{index}.png"
        ...             Image.new("RGB", (8, 8)).save(f"{pool}/{name}")
        ...             records.append(ImageRecord(name, label, difficulty=index / 10, estimator="mine"))
        ...     write_manifest(Path(pool), records)
        ...     settings = SelectionSettings(smoothing="none")
        ...     data = DifficultyGuidedDataModule(pool, ipc=2, val=pool, selection=settings)
        ...     data.setup("fit")
        ...     sorted(record.label for record in data.train_records)
        ['cat', 'cat', 'dog', 'dog']
    """

    report: dict[str, Any]

    def __init__(
        self,
        pool: str,
        ipc: ImagesPerClass,
        original: str | None = None,
        val: str | None = None,
        image_size: Size = None,
        channels: Channels = None,
        crop: Literal["plain", "adm"] = "plain",
        batch_size: BatchSize = 64,
        val_batch_size: BatchSize = 256,
        labels: str | list[str] | None = None,
        loading: Loading = Loading(),
        selection: SelectionSettings = SelectionSettings(),
    ) -> None:
        settings = SelectionSettings.of(selection)
        super().__init__(
            val=val,
            image_size=image_size,
            channels=channels,
            crop=crop,
            batch_size=batch_size,
            val_batch_size=val_batch_size,
            labels=labels,
            seed=settings.seed,
            loading=loading,
        )
        self.selection = Selection(pool=pool, ipc=ipc, original=original, **asdict(settings))

    def _read(self, name: str) -> tuple[Path, list[ImageRecord]]:
        """Folder and records of a set: the selected images for ``train``, and by default the originals for ``val``."""
        if name == "train":
            selected = self.selection.run()
            self.report = selected.report
            return Path(self.selection.pool), selected.records
        if self.folders[name] is None and self.selection.original is not None:
            return Path(self.selection.original), read_set(Path(self.selection.original))
        return super()._read(name)

    def _seed(self) -> int:
        """The task's seed, so that repeats on one selection have different orders; else the seed of the selection."""
        seed = self._task_seed()
        return self.selection.seed if seed is None else seed
