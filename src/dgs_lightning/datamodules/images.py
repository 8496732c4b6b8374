"""Images in class folders, as batches: shuffled to train classifiers, or in order to validate, score or encode."""

import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import lightning as L
import torch
from PIL import Image
from torch import Tensor

from dgs_lightning.bounds import Between, Group, OneOf, check_bounds, save_settings
from dgs_lightning.data.cards import read_card
from dgs_lightning.data.classes import check_labels
from dgs_lightning.data.folders import read_set
from dgs_lightning.data.images import ImageSet, channels_of, check_sample, load_image
from dgs_lightning.data.records import ImageRecord
from dgs_lightning.data.splits import folds_of
from dgs_lightning.data.transforms import CropToBytes
from dgs_lightning.data.trees import Links
from dgs_lightning.data.writing import name_in_class
from dgs_lightning.datamodules.batches import (
    BatchLoader,
    Decoded,
    Streamed,
    check_shareable,
    place_of,
    settled_batch_size,
    shuffled_batches,
)
from dgs_lightning.errors import InputError, listed

MEMORY = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")  # bytes
MEMORY_SHARE = 0.25  # largest share of it for one decoded set
BatchSize = Annotated[int, Between(1, 1_000_000)]
Size = Annotated[int | None, Between(1, 16384)]
Channels = Annotated[int | None, OneOf(1, 3)]


@dataclass(frozen=True)
class Folds(Group):
    """Cross-fitting: training leaves out one of several folds of the images.

    Args:
        folds: Number of folds. By default training uses all images.
        fold: The fold that training leaves out, from 0.
    """

    folds: Annotated[int | None, Between(2, 1000)] = None
    fold: int | None = None

    @classmethod
    def check_combination(cls, settings: Mapping[str, Any]) -> None:
        """Check that the fold exists, and that both settings are given or none."""
        folds, fold = settings["folds"], settings["fold"]
        if (fold is None) != (folds is None) or not 0 <= (fold or 0) < (folds or 1):
            raise InputError.setting("fold", fold, "one of the folds")


@dataclass(frozen=True)
class Loading(Group):
    """How images are read. It changes the speed, but not the batches.

    Args:
        in_memory: Keep the decoded images in memory; ``auto`` does if they take at most a quarter of it.
        num_workers: Processes that decode the images of batches that are not kept in memory. With 0, threads of this
            process decode the next batch while one is used.
        links: ``follow`` reads what links in the folders lead to; see ``dgs_lightning.data.folders.read_set``. By
            default, links to folders and out of them are an error.
    """

    in_memory: Literal["auto"] | bool = "auto"
    num_workers: Annotated[int, Between(0, 1024)] = 0
    links: Links = "refuse"


def whole_and_subsets(val: str | list[str] | None) -> tuple[str | None, list[str]]:
    """Folder of all validation images, and folders of subsets of them, from the setting ``val``."""
    folders = val if isinstance(val, list) else [val] if val else []
    return (folders[0] if folders else None), folders[1:]


class ImageDataModule(L.LightningDataModule):
    """Batches of the images in class folders.

    ``fit`` and ``validate`` serve ``(images, label positions)``: float32 images ``(B, C, S, S)`` in [0, 1] without
    augmentation, and the positions of their classes in ``labels``. ``predict`` serves ``(images, record positions,
    label positions)`` in the order of ``predict_records``. If the task has a function ``preprocess`` from an RGB
    picture to a tensor or a tuple of tensors, the images of ``predict`` are its results.

    Args:
        train: Image set for training.
        val: Image set for validation and testing. In a list, the further folders are subsets of the first one, as
            ``dgs select`` makes them. Each subset has the name of its folder, and an accuracy of its own.
        predict: Image set to score or encode.
        image_size: Side in pixels; by default that of a prepared set, else the shorter side of the first image.
        channels: 1 for grey, 3 for RGB; by default 1 if all images are grey.
        crop: How the centre square is cut: ``plain`` (bilinear, the downstream protocol) or ``adm`` (as DiTs expect).
        batch_size: Images in a training batch, over all devices; ``by_ipc`` for RDED's number, which follows from the
            images per class (:func:`~dgs_lightning.datamodules.batches.batch_size_by_ipc`).
        val_batch_size: Images in a batch for validation and prediction, on each device.
        labels: The classes in the order of label positions, or the name of a class list; by default the names of the
            folders, sorted.
        cross_fitting: The part of the training images that is left out.
        seed: Seed of the order of training images; by default that of the task.
        loading: How images are read.

    Attributes:
        train_records: The training images.
        val_records: The validation images.
        subsets: Names of the subsets of the validation images.
        predict_folder: The folder for ``predict``.
        predict_records: The images in it.

    Raises:
        InputError: If a setting is outside its limits.

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> from dgs_lightning.examples import write_images
        >>> with TemporaryDirectory() as folder:
        ...     data = ImageDataModule(train=write_images(folder), val=folder, batch_size=5)
        ...     data.setup("fit")
        ...     data.labels, [tuple(images.shape) for images, labels in data.train_dataloader()]
        (('cat', 'dog'), [(5, 1, 4, 4), (3, 1, 4, 4)])
    """

    def __init__(
        self,
        train: str | None = None,
        val: str | list[str] | None = None,
        predict: str | None = None,
        image_size: Size = None,
        channels: Channels = None,
        crop: Literal["plain", "adm"] = "plain",
        batch_size: Annotated[int | Literal["by_ipc"], Between(1, 1_000_000)] = 64,
        val_batch_size: BatchSize = 256,
        labels: str | list[str] | None = None,
        cross_fitting: Folds = Folds(),
        seed: int | None = None,
        loading: Loading = Loading(),
    ) -> None:
        super().__init__()
        save_settings(self)
        self.allow_zero_length_dataloader_with_multiple_devices = True
        whole, self._parts = whole_and_subsets(val)
        self.folders = {"train": train, "val": whole, "predict": predict}
        self.subsets = self._names_of_parts()
        self.cross_fitting, self.loading, self.seed = Folds.of(cross_fitting), Loading.of(loading), seed
        self._finished: set[int] = set()

    def setup(self, stage: str) -> None:
        """Read the image sets that a stage needs.

        Raises:
            InputError: If a set is not named, is broken, or has other classes.
        """
        if stage == "predict":
            self.predict_folder, self.predict_records = self._read("predict")
            self._describe(self.predict_folder, self.predict_records)
            return
        val_folder, self.val_records = self._read("val")
        if stage == "fit":
            folder, records = self._read("train")
            self._describe(folder, records)
            self.train_records = self._without_fold(records)
            self._train = self._images(folder, self.train_records)
            check_labels({record.label for record in self.val_records}, self.labels, val_folder)
        else:
            self._describe(val_folder, self.val_records)
        self._val = self._images(val_folder, self.val_records)
        self._members = self._members_of_parts(val_folder)

    def _read(self, name: str) -> tuple[Path, list[ImageRecord]]:
        """Folder and records of a set."""
        if (folder := self.folders[name]) is None:
            raise InputError.unset(f"data.{name}", "a folder of class folders", "FOLDER")
        return Path(folder), read_set(Path(folder), links=self.loading.links)

    def _names_of_parts(self) -> tuple[str, ...]:
        """Names of the subsets of the validation images."""
        names = tuple(Path(part).name for part in self._parts)
        if len(set(names)) < len(names):
            found = f"subsets named {', '.join(names)}"
            raise InputError.setting("data.val", found, "names that differ", "Rename a folder")
        return names

    def _members_of_parts(self, val_folder: Path) -> Tensor:
        """Which validation images are in which subset, shape ``(subsets, N)``."""
        names = [name_in_class(record) for record in self.val_records]
        members = torch.zeros(len(self._parts), len(names), dtype=torch.bool)
        for row, part in zip(members, self._parts, strict=True):
            own = {record.file_name for record in read_set(Path(part), links=self.loading.links)}
            if unknown := own - set(names):
                found = f"{len(unknown)} images that {val_folder} lacks, such as {min(unknown)!r}"
                raise InputError(part, found, "a subset of the validation images", "Select it from them again")
            if len(own) == len(names):
                found, expected = f"all {len(own)} images of {val_folder}", "a part of them"
                raise InputError(part, found, expected, "Select fewer images, or leave this subset out")
            row[:] = torch.tensor([name in own for name in names])
        return members

    def _describe(self, folder: Path, records: list[ImageRecord]) -> None:
        """Set labels, size and channels: those of the settings, else those of the images."""
        self.labels = check_labels({record.label for record in records}, self.hparams["labels"], folder)
        prepared = read_card(folder).get("settings", {})
        check_sample(folder, records)
        first = load_image(folder / records[0].file_name)
        self.image_size: int = self.hparams["image_size"] or prepared.get("image_size") or min(first.size)
        pictures = (load_image(folder / record.file_name) for record in records)
        known = self.hparams["channels"] or prepared.get("channels") or (3 if self._preprocess() else None)
        self.channels: int = known or channels_of(pictures)  # which reads all images if they are grey
        check_bounds(ImageDataModule, {"image_size": self.image_size, "channels": self.channels})

    def _preprocess(self) -> Callable[[Image.Image], Any] | None:
        """The task's own function from an RGB picture to the input of ``predict``, if it has one."""
        return getattr(self.trainer.lightning_module, "preprocess", None) if self.trainer else None

    def _without_fold(self, records: list[ImageRecord]) -> list[ImageRecord]:
        """The records without those of the fold that is left out."""
        folds, left_out = self.cross_fitting.folds, self.cross_fitting.fold
        if folds is None:
            return records
        left = [record for record, fold in zip(records, folds_of(records, folds), strict=True) if fold != left_out]
        if gone := sorted(set(self.labels) - {record.label for record in left}):
            found, expected = f"one image only of {listed(gone)}", "images of each class in two folds or more"
            raise InputError(self.folders["train"], found, expected, "Add images, or remove these classes")
        return left

    @property
    def train_images(self) -> int:
        """Number of training images."""
        return len(self.train_records)

    @property
    def train_batch_size(self) -> int:
        """Images in a training batch, over all devices."""
        return settled_batch_size(self.hparams["batch_size"], self.train_images, len(self.labels))

    @property
    def transform_name(self) -> str:
        """Size, channels and crop as text, for the cards of results."""
        return f"{self.image_size} px, {self.channels} channels, {self.hparams['crop']} centre crop"

    # ---- images ----------------------------------------------------------------------------------------------

    def _image_set(self, folder: Path, records: list[ImageRecord]) -> ImageSet:
        transform = CropToBytes(self.image_size, self.hparams["crop"])
        return ImageSet(folder, records, self.labels, transform, self.channels)

    def _images(self, folder: Path, records: list[ImageRecord]) -> Streamed | Decoded:
        """A set that is decoded batch by batch, or once into memory, on the GPU if it fits there."""
        images = self._image_set(folder, records)
        size = len(records) * self.channels * self.image_size**2  # bytes
        keep = self.loading.in_memory
        if keep is False or (keep == "auto" and size > MEMORY_SHARE * MEMORY):
            return Streamed(images)
        device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
        on_gpu = device.type == "cuda" and size <= MEMORY_SHARE * torch.cuda.mem_get_info(device)[0]
        return Decoded(images, device if on_gpu else torch.device("cpu"))

    # ---- loaders ---------------------------------------------------------------------------------------------

    def train_dataloader(self) -> BatchLoader:
        """Shuffled batches of this device.

        Raises:
            InputError: If the devices cannot share a batch equally.
        """
        rank, devices = place_of(self.trainer)
        count, size, seed = self.train_images, self.train_batch_size, self._seed()
        check_shareable(size, devices)

        def batches() -> list[Tensor]:
            return shuffled_batches(count, size, seed, self.trainer.current_epoch if self.trainer else 0, rank, devices)

        return BatchLoader(self._train, batches, self.loading.num_workers)

    def class_batches(self, most: int, size: int) -> BatchLoader:
        """Batches of the first ``most`` training images of each class, class by class; a batch has at most ``size``."""
        places = [
            [place for place, record in enumerate(self.train_records) if record.label == label] for label in self.labels
        ]
        batches = [batch for own in places for batch in torch.split(torch.tensor(own[:most]), size)]
        return BatchLoader(self._train, lambda: batches, self.loading.num_workers)

    def _seed(self) -> int:
        """Seed of the order of training images."""
        return int(self.seed) if self.seed is not None else self._task_seed() or 0

    def _task_seed(self) -> int | None:
        """The task's setting ``seed``, if it has one."""
        seed = self.trainer.lightning_module.hparams.get("seed") if self.trainer else None
        return None if seed is None else int(seed)

    def val_dataloader(self) -> BatchLoader:
        """Batches in order, each image once, shared by the devices."""
        batches = self._val_batches()
        return BatchLoader(self._val, lambda: batches, self.loading.num_workers)

    def _val_batches(self) -> tuple[Tensor, ...]:
        """Positions of the images in each validation batch of this device; a device without any would wait for ever."""
        rank, devices = place_of(self.trainer)
        size = min(self.hparams["val_batch_size"], max(1, len(self.val_records) // devices))
        return torch.split(torch.arange(len(self.val_records)), size)[rank::devices]

    def members(self, batch: int) -> Tensor:
        """Which images of a validation batch of this device, by its number, are in which subset: ``(subsets, B)``."""
        return self._members[:, self._val_batches()[batch]]

    def test_dataloader(self) -> BatchLoader:
        """The batches of :meth:`val_dataloader`."""
        return self.val_dataloader()

    # ---- prediction ------------------------------------------------------------------------------------------

    @property
    def predict_batches(self) -> tuple[Tensor, ...]:
        """Record positions of all batches. They do not depend on finished batches or the number of devices."""
        return torch.split(torch.arange(len(self.predict_records)), self.hparams["val_batch_size"])

    def leave_out(self, finished: Collection[int]) -> None:
        """Do not serve these batches again; the numbers are positions in :attr:`predict_batches`."""
        self._finished = set(finished)

    def predict_dataloader(self) -> BatchLoader:
        """Unfinished batches, shared by the devices."""
        rank, devices = place_of(self.trainer)
        images = self._image_set(self.predict_folder, self.predict_records)
        if preprocess := self._preprocess():
            images.transform, images.channels = preprocess, 3
        batches = [batch for number, batch in enumerate(self.predict_batches) if number not in self._finished]
        share, workers = batches[rank::devices], self.loading.num_workers
        return BatchLoader(Streamed(images), lambda: share, workers, with_positions=True)
