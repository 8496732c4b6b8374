"""Multi-formation of IDC: a stored image holds several smaller ones, which are decoded to the full size.

Kim et al., "Dataset Condensation via Efficient Synthetic-Data Parameterization", ICML 2022, Section 4.
"""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

PADDING = 0.5  # colour of pixels that are added so that the side can be divided


def decode(images: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    """Cut images into ``factor x factor`` tiles, and enlarge each tile bilinearly to the full size.

    A side that ``factor`` does not divide is first padded at the right and at the bottom. Factor 1 changes nothing.

    Args:
        images: Stored images ``(N, C, S, S)`` in [0, 1].
        factor: Tiles along a side.

    Returns:
        The decoded images ``(N factor^2, C, S, S)``: the first tile of all images, then the second one, row by row. And
        for each, the position of the stored image ``(N factor^2,)``.
    """
    count, channels, side, _ = images.shape
    sources = torch.arange(count, device=images.device).repeat(factor**2)
    if factor == 1:
        return images, sources
    missing = -side % factor
    padded = F.pad(images, (0, missing, 0, missing), value=PADDING)
    tile = padded.shape[-1] // factor
    tiles = padded.view(count, channels, factor, tile, factor, tile).permute(2, 4, 0, 1, 3, 5)
    return F.interpolate(tiles.reshape(-1, channels, tile, tile), side, mode="bilinear", align_corners=False), sources


def decode_all(images: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    """The results of :func:`decode` for the factors 1, 2, ..., ``factor``, one after the other."""
    parts = [decode(images, each) for each in range(1, factor + 1)]
    return torch.cat([part for part, _ in parts]), torch.cat([sources for _, sources in parts])


def decode_bounded(images: Tensor, factor: int, bound: int) -> tuple[Tensor, Tensor]:
    """Decode so many images by the largest factors that about ``bound`` come out, and the others by smaller ones.

    Arguments and results are those of :func:`decode`. Results of larger factors come first.
    """
    left, decoded = len(images), 0
    parts: list[tuple[Tensor, Tensor]] = []
    for each in range(factor, 0, -1):
        room = bound - decoded - left
        taken = left if each == 1 else min(max(room, 0) // each**2, left)
        if taken:
            first = len(images) - left
            part, sources = decode(images[first : first + taken], each)
            parts.append((part, sources + first))
            decoded, left = decoded + len(part), left - taken
    return torch.cat([part for part, _ in parts]), torch.cat([sources for _, sources in parts])


def mixed_start(images: Tensor, factor: int) -> Tensor:
    """Stored images to start from: each tile is a real image, shrunk to its nearest pixels.

    Args:
        images: Real images ``(IPC factor^2, C, S, S)`` of one class. The first IPC of them become the first tiles, the
            next ones the second tiles, row by row.
        factor: Tiles along a side.

    Returns:
        Images ``(IPC, C, S, S)``, put together by :func:`tiled`.
    """
    return tiled(images.chunk(factor**2), factor, images.shape[-1])


def tiled(parts: Iterable[Tensor], factor: int, side: int) -> Tensor:
    """Images ``(N, C, side, side)`` of ``factor x factor`` tiles, row by row, resized to their nearest pixels.

    Args:
        parts: The images ``(N, C, s, s)`` that become the first tiles, those that become the second tiles, and so on.
        factor: Tiles along a side. If it does not divide the side, the first rows and columns are one pixel larger.
        side: Side of the images.
    """
    sides, left = [side // factor + (number < side % factor) for number in range(factor)], iter(parts)
    rows = [[F.interpolate(next(left), (height, width), mode="nearest") for width in sides] for height in sides]
    return torch.cat([torch.cat(row, dim=3) for row in rows], dim=2)
