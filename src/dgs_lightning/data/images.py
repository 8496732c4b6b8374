"""Images in memory: one file as an 8-bit image, and an image set as a torch dataset."""

import hashlib
import io
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import Dataset

from dgs_lightning.data.records import ImageRecord
from dgs_lightning.errors import BrokenFile, InputError
from dgs_lightning.files import reading, replacing

Range = tuple[float, float]  # the value that becomes black, and the one that becomes white
FULL = (0, 65535)  # of 16 bits
BRIGHT = 2**15  # values of 16 bits that all lie below it have fewer bits, or are nearly black
SAMPLE = 24  # images that are looked at where all would take too long
_EXPECTED, _REMEDY = "an image with 8 or 16 bits a channel", "Replace or remove the file"


def load_image(
    path: Path, channels: int = 3, value_range: Range | None = None, content: bytes | None = None
) -> Image.Image:
    """Read an image file as 8-bit grey (1 channel) or RGB (3 channels).

    The image is turned as its EXIF data say. Transparent parts become white, and the first frame of an animation is
    taken.

    Args:
        path: The file.
        channels: 1 for grey, 3 for RGB.
        value_range: The values of grey images with more than 8 bits that become black and white; values outside are
            cut off. By default 0 and 65,535. Other images are not changed by it.
        content: The bytes of the image, if it lies in a file with others; ``path`` then names it in errors.

    Raises:
        InputError: If the file cannot be read or is no whole image; or if, without `value_range`, it has values outside
            of 16 bits or floating-point values.
    """
    with reading(path, _EXPECTED, _REMEDY, "no readable image"), Image.open(_opened(path, content)) as file:
        image = ImageOps.exif_transpose(file)
        if image.mode.startswith(_DEEP):
            image = _scaled(image, value_range, path)
        elif image.has_transparency_data:
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
        return image.convert("L" if channels == 1 else "RGB")


def _opened(path: Path, content: bytes | None) -> Path | io.BytesIO:
    """What Pillow opens."""
    return path if content is None else io.BytesIO(content)


def save_png(path: Path, image: Image.Image) -> str:
    """Write an image as PNG, whole or not at all, and return the SHA-256 of the file."""
    content = encoded(image)
    with replacing(path) as partial:
        partial.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def encoded(image: Image.Image, quality: int | None = None) -> bytes:
    """The content of a PNG file, or with a quality from 1 to 95 of a JPEG file."""
    content = io.BytesIO()  # in memory, since Pillow hides the error number of a full disk
    if quality is None:
        image.save(content, "PNG")
    else:
        image.save(content, "JPEG", quality=quality)
    return content.getvalue()


def picture(pixels: Tensor) -> Image.Image:
    """An 8-bit image ``(1 or 3, H, W)`` for a file."""
    return Image.fromarray((pixels[0] if len(pixels) == 1 else pixels.permute(1, 2, 0)).numpy())


_DEEP = ("I", "F")  # Pillow's modes of grey images with more than 8 bits begin so


def _scaled(image: Image.Image, value_range: Range | None, path: Path) -> Image.Image:
    """A grey image with more than 8 bits as one with 8."""
    values = np.asarray(image).astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("values that are no numbers")
    found = Values(values.min(), values.max(), path)
    if value_range is None and (image.mode == "F" or not FULL[0] <= found.low <= found.high <= FULL[1]):
        raise _not_of_16_bits(path, found)
    low, high = value_range or FULL
    return Image.fromarray(np.clip((values - low) * (255 / (high - low)), 0, 255).round().astype(np.uint8))


class Values(NamedTuple):
    """The lowest and the highest value in one or more images with more than 8 bits a channel."""

    low: float
    high: float
    example: Path  # one of the images
    colour: bool = False  # of which Pillow reads the upper 8 bits alone


def values_of(path: Path) -> Values | None:
    """The values of an image with more than 8 bits a channel; none for one with 8, or for a broken file."""
    with suppress(BrokenFile), reading(path, _EXPECTED), Image.open(path) as file:
        if file.mode.startswith(_DEEP):
            low, high = float((pixels := np.asarray(file)).min()), float(pixels.max())
            return Values(low, high, path) if np.isfinite([low, high]).all() else None
        if ";16" in str(file.tile):
            return Values(0, 257 * int(np.asarray(file.convert("RGB")).max()), path, colour=True)
    return None


def why_not_of_16_bits(found: Iterable[Values | None], where: Path, value_range: Range | None) -> InputError | None:
    """The error of images whose values would be nearly black or cut off, were 0 black and 65,535 white; else none.

    Args:
        found: The values of each image, of :func:`values_of`.
        where: Folder of the images.
        value_range: The setting of :func:`load_image`, which colours do not heed.
    """
    deep = [values for values in found if values is not None and (values.colour or value_range is None)]
    for colour in (False, True):
        if group := [values for values in deep if values.colour == colour]:
            low, high = min(values.low for values in group), max(values.high for values in group)
            all_of = Values(low, high, group[0].example, colour)
            if all_of.low < FULL[0] or not BRIGHT <= all_of.high <= FULL[1]:
                return _not_of_16_bits(where, all_of)
    return None


def check_sample(folder: Path, records: Sequence[ImageRecord]) -> None:
    """Check the values of some images that are read as they are.

    Raises:
        InputError: If they would be nearly black or cut off; see :func:`why_not_of_16_bits`.
    """
    if error := why_not_of_16_bits((values_of(folder / each.file_name) for each in sample(records)), folder, None):
        raise error


def sample(records: Sequence[ImageRecord]) -> Sequence[ImageRecord]:
    """At most ``SAMPLE`` images of a set, evenly spaced."""
    return records[:: max(1, len(records) // SAMPLE)][:SAMPLE]


def _not_of_16_bits(where: Path, found: Values) -> InputError:
    """The error about such values, with a range for them."""
    said = f"values from {found.low:,g} to {found.high:,g} in images with more than 8 bits a channel"
    said += "" if where == found.example else f", such as {found.example}"
    expected = f"values that fill 16 bits, up to {FULL[1]:,}"
    if found.colour:
        remedy = "Scale the images to 16 bits or save them with 8: of colours, the upper 8 of 16 bits are read"
        return InputError(where, said, expected, remedy)
    low, high = found[:2]
    if low >= 0 and high <= FULL[1] and high == int(high):
        low, high = 0, 2 ** max(8, int(high).bit_length()) - 1
    offered = ", ".join(str(int(value) if value == int(value) else value) for value in (low, high))
    remedy = (
        f"Say which values are black and white: dgs prepare --value_range='[{offered}]', or in an experiment "
        f"--set 'prepare.value_range=[{offered}]'. {list(FULL)} keeps the values as they are"
    )
    return InputError(where, said, f"{expected}, or value_range", remedy)


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
