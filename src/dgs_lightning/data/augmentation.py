"""The downstream protocol's augmentation of whole batches.

A generator draws the parameters of each image, and pure functions apply them to the batch. All colour changes are
affine in the colour. They are therefore combined into one matrix for each image, its colour map.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy.special import betaincinv
from torch import Generator, Tensor

from dgs_lightning.bounds import AtLeast, Between, Group
from dgs_lightning.errors import InputError
from dgs_lightning.matching.siamese import PUBLISHED, apply, draw_one

CROP_RATIO = (3 / 4, 4 / 3)  # least and largest width to height, as in torchvision's RandomResizedCrop
CROP_ATTEMPTS = 10
BRIGHTNESS, CONTRAST, SATURATION = range(3)
GREY = (0.299, 0.587, 0.114)  # luma of ITU-R BT.601
# Principal components of ImageNet's colours (Krizhevsky et al., NIPS 2012): standard deviations; directions as columns.
LIGHTING_VALUES = (0.2175, 0.0188, 0.0045)
LIGHTING_VECTORS = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))


class Draws(NamedTuple):
    """Augmentation parameters of the B images of a batch."""

    boxes: Tensor  # crops (B, 4): top, left, height, width in whole pixels
    flips: Tensor  # whether an image is flipped left to right (B,)
    order: Tensor  # order of brightness (0), contrast (1) and saturation (2) (B, 3)
    strengths: Tensor  # weights of the references of brightness, contrast and saturation (B, 3)
    lighting: Tensor  # weights of the principal components of colour (B, 3)
    patches: Tensor  # order of f columns and of f rows of patches (B, 2, f)

    def to(self, device: torch.device) -> "Draws":
        """Move all parameters to a device."""
        return Draws(*(values.to(device, non_blocking=True) for values in self))


class CutMixDraw(NamedTuple):
    """CutMix parameters of a batch of B images."""

    partners: Tensor  # index of the image that each image's patch comes from (B,)
    box: tuple[int, int, int, int]  # top, left, bottom, right of the patch, equal in all images


@dataclass(frozen=True)
class Augmentation(Group):
    """Settings of the augmentation of training images. The defaults are the published ones.

    Args:
        crop_scale: Smallest and largest share of the area that a random crop keeps.
        flip: Flip every second image left to right; wrong for digits and letters.
        jitter: Largest change of brightness, contrast and saturation: the weight, of either sign, of their reference.
        lighting: Standard deviation of the weights of the principal components of colour.
        cutmix: Beta of CutMix, which mixes the images of every batch; 0 for no CutMix.
        patches: Columns and rows of patches that each image is cut into first. The columns are then put into a random
            order, and the rows into another (RDED, Sun et al., CVPR 2024). 1 for no shuffle.
        siamese: Operations of DSA, of which each batch gets one, with parameters of its own for each image. They take
            the place of crop, flip, jitter and lighting; ``cutmix`` stays.

    Raises:
        InputError: If a number is out of its range, or an operation is unknown.
    """

    crop_scale: Annotated[tuple[float, float], Between(0, 1, open="left")] = (0.5, 1.0)
    flip: bool = True
    jitter: Annotated[float, AtLeast(0)] = 0.4
    lighting: Annotated[float, AtLeast(0)] = 0.1
    cutmix: Annotated[float, AtLeast(0)] = 1.0
    patches: Annotated[int, Between(1, 64)] = 1
    siamese: tuple[str, ...] | None = None

    @classmethod
    def check_combination(cls, settings: Mapping[str, Any]) -> None:
        """Raise an InputError if the smallest crop is above the largest, or an operation of DSA is unknown."""
        check_strategy("siamese", settings["siamese"] or ())
        smallest, largest = settings["crop_scale"]
        if smallest > largest:
            raise InputError.setting("crop_scale", f"{smallest}, {largest}", "the smaller share first, such as 0.5, 1")

    def draw(self, count: int, size: int, generator: Generator) -> Draws:
        """Draw the parameters of ``count`` square images of side ``size``, which is at least ``patches``."""
        return Draws(
            boxes=draw_boxes(count, size // self.patches * self.patches, self.crop_scale, generator),
            flips=(torch.rand(count, generator=generator) < 0.5) & self.flip,
            order=torch.rand(count, 3, generator=generator).argsort(dim=1),
            strengths=(torch.rand(count, 3, generator=generator) * 2 - 1) * self.jitter,
            lighting=torch.randn(count, 3, generator=generator) * self.lighting,
            patches=draw_orders(count, self.patches, generator),
        )

    def __call__(self, images: Tensor, mean: Sequence[float], std: Sequence[float], generator: Generator) -> Tensor:
        """Draw the parameters of a batch ``(B, C, S, S)`` in ``[0, 1]``, augment and normalise it.

        Images stay in the precision that they have, also where the network computes in mixed precision.
        """
        count, size = len(images), images.shape[-1]
        with torch.autocast(images.device.type, enabled=False):
            if self.siamese is not None:
                return apply(normalise(images, mean, std), draw_one(self.siamese, count, size, generator))
            return augment(images, self.draw(count, size, generator).to(images.device), mean, std)


def check_strategy(name: str, strategy: Sequence[str]) -> None:
    """Raise an InputError if a setting of this name has operations that DSA does not have."""
    if unknown := [entry for entry in strategy if entry not in PUBLISHED]:
        raise InputError.choice(name, unknown[0], PUBLISHED)


def augment(images: Tensor, draws: Draws, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Shuffle patches, crop, flip, jitter the colours, add lighting and normalise, in this order. The shape stays.

    ``images`` have shape ``(B, C, S, S)`` and values in ``[0, 1]``. ``mean`` and ``std`` are those of each channel.
    """
    size = images.shape[-1]
    if draws.patches.shape[-1] > 1:
        images = shuffle_patches(images, draws.patches)
    images = crop_and_flip(images, draws.boxes, draws.flips, size)
    colours = jitter_map(images.mean(dim=(2, 3)), draws.order, draws.strengths)
    colours = add_lighting(colours, draws.lighting)
    means = F.pad(colours.new_tensor(mean)[:, None], (images.shape[1], 0))
    colours = (colours - means) / colours.new_tensor(std)[:, None]
    return torch.baddbmm(colours[:, :, -1:], colours[:, :, :-1], images.flatten(2)).view_as(images)


def normalise(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Subtract each channel's mean and divide by its standard deviation, without augmentation."""
    return (images - images.new_tensor(mean)[:, None, None]) / images.new_tensor(std)[:, None, None]


def draw_boxes(count: int, size: int, scale: tuple[float, float], generator: Generator) -> Tensor:
    """Draw boxes ``(count, 4)`` as torchvision's ``RandomResizedCrop`` does: the first of ten attempts that fits."""
    uniform = torch.rand(count, CROP_ATTEMPTS, 2, generator=generator)
    area = size**2 * (scale[0] + (scale[1] - scale[0]) * uniform[..., 0])
    low, high = np.log(CROP_RATIO)
    ratio = torch.exp(low + (high - low) * uniform[..., 1])
    sides = torch.stack([(area / ratio).sqrt().round(), (area * ratio).sqrt().round()], dim=-1)
    fits = ((sides > 0) & (sides <= size)).all(dim=-1)
    chosen = sides[torch.arange(count), fits.int().argmax(dim=1)]
    chosen[~fits.any(dim=1)] = size
    corners = (torch.rand(count, 2, generator=generator) * (size - chosen + 1)).floor()
    return torch.cat([corners, chosen], dim=1).long()


def draw_orders(count: int, patches: int, generator: Generator) -> Tensor:
    """Draw the orders ``(count, 2, patches)`` of the columns and of the rows of patches. One patch needs no draw."""
    if patches == 1:
        return torch.zeros(count, 2, 1, dtype=torch.int64)
    return torch.rand(count, 2, patches, generator=generator).argsort(dim=2)


def shuffle_patches(images: Tensor, orders: Tensor) -> Tensor:
    """Cut images into f columns of equal width and join these in another order, and then do so with f rows.

    One order holds for all columns and one for all rows, so that f!^2 of the f^2! orders of the patches are possible.
    This is the patch shuffle of RDED (Sun et al., CVPR 2024) as its code has it.

    Args:
        images: Images ``(B, C, H, W)``.
        orders: Column, and row, of each image that comes to each place, from left to right, and from top to bottom
            ``(B, 2, f)``.

    Returns:
        Images ``(B, C, H // f * f, W // f * f)``: a remainder at the right and at the bottom is left out.
    """
    (_, channels, height, width), patches = images.shape, orders.shape[-1]

    def positions(order: Tensor, side: int) -> Tensor:
        """Pixel of the image for each pixel of the result ``(B, side * f)``."""
        return (order[:, :, None] * side + torch.arange(side, device=order.device)).flatten(1)

    columns = positions(orders[:, 0], width // patches)[:, None, None]
    rows = positions(orders[:, 1], height // patches)[:, None, :, None]
    images = images.gather(3, columns.expand(-1, channels, height, -1))
    return images.gather(2, rows.expand(-1, channels, -1, images.shape[3]))


def crop_and_flip(images: Tensor, boxes: Tensor, flips: Tensor, size: int) -> Tensor:
    """Resize crops of images ``(B, C, S, S)`` to ``size``, bilinearly, and flip some, all in one resampling.

    ``boxes`` and ``flips`` are those of :class:`Draws`. The result equals torchvision's ``resized_crop``. Antialiasing
    makes no difference, since ``size`` is at least S, so that no crop is made smaller.
    """
    side = images.shape[-1]
    top_left, sides = boxes[:, :2, None].to(images), boxes[:, 2:, None].to(images)
    centres = (torch.arange(size, device=images.device, dtype=images.dtype) + 0.5) / size
    # Source pixel of each row and column (B, 2, S). The limits keep pixels outside the box out of the mix.
    source = (centres * sides - 0.5).clamp_min(0).minimum(sides - 1) + top_left
    rows, columns = ((source * 2 + 1) / side - 1).unbind(dim=1)
    columns = torch.where(flips[:, None], columns.flip(1), columns)
    grid = torch.stack([columns[:, None, :].expand(-1, size, -1), rows[:, :, None].expand(-1, -1, size)], dim=-1)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def jitter_map(means: Tensor, order: Tensor, strengths: Tensor) -> Tensor:
    """Colour map of brightness, contrast and saturation, each ``image.lerp(reference, weight)``, in each image's order.

    The reference of brightness is black, that of contrast is the image's mean grey, and that of saturation is the image
    in grey. An image of one channel equals its grey, so saturation does not change it.

    ``means`` are the means of each image's channels ``(B, C)``; ``order`` and ``strengths`` are those of
    :class:`Draws`. The maps have shape ``(B, C, C + 1)``: for each image a matrix and, as last column, an offset.
    """
    count, channels = means.shape
    grey = means.new_tensor(GREY) if channels == 3 else means.new_full((channels,), 1 / channels)
    colours = torch.eye(channels, channels + 1, dtype=means.dtype, device=means.device).expand(count, -1, -1)
    extended = torch.cat([means, torch.ones_like(means[:, :1])], dim=1)[:, :, None]
    for kind in order.unbind(dim=1):
        in_grey = grey @ colours  # (B, C + 1): grey as a map of the original colour
        mean_grey = F.pad(in_grey[:, None] @ extended, (channels, 0))[:, 0]  # a constant map
        reference = torch.where((kind == CONTRAST)[:, None], mean_grey, 0)
        reference = torch.where((kind == SATURATION)[:, None], in_grey, reference)
        weight = strengths.gather(1, kind[:, None])[:, :, None]
        colours = colours.lerp(reference[:, None].expand_as(colours), weight.to(colours))
    return colours


def add_lighting(colours: Tensor, lighting: Tensor) -> Tensor:
    """Add PCA lighting of weights ``(B, 3)`` to colour maps ``(B, C, C + 1)``. Only maps of three channels change.

    Krizhevsky et al., "ImageNet Classification with Deep Convolutional Neural Networks", NIPS 2012, Section 4.1.
    """
    if colours.shape[1] != 3:
        return colours
    vectors, values = colours.new_tensor(LIGHTING_VECTORS), colours.new_tensor(LIGHTING_VALUES)
    return colours + F.pad(((lighting * values) @ vectors.T)[:, :, None], (3, 0))


def draw_cutmix(count: int, size: int, beta: float, generator: Generator) -> CutMixDraw:
    """Draw a CutMix of ``count`` images of side ``size`` (Yun et al., "CutMix", ICCV 2019, Section 3).

    The share that an image keeps follows Beta(beta, beta) before the box is clipped at the border.
    """
    kept = float(betaincinv(beta, beta, torch.rand((), generator=generator, dtype=torch.float64).item()))
    side = int(size * (1 - kept) ** 0.5)
    top, left = ((torch.randint(size, (2,), generator=generator)) - side // 2).tolist()
    edges = (max(top, 0), max(left, 0), min(top + side, size), min(left + side, size))
    return CutMixDraw(torch.randperm(count, generator=generator), edges)


def cutmix(images: Tensor, draw: CutMixDraw) -> tuple[Tensor, float]:
    """Paste the box of its partner into each image ``(B, C, H, W)``; also return the share of an image that remains."""
    top, left, bottom, right = draw.box
    mixed = images.clone()
    mixed[:, :, top:bottom, left:right] = images[draw.partners.to(images.device), :, top:bottom, left:right]
    return mixed, 1 - (bottom - top) * (right - left) / (images.shape[2] * images.shape[3])
