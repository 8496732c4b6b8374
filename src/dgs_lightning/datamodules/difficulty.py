"""Difficulty-guided sampling as a datamodule: batches from an image pool for any LightningModule."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from dgs_lightning.data.folders import read_set
from dgs_lightning.data.records import ImageRecord
from dgs_lightning.datamodules.images import Folds, ImageDataModule
from dgs_lightning.distil.selection import ImagesPerClass, Selection, SelectionSettings


class DifficultyGuidedDataModule(ImageDataModule):
    """Batches of images that are selected from a pool by difficulty (Algorithm 1). Nothing is written to disk.

    The pool may be any scored tree of class folders. Every device makes the same selection. Batches and further
    settings are those of :class:`ImageDataModule`, whose default for ``val`` is here the originals.

    Args:
        pool: Folder of the image pool.
        ipc: Number of images to select from each class.
        original: Folder of the original images. Without it, ``scale`` follows the pool's own difficulties.
        selection: How images are selected.
        images: Settings of :class:`ImageDataModule` except ``train``, ``cross_fitting`` and ``seed``.

    Attributes:
        report: After ``setup``, the report of the selection.

    Raises:
        InputError: If a setting is outside its limits.

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> from dgs_lightning.examples import write_images, write_scores
        >>> with TemporaryDirectory() as folder:
        ...     pool = write_scores(write_images(folder))
        ...     data = DifficultyGuidedDataModule(pool, ipc=2, val=pool, selection=SelectionSettings(smoothing="none"))
        ...     data.setup("fit")
        ...     [record.label for record in data.train_records]
        ['cat', 'cat', 'dog', 'dog']
    """

    def __init__(
        self,
        pool: str,
        ipc: ImagesPerClass,
        original: str | None = None,
        selection: SelectionSettings = SelectionSettings(),
        **images: Any,  # noqa: ANN401
    ) -> None:
        settings = SelectionSettings.of(selection)
        super().__init__(train=pool, cross_fitting=Folds(), seed=settings.seed, **images)
        self.selection = Selection(pool=pool, ipc=ipc, original=original, links=self.loading.links, **asdict(settings))

    def _read(self, name: str) -> tuple[Path, list[ImageRecord]]:
        """Folder and records of a set: the selected images for ``train``, by default the originals for ``val``."""
        if name == "train":
            selected = self.selection.run()
            self.report = selected.report
            return Path(self.selection.pool), selected.records
        if self.folders[name] is None and self.selection.original is not None:
            folder = Path(self.selection.original)
            return folder, read_set(folder, links=self.loading.links)
        return super()._read(name)

    def _seed(self) -> int:
        """The task's seed, so that repeats on one selection have different orders; else the seed of the selection."""
        seed = self._task_seed()
        return self.selection.seed if seed is None else seed
