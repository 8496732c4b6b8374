"""Images in memory: one file as an 8-bit image, and an image set as a torch dataset."""

import hashlib
import io
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from torch.utils.data import Dataset

from dgs_lightning.data.records import ImageRecord
from dgs_lightning.files import reading, replacing


def load_image(path: Path, channels: int = 3) -> Image.Image:
    """Read an image file as 8-bit grey (1 channel) or RGB (3 channels).

    The image is turned as its EXIF data say. Transparent parts become white, 16-bit grey is scaled to 8 bits, and the
    first frame of an animation is taken.

    Raises:
        InputError: If the file cannot be read, is no whole image, or has floating-point pixels.
    """
    expected, remedy = "an image with 8 or 16 bits a channel", "Replace or remove the file"
    with reading(path, expected, remedy, "no readable image"), Image.open(path) as file:
        image = ImageOps.exif_transpose(file)
        return _eight_bit(image).convert("L" if channels == 1 else "RGB")


def save_png(path: Path, image: Image.Image) -> str:
    """Write an image as PNG, whole or not at all, and return the SHA-256 of the file."""
    encoded = io.BytesIO()  # Pillow hides the error number of a full disk
    image.save(encoded, "PNG")
    with replacing(path) as partial:
        partial.write_bytes(encoded.getbuffer())
    return hashlib.sha256(encoded.getbuffer()).hexdigest()


def _eight_bit(image: Image.Image) -> Image.Image:
    """The image with 8 bits a channel and without transparency."""
    if image.mode == "F":
        raise ValueError("floating-point pixels have no agreed range")
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow may hold in 32 bits
        pixels = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
        return Image.fromarray(((pixels + 128) // 257).astype(np.uint8))
    if image.has_transparency_data:
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return image


def is_grey(image: Image.Image) -> bool:
    """Whether an RGB image has no colour."""
    pixels = np.asarray(image)
    return bool((pixels == pixels[..., :1]).all())


def channels_of(images: Iterable[Image.Image]) -> int:
    """1 if all RGB images are grey, else 3. No image after the first one in colour is read."""
    return 1 if all(is_grey(image) for image in images) else 3


class ImageSet(Dataset[tuple[Any, int]]):
    """A dataset of images and the positions of their labels in ``labels``.

    Args:
        folder: Folder that the records' file names are relative to.
        records: The images.
        labels: All labels.
        transform: Function from an image to the input of the model.
        channels: 1 for grey, 3 for RGB.
    """

    def __init__(
        self,
        folder: Path,
        records: Sequence[ImageRecord],
        labels: Sequence[str],
        transform: Callable[[Image.Image], Any],
        channels: int = 3,
    ) -> None:
        self.folder, self.records, self.transform, self.channels = folder, records, transform, channels
        self.positions = {label: position for position, label in enumerate(labels)}

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        """The transformed image and its label's position. A file that cannot be read raises an InputError."""
        record = self.records[index]
        image = load_image(self.folder / record.file_name, self.channels)
        return self.transform(image), self.positions[record.label]
