"""Square crops of images, and pictures that are put together from them (RDED)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Generator, Tensor
from torchvision.transforms.functional import resized_crop

from dgs_lightning.matching.formation import tiled

ATTEMPTS = 10  # as torchvision's RandomResizedCrop


def draw_squares(count: int, height: int, width: int, scale: tuple[float, float], generator: Generator) -> Tensor:
    """Draw square crops of an image, each with a share of its area that is uniform in ``scale``.

    The first of ten shares is taken whose square fits into the image, else the largest square in its centre.

    Returns:
        Boxes ``(count, 4)``: top, left, height and width in whole pixels.
    """
    shares = scale[0] + (scale[1] - scale[0]) * torch.rand(count, ATTEMPTS, generator=generator, dtype=torch.float64)
    sides, most = (shares * height * width).sqrt().round(), min(height, width)
    fits = (sides > 0) & (sides <= most)
    chosen = sides.gather(1, fits.int().argmax(dim=1, keepdim=True))
    room = torch.tensor([height, width]) - chosen + 1
    corners = (torch.rand(count, 2, generator=generator, dtype=torch.float64) * room).floor()
    centre = torch.tensor([(height - most) // 2, (width - most) // 2, most, most])
    return torch.where(fits.any(dim=1, keepdim=True), torch.cat([corners, chosen, chosen], dim=1).long(), centre)


def cut(image: Tensor, boxes: Tensor, side: int) -> Tensor:
    """Crops ``(m, C, side, side)`` of an image ``(C, H, W)`` by boxes ``(m, 4)``, resized bilinearly, antialiased."""
    return torch.stack([resized_crop(image, *box, [side, side], antialias=True) for box in boxes.tolist()])


def pad(images: Tensor, height: int, width: int) -> Tensor:
    """Images ``(B, C, H, W)`` in the middle of a field of zeros; the smaller half is at the top and at the left."""
    rows, columns = height - images.shape[-2], width - images.shape[-1]
    return F.pad(images, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))


def places(count: int, factor: int) -> list[list[int]]:
    """Which patches each picture has, by their rank from the easiest on, row by row, ``(count, factor^2)``.

    Picture i has at place k the patch of rank ``k * count + i``. So the easiest patches are all at the top left.
    """
    return torch.arange(factor**2 * count).reshape(factor**2, count).T.tolist()


def stitch_patches(patches: Sequence[Tensor], factor: int, size: int) -> Tensor:
    """One picture ``(C, size, size)`` of ``factor x factor`` patches ``(C, s, s)``, by the rules of :func:`tiled`."""
    return tiled([patch[None].float() for patch in patches], factor, size)[0].to(patches[0].dtype)
