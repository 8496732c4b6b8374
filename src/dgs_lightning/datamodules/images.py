"""Class-folder trees of images: to train and validate classifiers, and one after the other to score or encode them."""

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import lightning as L
import torch
from torch import Tensor

from dgs_lightning.bounds import Ranged
from dgs_lightning.data.cards import read_card
from dgs_lightning.data.classes import check_labels
from dgs_lightning.data.folders import read_set
from dgs_lightning.data.images import ImageSet, channels_of, load_image
from dgs_lightning.data.records import ImageRecord
from dgs_lightning.data.splits import folds_of
from dgs_lightning.data.transforms import CropToBytes
from dgs_lightning.datamodules.batches import BatchLoader, Decoded, Streamed, check_shareable, shuffled_batches
from dgs_lightning.errors import InputError

MEMORY = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")  # bytes
MEMORY_SHARE = 0.25  # of it that a set which is kept decoded may take


class ImageDataModule(L.LightningDataModule, Ranged):
    """Images of class folders.

    ``fit`` and ``validate`` serve ``(images, label positions)``: float32 ``(B, C, S, S)`` in [0, 1], the same picture
    each time, and positions in ``labels``. ``predict`` serves ``(images, record positions, label positions)`` in the
    order of ``predict_records``; a task with a function ``preprocess`` from an RGB picture to a tensor, or a tuple of
    them, gets what that makes of each file instead.

    Args:
        train: Image set to train on.
        val: Image set to validate and test on.
        predict: Image set to score or encode.
        image_size: Side in pixels; by default that of the first image.
        channels: 1 for grey, 3 for RGB; by default 1 where all images are grey.
        crop: How the centre square is cut: ``plain`` (bilinear, the downstream protocol) or ``adm`` (as DiTs expect).
        batch_size: Images of a training batch, over all devices.
        val_batch_size: Images of a batch for validation and prediction, for each device.
        labels: The classes, or the name of a class list; by default those of the folders, sorted.
        folds: Number of folds for cross-fitting; none: train on all images.
        fold: The fold that training leaves out.
        seed: Seed of the order of training images; by default that of the task.
        in_memory: Keep the images decoded; ``auto`` does where they take a quarter of the memory at most.
        num_workers: Processes that decode images which are not kept.

    Attributes:
        labels: All classes, in the order of label positions.
        train_records: The training images.
        val_records: The validation images.
        predict_folder: The folder for ``predict``.
        predict_records: Its images.
    """

    labels: tuple[str, ...]
    image_size: int
    channels: int
    train_records: list[ImageRecord]
    val_records: list[ImageRecord]
    predict_folder: Path
    predict_records: list[ImageRecord]

    RANGES: ClassVar[Mapping[str, str]] = {
        "image_size": "[1, 16384]",
        "batch_size": "[1, 1000000]",
        "val_batch_size": "[1, 1000000]",
        "folds": "[2, 1000]",
        "num_workers": "[0, 1024]",
    }

    def __init__(
        self,
        train: str | None = None,
        val: str | None = None,
        predict: str | None = None,
        image_size: int | None = None,
        channels: int | None = None,
        crop: Literal["plain", "adm"] = "plain",
        batch_size: int = 64,
        val_batch_size: int = 256,
        labels: str | list[str] | None = None,
        folds: int | None = None,
        fold: int | None = None,
        seed: int | None = None,
        in_memory: Literal["auto"] | bool = "auto",
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.allow_zero_length_dataloader_with_multiple_devices = True
        self._finished: set[int] = set()
        self.check_settings(self.hparams)

    @classmethod
    def check_settings(cls, settings: Mapping[str, Any]) -> None:
        """Refuse settings that no images could go with.

        Raises:
            InputError: If a number is out of its range.
        """
        super().check_settings(settings)
        channels, folds, fold = (settings.get(name) for name in ("channels", "folds", "fold"))
        for name, valid, expected in (
            ("channels", channels in (None, 1, 3), "1 or 3"),
            ("fold", (fold is None) == (folds is None) and 0 <= (fold or 0) < (folds or 1), "one of the folds"),
        ):
            if not valid:
                raise InputError(name, found=str(settings[name]), expected=expected, remedy="Correct the setting")

    # ---- what there is ---------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Read the sets that a stage needs.

        Raises:
            InputError: If one is not named, is broken, or has other classes.
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

    def _read(self, name: str) -> tuple[Path, list[ImageRecord]]:
        """Folder and records of a set."""
        if self.hparams[name] is None:
            raise InputError(
                f"data.{name}", found="nothing", expected="a folder of class folders", remedy=f"Set data.{name}=FOLDER"
            )
        folder = Path(self.hparams[name])
        return folder, read_set(folder)

    def _describe(self, folder: Path, records: list[ImageRecord]) -> None:
        """Find out labels, size and channels where the settings leave them open."""
        self.labels = check_labels({record.label for record in records}, self.hparams["labels"], folder)
        prepared = read_card(folder).get("settings", {})
        first = load_image(folder / records[0].file_name)
        self.image_size = self.hparams["image_size"] or prepared.get("image_size") or min(first.size)
        pictures = (load_image(folder / record.file_name) for record in records)
        self.channels = self.hparams["channels"] or prepared.get("channels") or channels_of(pictures)
        ImageDataModule.check_settings({"image_size": self.image_size, "channels": self.channels})

    def _without_fold(self, records: list[ImageRecord]) -> list[ImageRecord]:
        if self.hparams["folds"] is None:
            return records
        folds = folds_of(records, self.hparams["folds"])
        left = [record for record, fold in zip(records, folds, strict=True) if fold != self.hparams["fold"]]
        if gone := sorted(set(self.labels) - {record.label for record in left}):
            raise InputError(
                self.hparams["train"],
                found=f"one image only of {', '.join(gone[:10])}",
                expected="images of every class, whichever fold is left out",
                remedy="Add images, or remove these classes",
            )
        return left

    @property
    def train_images(self) -> int:
        """Number of training images."""
        return len(self.train_records)

    @property
    def transform_name(self) -> str:
        """Size, channels and crop in words, for what depends on them."""
        return f"{self.image_size} px, {self.channels} channels, {self.hparams['crop']} centre crop"

    # ---- images ----------------------------------------------------------------------------------------------

    def _image_set(self, folder: Path, records: list[ImageRecord]) -> ImageSet:
        transform = CropToBytes(self.image_size, self.hparams["crop"])
        return ImageSet(folder, records, self.labels, transform, self.channels)

    def _images(self, folder: Path, records: list[ImageRecord]) -> Streamed | Decoded:
        """A set in memory, on the device where it fits, or streamed."""
        images = self._image_set(folder, records)
        size = len(records) * self.channels * self.image_size**2
        keep = self.hparams["in_memory"]
        if keep is False or (keep == "auto" and size > MEMORY_SHARE * MEMORY):
            return Streamed(images)
        device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
        on_gpu = device.type == "cuda" and size <= MEMORY_SHARE * torch.cuda.mem_get_info(device)[0]
        return Decoded(images, device if on_gpu else torch.device("cpu"))

    @property
    def _place(self) -> tuple[int, int]:
        """Number of this device, and of all."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    # ---- loaders ---------------------------------------------------------------------------------------------

    def train_dataloader(self) -> BatchLoader:
        """Shuffled batches of this device.

        Raises:
            InputError: If the devices cannot share a batch equally.
        """
        rank, devices = self._place
        count, size = len(self.train_records), self.hparams["batch_size"]
        check_shareable(size, devices)
        seed = self._seed()
        return BatchLoader(
            self._train,
            lambda: shuffled_batches(
                count, size, seed, self.trainer.current_epoch if self.trainer else 0, rank, devices
            ),
            self.hparams["num_workers"],
        )

    def _seed(self) -> int:
        if self.hparams["seed"] is not None:
            return int(self.hparams["seed"])
        return self._task_seed() or 0

    def _task_seed(self) -> int | None:
        """The seed among the settings of the module that trains, which may be anybody's."""
        seed = self.trainer.lightning_module.hparams.get("seed") if self.trainer else None
        return None if seed is None else int(seed)

    def val_dataloader(self) -> BatchLoader:
        """Batches in order, each image once, shared by the devices."""
        rank, devices = self._place
        batches = torch.split(torch.arange(len(self.val_records)), self.hparams["val_batch_size"])[rank::devices]
        return BatchLoader(self._val, lambda: batches, self.hparams["num_workers"])

    def test_dataloader(self) -> BatchLoader:
        """The same."""
        return self.val_dataloader()

    # ---- predict ---------------------------------------------------------------------------------------------

    @property
    def predict_batches(self) -> tuple[Tensor, ...]:
        """Record positions of all batches: fixed by the records, whatever is finished and however many devices."""
        return torch.split(torch.arange(len(self.predict_records)), self.hparams["val_batch_size"])

    def leave_out(self, finished: Collection[int]) -> None:
        """Do not serve these batches again, by their numbers in :attr:`predict_batches`."""
        self._finished = set(finished)

    def predict_dataloader(self) -> BatchLoader:
        """Unfinished batches, shared by the devices."""
        rank, devices = self._place
        images = self._image_set(self.predict_folder, self.predict_records)
        preprocess = getattr(self.trainer.lightning_module, "preprocess", None) if self.trainer else None
        if preprocess is not None:
            images.transform, images.channels = preprocess, 3
        batches = [batch for number, batch in enumerate(self.predict_batches) if number not in self._finished]
        return BatchLoader(
            Streamed(images), lambda: batches[rank::devices], self.hparams["num_workers"], with_positions=True
        )
