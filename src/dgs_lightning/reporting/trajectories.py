"""Recorded trajectories of generated images through the denoising steps, and the latents of the original images."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open

from dgs_lightning.data.latents import LatentCache
from dgs_lightning.files import reading
from dgs_lightning.runs.layout import TRAJECTORIES


class Trajectories(NamedTuple):
    """Trajectories of the images of one class through the denoising steps."""

    label: str
    predictions: NDArray[np.float32]  # clean latents, flattened, shape (images, steps, D), first step first
    centers: NDArray[np.float32] | None  # cluster centre that guides each image, shape (images, D)


def read_trajectories(folder: Path | None) -> Trajectories | None:
    """The trajectories recorded with an image set; None if there are none. A broken file raises an InputError."""
    if folder is None or not (folder / TRAJECTORIES).is_file():
        return None
    path = folder / TRAJECTORIES
    with reading(path, "recorded trajectories of images", "Delete it, or generate the images again"):
        with safe_open(path, "np") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (not a dictionary)
            label = file.metadata()["label"]
        predictions, centers = tensors["predictions"], tensors.get("centers")
        size = predictions[0, 0].size
        if predictions.ndim < 3 or (centers is not None and centers[0].size != size):
            raise ValueError(f"predictions of shape {predictions.shape}")
    flat = predictions.reshape(*predictions.shape[:2], -1)
    return Trajectories(label, flat, None if centers is None else centers.reshape(len(centers), -1))


def class_latents(cache: Path, label: str) -> NDArray[np.float32] | None:
    """Latents of a class's original images, flattened, shape ``(N, D)``; None without that cache or class."""
    if not cache.is_dir():
        return None
    latents = LatentCache(cache)
    if label not in latents.labels:
        return None
    images = (latents.classes == latents.labels.index(label)).nonzero().flatten()
    means: NDArray[np.float32] = latents.read(images).mean.flatten(1).numpy()
    return means
