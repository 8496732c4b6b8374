"""Writing of learned images as a distilled set."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import lightning as L
import torch
from torch import Tensor
from torchvision.utils import make_grid

from dgs_lightning.bounds import AtLeast, check_bounds
from dgs_lightning.callbacks.image_writer import write_png
from dgs_lightning.callbacks.parts import require, tensorboards
from dgs_lightning.data.cards import read_card, versions
from dgs_lightning.data.classes import readable_name
from dgs_lightning.data.editions import licences_of
from dgs_lightning.data.records import ImageRecord
from dgs_lightning.data.writing import begin_set, check_destination, finish_set
from dgs_lightning.files import write_tensors
from dgs_lightning.tasks.learned_images import LearnedImages, share_outside

FOLDER, STORED = "images", "images.safetensors"
MUCH = 0.01  # share of clamped pixels from which a set is worth a warning


class LearnedImagesWriter(L.Callback):
    """Writes the learned images to the folder ``images`` of the trainer's ``default_root_dir`` when training ends.

    The folder is a distilled set like any other: ``LABEL/00000.png``, ``metadata.jsonl`` and ``dataset.json``. Pixels
    outside [0, 1] are clamped, and rounded to 8 bits; the card says how many were. ``images.safetensors`` has the
    stored images as they were learned, ``(classes * ipc, C, S, S)``. A finished run that is started again writes the
    same files again.

    Args:
        every_n_steps: Steps between two pictures of the images for TensorBoard; 0 for none.

    Raises:
        InputError: If the task does not learn images, or the folder holds something else.

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> from dgs_lightning import DistributionMatchingTask, RealImageDataModule
        >>> from dgs_lightning.examples import SILENT, write_images
        >>> from dgs_lightning.tasks.learned_images import ImageSettings
        >>> with TemporaryDirectory() as folder:
        ...     data, writer = RealImageDataModule(write_images(f"{folder}/real")), LearnedImagesWriter()
        ...     task = DistributionMatchingTask("convnet1", width=4, images=ImageSettings(ipc=1))
        ...     L.Trainer(**SILENT, max_steps=2, default_root_dir=folder, callbacks=[writer]).fit(task, data)
        ...     sorted(path.name for path in Path(folder, "images").iterdir())
        ['README.md', 'cat', 'dataset.json', 'dog', 'images.safetensors', 'metadata.jsonl']
    """

    def __init__(self, every_n_steps: Annotated[int, AtLeast(0)] = 0) -> None:
        check_bounds(type(self), {"every_n_steps": every_n_steps})
        self.every_n_steps = every_n_steps

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Check task and folder before the training begins."""
        task = require(LearnedImages, pl_module, self)
        if trainer.is_global_zero:
            check_destination(task.data.train_folder, self._folder(trainer), {"kind": "distilled"}, (STORED,))

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: object) -> None:
        """Show the images in TensorBoard."""
        if self.every_n_steps and trainer.global_step % self.every_n_steps == 0:
            task = require(LearnedImages, pl_module, self)
            for board in tensorboards(trainer):
                grid = make_grid(task.pixels().clamp(0, 1), nrow=task.learned.ipc)
                board.add_image("images", grid, trainer.global_step)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the set."""
        if not trainer.is_global_zero:
            return
        task, destination = require(LearnedImages, pl_module, self), self._folder(trainer)
        images = (task.decoded() * 255).round().to(torch.uint8).cpu()
        count = len(images) // len(task.labels)
        records = [
            ImageRecord(f"{label}/{number:05d}.png", label, readable_name(label), number)
            for label in task.labels
            for number in range(count)
        ]
        card, stored = _card(task, trainer), task.pixels().float()
        unfinished = begin_set(destination, card, key=None)
        for record, image in zip(records, images, strict=True):
            write_png(unfinished.folder / record.file_name, image)
        finish_set(unfinished, records, card, destination, {STORED: lambda folder: _write(folder / STORED, stored)})

    def _folder(self, trainer: L.Trainer) -> Path:
        return Path(trainer.default_root_dir, FOLDER).absolute()


def _write(path: Path, stored: Tensor) -> None:
    write_tensors(path, {"images": stored})


def _card(task: LearnedImages, trainer: L.Trainer) -> Mapping[str, Any]:
    """Card of the set. Many clamped pixels raise a warning, since accuracies of the stored images are others."""
    data, pixels = task.data, task.pixels()
    outside = float(share_outside(pixels))
    if outside > MUCH:
        warnings.warn(
            f"{outside:.1%} of the pixels lie outside [0, 1] and are clamped in the PNG files; images.safetensors has "
            "them as they were learned. Set images.range to step to keep them inside",
            stacklevel=2,
        )
    source = {"role": "train", "folder": data.train_folder.name, "card": read_card(data.train_folder)}
    learned = task.learned
    return {
        "name": FOLDER,
        "kind": "distilled",
        "labels": {label: readable_name(label) for label in task.labels},
        "settings": {
            "task": {"class": type(task).__name__, **task.hparams},
            "image_size": task.side,
            "channels": data.channels,
            "steps": trainer.global_step,
            "precision": str(trainer.precision),
        },
        "stored": {"ipc": learned.ipc, "factor": learned.factor, "images_per_class": learned.ipc * learned.factor**2},
        "clamped": {"share": outside, "lowest": float(pixels.min()), "highest": float(pixels.max())},
        "versions": versions(),
        "provenance": [source],
        "licences": licences_of(data.train_folder, task.labels),
    }
