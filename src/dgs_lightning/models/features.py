"""Features by which coresets compare images: thumbnails, or the pooled features of a classifier."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from dgs_lightning.data.images import load_image
from dgs_lightning.errors import InputError
from dgs_lightning.models.estimator import NAMES, Estimator, EstimatorSource, load_estimator
from dgs_lightning.models.registry import pretrained_timm, timm_classes

Rows = NDArray[np.float32]  # one row for each image, shape (N, D)
PIXELS = "pixels"
THUMBNAIL = 32
BATCH = 64  # images in memory at once


@dataclass(frozen=True)
class Features:
    """A function from N image files to their features, shape ``(N, D)``."""

    what: str  # in words, such as "32 x 32 thumbnails"
    extract: Callable[[Sequence[Path]], Rows]

    def __call__(self, paths: Sequence[Path]) -> Rows:
        """The features of some image files."""
        return self.extract(paths)


def build_features(name: str, weights: str | None = None) -> Features:
    """The features of this name.

    Args:
        name: ``pixels`` for :func:`pixel_features`; else a classifier, of which the input of the last linear layer is
            taken, with the preprocessing of its training: ``torchvision:NAME``, ``timm:NAME`` (with any classes, or
            none), or a folder of weights that ``ResultWriter`` wrote.
        weights: Local file of a named network's weights, or torchvision's name of weights, as for
            :func:`~dgs_lightning.models.estimator.load_estimator`.

    Raises:
        InputError: If there is no such classifier, or its weights cannot be fetched or do not fit.
    """
    if name == PIXELS:
        return Features(f"{THUMBNAIL} x {THUMBNAIL} thumbnails", pixel_features)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    estimator = _load(name, weights).to(device)

    @torch.inference_mode()
    def extract(paths: Sequence[Path]) -> Rows:
        batches = [paths[start : start + BATCH] for start in range(0, len(paths), BATCH)]
        inputs = (torch.stack([estimator.preprocess(load_image(path)) for path in batch]) for batch in batches)
        features: Rows = torch.cat([estimator.features(images.to(device)).cpu() for images in inputs]).numpy()
        return features

    return Features(_in_words(estimator), extract)


def _load(name: str, weights: str | None) -> Estimator:
    """The classifier of this name; one of timm may have other classes than those of ImageNet-1K, or none."""
    source = EstimatorSource.of(name, weights)
    if source.library == "torchvision" or Path(name).is_dir():
        return load_estimator(name, weights)
    bare = name.removeprefix("timm:")
    if timm_classes(bare) is None:
        raise InputError.setting("features", repr(name), f"'{PIXELS}', {NAMES}", "Correct the name")
    network, preprocess = pretrained_timm(bare, weights)
    return Estimator(network.to(memory_format=torch.channels_last), (), preprocess, f"timm:{bare}")


def _in_words(estimator: Estimator) -> str:
    """Description of a classifier's features, with its fold if it is cross-fitted."""
    what = f"features of {estimator.identity}"
    if estimator.left_out is None:
        return what
    one = "the network of fold {} of {} for all images".format(*estimator.left_out)
    return f"{what}, {one}, since the features of different networks cannot be compared"


def pixel_features(paths: Sequence[Path]) -> Rows:
    """Colours in [0, 1] of images resized to 32 x 32, shape ``(N, 3072)``."""
    pictures = [load_image(path).resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BILINEAR) for path in paths]
    return np.stack([np.asarray(picture, dtype=np.float32).ravel() / 255 for picture in pictures])
