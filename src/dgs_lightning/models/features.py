"""What coresets compare images by: small pictures of them, or what a network makes of them."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from dgs_lightning.data.images import load_image
from dgs_lightning.errors import InputError
from dgs_lightning.models.registry import build_network

Features = Callable[[Sequence[Path]], NDArray[np.float32]]
THUMBNAIL = 32
BATCH = 16  # images whose activations stay in a CPU's cache


def build_features(name: str, weights: str | None = None) -> Features:
    """Function from image files to one row of features each.

    Args:
        name: ``pixels`` for colours of the image resized to 32 x 32, or a timm network for its pooled features.
        weights: Local file with the network's weights; without one timm's own are fetched from their hub.

    Returns:
        A function of N paths; its result has shape ``(N, D)``.

    Raises:
        InputError: If timm has no such network, or its weights cannot be had.
    """
    return pixel_features if name == "pixels" else _network_features(name, weights)


def pixel_features(paths: Sequence[Path]) -> NDArray[np.float32]:
    """Colours in [0, 1] of images resized to 32 x 32, shape ``(N, 3072)``."""
    size = (THUMBNAIL, THUMBNAIL)
    pictures = [load_image(path).resize(size, Image.Resampling.BILINEAR) for path in paths]
    return np.stack([np.asarray(picture, dtype=np.float32).ravel() / 255 for picture in pictures])


def _network_features(name: str, weights: str | None) -> Features:
    import timm  # slow, and seldom needed
    from timm.data.config import resolve_model_data_config
    from timm.data.transforms_factory import create_transform

    bare = name.removeprefix("timm:")
    config = timm.get_pretrained_cfg(bare) if timm.is_model(bare) else None
    if config is None:
        raise InputError(
            "features", found=repr(name), expected="'pixels' or the name of a timm network", remedy="Correct the name"
        )
    network = build_network(f"timm:{bare}", config.num_classes, config.input_size[-1], pretrained=weights or True)
    network.reset_classifier(0)  # type: ignore[operator]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network.eval().to(device).to(memory_format=torch.channels_last)
    transform = create_transform(**resolve_model_data_config(network))  # type: ignore[no-untyped-call]

    @torch.inference_mode()
    def extract(paths: Sequence[Path]) -> NDArray[np.float32]:
        rows = []
        for start in range(0, len(paths), BATCH):
            images = torch.stack([transform(load_image(path)) for path in paths[start : start + BATCH]])
            rows.append(network(images.to(device)).cpu())
        features: NDArray[np.float32] = torch.cat(rows).numpy()
        return features

    return extract
