"""Features by which coresets compare images: thumbnails, or the pooled features of a network."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from dgs_lightning.data.images import load_image
from dgs_lightning.errors import InputError
from dgs_lightning.models.registry import pretrained_timm, timm_classes

Features = Callable[[Sequence[Path]], NDArray[np.float32]]
THUMBNAIL = 32
BATCH = 16  # few images, so that their activations stay in a CPU's cache


def build_features(name: str, weights: str | None = None) -> Features:
    """A function from N image files to their features, shape ``(N, D)``.

    The name ``pixels`` stands for :func:`pixel_features`, that of a timm network for its pooled features. The weights
    of the network come from a local file, or by default from timm's hub.

    Raises:
        InputError: If timm has no such network, or its weights cannot be fetched or do not fit.
    """
    if name == "pixels":
        return pixel_features
    bare = name.removeprefix("timm:")
    if timm_classes(bare) is None:
        raise InputError.setting("features", repr(name), "'pixels' or the name of a timm network")
    network, preprocess = pretrained_timm(bare, weights)
    network.reset_classifier(0)  # type: ignore[operator]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network.eval().to(device).to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def extract(paths: Sequence[Path]) -> NDArray[np.float32]:
        batches = [paths[start : start + BATCH] for start in range(0, len(paths), BATCH)]
        inputs = (torch.stack([preprocess(load_image(path)) for path in batch]) for batch in batches)
        features: NDArray[np.float32] = torch.cat([network(images.to(device)).cpu() for images in inputs]).numpy()
        return features

    return extract


def pixel_features(paths: Sequence[Path]) -> NDArray[np.float32]:
    """Colours in [0, 1] of images resized to 32 x 32, shape ``(N, 3072)``."""
    pictures = [load_image(path).resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BILINEAR) for path in paths]
    return np.stack([np.asarray(picture, dtype=np.float32).ravel() / 255 for picture in pictures])
