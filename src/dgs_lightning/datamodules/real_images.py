"""Real images by class, for tasks that learn images of their own from them."""

from typing import Literal

import lightning as L
import torch
from torch import Tensor

from dgs_lightning.datamodules.images import Channels, ImageDataModule, Loading, Size
from dgs_lightning.errors import InputError

STEPS = 1000  # of an epoch; the trainer's max_steps ends a training


class RealImageDataModule(ImageDataModule):
    """Serves the images of a set by their positions. Tasks draw the positions themselves, by class.

    Args:
        train: Image set that the task learns from.
        image_size: Side in pixels; by default that of a prepared set, else the shorter side of the first image.
        channels: 1 for grey, 3 for RGB; by default 1 if all images are grey.
        crop: How the centre square is cut: ``plain`` (bilinear, the downstream protocol) or ``adm`` (as DiTs expect).
        labels: The classes in their order, or the name of a class list; by default the names of the folders, sorted.
        loading: How images are read.

    Attributes:
        train_folder: Folder of the set.
        train_records: The images.
        positions: For each class, the positions of its images among them.

    Raises:
        InputError: If a setting is outside its limits.

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> from dgs_lightning.examples import write_images
        >>> with TemporaryDirectory() as folder:
        ...     data = RealImageDataModule(write_images(folder))
        ...     data.setup("fit")
        ...     images, labels = data.real(data.positions[1])
        >>> images.shape, labels.tolist()
        (torch.Size([4, 1, 4, 4]), [1, 1, 1, 1])
    """

    def __init__(
        self,
        train: str | None = None,
        image_size: Size = None,
        channels: Channels = None,
        crop: Literal["plain", "adm"] = "plain",
        labels: str | list[str] | None = None,
        loading: Loading = Loading(),
    ) -> None:
        super().__init__(
            train=train, image_size=image_size, channels=channels, crop=crop, labels=labels, loading=loading
        )

    def setup(self, stage: str) -> None:
        """Read the images, once into memory if they fit there.

        Raises:
            InputError: If the set is not named, is broken, or has other classes.
        """
        self.train_folder, self.train_records = self._read("train")
        self._describe(self.train_folder, self.train_records)
        self._train = self._images(self.train_folder, self.train_records)
        classes = torch.tensor([self.labels.index(record.label) for record in self.train_records])
        self.positions = [torch.nonzero(classes == number).flatten() for number in range(len(self.labels))]

    def real(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Images ``(B, C, S, S)`` in [0, 1] at some positions, and the positions of their classes in the labels."""
        batch = self._train[positions]
        if isinstance(batch, InputError):
            raise batch
        images, classes = batch
        return images.float() / 255, classes

    val_dataloader = L.LightningDataModule.val_dataloader  # there are no others

    def train_dataloader(self) -> range:  # type: ignore[override]
        """Numbers: the task draws its images by name, for its own step."""
        return range(STEPS)
