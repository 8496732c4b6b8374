"""Transforms of images: crops to the working size, and conversion to tensors."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F


def adm_center_crop(image: Image.Image, size: int) -> Image.Image:
    """Centre square of ``size`` pixels, cut as for the training of the published DiT.

    The image is halved by box averages while it is at least twice too large, then resized bicubically, then cropped.
    This is ADM's rule: Dhariwal and Nichol, "Diffusion Models Beat GANs on Image Synthesis", NeurIPS 2021.
    """
    while min(image.size) >= 2 * size:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = size / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return image.crop((left, top, left + size, top + size))


def resize_and_crop(image: Image.Image, size: int) -> Image.Image:
    """Resize the short side to ``size`` pixels, bilinearly, and take the centre square (the downstream protocol)."""
    if image.size == (size, size):
        return image
    cropped: Image.Image = F.center_crop(F.resize(image, size, InterpolationMode.BILINEAR), size)
    return cropped


CROPS: Mapping[str, Callable[[Image.Image, int], Image.Image]] = {"plain": resize_and_crop, "adm": adm_center_crop}
"""The crops by the names that settings use."""


def to_bytes(image: Image.Image) -> Tensor:
    """Pixels as uint8, shape ``(C, H, W)``."""
    pixels = np.array(image)
    return torch.from_numpy(pixels[..., None] if pixels.ndim == 2 else pixels).permute(2, 0, 1).contiguous()


def to_unit(image: Image.Image) -> Tensor:
    """Pixels as float32 in [0, 1], shape ``(C, H, W)``."""
    return to_bytes(image).float() / 255


@dataclass(frozen=True)
class CropToBytes:
    """Crop an image by one of ``CROPS`` and return its pixels as uint8, shape ``(C, size, size)``."""

    size: int
    crop: str = "plain"

    def __call__(self, image: Image.Image) -> Tensor:
        """The pixels of the centre square."""
        return to_bytes(CROPS[self.crop](image, self.size))
