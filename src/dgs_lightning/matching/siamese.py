"""Differentiable siamese augmentation: draws, and functions that apply them to batches of normalised images.

Zhao and Bilen, "Dataset Condensation with Differentiable Siamese Augmentation", ICML 2021. Real and synthetic images
get the same draws. A draw is a raw random number, and an operation makes a strength, an angle or a place of it. A draw
has shape ``(1,)`` if all images of the batch share it, else ``(B,)``.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

PUBLISHED = ("color", "crop", "cutout", "flip", "scale", "rotate")  # the published strategy, in its order
COLOR = ("brightness", "saturation", "contrast")  # what the entry ``color`` stands for, in this order
PLACES = ("crop", "scale", "rotate")  # IDC takes one of these that are in its strategy
CROP, CUTOUT = 1 / 8, 1 / 2  # largest shift, and side of the hole, as shares of an image's side
SCALE = 1.2  # largest stretch; the smallest is its inverse
ANGLE = 15.0  # largest angle in degrees


class Draw(NamedTuple):
    """One operation and its raw random numbers, in their order: rows before columns, but width before height."""

    operation: str
    values: tuple[Tensor, ...]


# ---- operations: from images (B, C, H, W) and draws to images of the same shape -----------------------------------


def _each(draw: Tensor, images: Tensor) -> Tensor:
    """A draw, to be broadcast over images."""
    return draw.to(images)[:, None, None, None]


def brightness(images: Tensor, u: Tensor) -> Tensor:
    """Add ``u - 1/2``."""
    return images + (_each(u, images) - 0.5)


def saturation(images: Tensor, u: Tensor) -> Tensor:
    """Multiply by ``2 u`` the difference of each pixel from the mean of its channels."""
    mean = images.mean(dim=1, keepdim=True)
    return (images - mean) * (2 * _each(u, images)) + mean


def contrast(images: Tensor, u: Tensor) -> Tensor:
    """Multiply by ``u + 1/2`` the difference of each pixel from the mean of its image, over all channels."""
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return (images - mean) * (_each(u, images) + 0.5) + mean


def crop(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Shift images by whole pixels, up and to the left; what comes in from outside is 0, the mean colour."""
    height, width = images.shape[2:]
    down, right = largest_shift(height), largest_shift(width)
    padded = F.pad(images, (right, right, down, down))
    parts = torch.split(padded, 1) if len(rows) > 1 else [padded]
    corners = zip(parts, (rows + down).tolist(), (columns + right).tolist(), strict=True)
    return torch.cat([part[:, :, top : top + height, left : left + width] for part, top, left in corners])


def cutout(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Set a square around a place to 0, as far as it is inside."""
    inside = (_in_hole(place, side, images) for place, side in zip((rows, columns), images.shape[2:], strict=True))
    by_row, by_column = inside
    return images * ~(by_row[:, None, :, None] & by_column[:, None, None, :])


def _in_hole(place: Tensor, side: int, images: Tensor) -> Tensor:
    """Which of the rows, or columns, are in the hole, shape ``(1 or B, side)``."""
    hole = hole_of(side)
    first = (place.to(images.device) - hole // 2)[:, None]
    lines = torch.arange(side, device=images.device)
    return (lines >= first) & (lines < first + hole)


def flip(images: Tensor, u: Tensor) -> Tensor:
    """Flip an image left to right if ``u`` is below a half."""
    return torch.where(_each(u, images) < 0.5, images.flip(3), images)


def scale(images: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """Stretch the sampling grid by 1/1.2 to 1.2: its width by ``u``, its height by ``v``. Above 1, pictures shrink."""
    x, y = (draw.to(images) * (SCALE - 1 / SCALE) + 1 / SCALE for draw in (u, v))
    zero = torch.zeros_like(x)
    return _sample(images, ((x, zero), (zero, y)))


def rotate(images: Tensor, u: Tensor) -> Tensor:
    """Rotate the sampling grid by ``2 u - 1`` times 15 degrees."""
    angle = (u.to(images) - 0.5) * 2 * math.radians(ANGLE)
    cos, sin = angle.cos(), angle.sin()
    return _sample(images, ((cos, -sin), (sin, cos)))


def _sample(images: Tensor, matrix: tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]) -> Tensor:
    """Sample images bilinearly on a grid that a matrix makes of theirs; outside, they are 0."""
    theta = torch.stack([torch.stack([*row, torch.zeros_like(row[0])], dim=1) for row in matrix], dim=1)
    grid = F.affine_grid(theta, [len(theta), *images.shape[1:]], align_corners=False)
    return F.grid_sample(images, grid.expand(len(images), -1, -1, -1), align_corners=False)


OPERATIONS: Mapping[str, Callable[..., Tensor]] = {
    function.__name__: function for function in (brightness, saturation, contrast, crop, cutout, flip, scale, rotate)
}


def apply(images: Tensor, draws: Sequence[Draw]) -> Tensor:
    """Images ``(B, C, H, W)`` after all operations of some draws, one after the other."""
    for operation, values in draws:
        images = OPERATIONS[operation](images, *values)
    return images


# ---- draws ---------------------------------------------------------------------------------------------------------


def largest_shift(side: int) -> int:
    """Pixels by which ``crop`` shifts an image at most."""
    return math.floor(side * CROP + 0.5)


def hole_of(side: int) -> int:
    """Side of the hole of ``cutout`` in pixels."""
    return math.floor(side * CUTOUT + 0.5)


def draw_operation(name: str, count: int, side: int, generator: Generator) -> Draw:
    """Draw the numbers of one operation for ``count`` square images; 1 for numbers that a whole batch shares."""
    if name == "crop":
        low, high = -largest_shift(side), largest_shift(side)
    elif name == "cutout":
        low, high = 0, side - hole_of(side) % 2
    else:
        numbers = 2 if name == "scale" else 1
        return Draw(name, tuple(torch.rand(count, generator=generator) for _ in range(numbers)))
    return Draw(name, tuple(torch.randint(low, high + 1, (count,), generator=generator) for _ in range(2)))


def draw_one(strategy: Sequence[str], count: int, side: int, generator: Generator) -> list[Draw]:
    """Draw one entry of a strategy, as DSA and DM do. ``color`` is one entry of three operations.

    Args:
        strategy: Entries of ``PUBLISHED``; nothing is drawn without any.
        count: 1 for numbers that a batch shares, else the number of its images.
        side: Side of the images in pixels.
        generator: Source of the draws.
    """
    if not strategy:
        return []
    entry = strategy[int(torch.randint(len(strategy), (), generator=generator))]
    return [draw_operation(name, count, side, generator) for name in (COLOR if entry == "color" else (entry,))]


def draw_in_turn(strategy: Sequence[str], count: int, side: int, generator: Generator) -> list[Draw]:
    """Draw several entries of a strategy, as IDC does: flip, color, one of crop, scale and rotate, and cutout.

    The arguments are those of :func:`draw_one`. Entries that are not in the strategy are left out.
    """
    places = [name for name in PLACES if name in strategy]
    names = [name for entry, names in (("flip", ("flip",)), ("color", COLOR)) if entry in strategy for name in names]
    if places:
        names.append(places[int(torch.randint(len(places), (), generator=generator))])
    names += ["cutout"] if "cutout" in strategy else []
    return [draw_operation(name, count, side, generator) for name in names]
