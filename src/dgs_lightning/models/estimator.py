"""Difficulty estimators: a classifier with its own preprocessing and its own labels."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from dgs_lightning.data.classes import class_list
from dgs_lightning.data.transforms import resize_and_crop, to_unit
from dgs_lightning.errors import InputError
from dgs_lightning.models.classifier import load_classifier
from dgs_lightning.models.dit.formats import hash_state
from dgs_lightning.models.registry import build_network

IMAGENET_CLASSES = 1000
TORCHVISION_WEIGHTS = "IMAGENET1K_V1"  # the paper's, of its ResNet-50
PIXELS_AT_ONCE = 2**20  # of a CPU's forward pass: its activations then stay in the cache
Preprocess = Callable[[Image.Image], Tensor]


class Estimator(nn.Module):
    """A frozen classifier.

    Args:
        network: From preprocessed images ``(B, C, H, W)`` to logits ``(B, len(labels))``.
        labels: Its classes, in the order of its logits.
        preprocess: From an RGB picture to its input ``(C, H, W)``.
        name: What it is called in its identity.
        left_out: The fold of its training images that it was trained without, and the number of folds.

    Attributes:
        identity: Its name and a hash of its weights.
    """

    def __init__(
        self,
        network: nn.Module,
        labels: tuple[str, ...],
        preprocess: Preprocess,
        name: str,
        left_out: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.network = network.requires_grad_(False).eval()
        self.labels = labels
        self.preprocess = preprocess
        self.left_out = left_out
        self.identity = f"{name}@{hash_state(network.state_dict())[:12]}"

    def train(self, mode: bool = True) -> "Estimator":
        """Stay in evaluation mode."""
        return super().train(False)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of preprocessed images, on a CPU some at a time."""
        pixels = images.shape[-2] * images.shape[-1]
        at_once = max(1, PIXELS_AT_ONCE // pixels) if images.device.type == "cpu" else len(images)
        return torch.cat([self.network(part) for part in torch.split(images, at_once)])


@dataclass(frozen=True)
class ClassifierInput:
    """Preprocessing of this project's own classifiers: the downstream protocol's, without augmentation.

    Args:
        size: Side in pixels.
        channels: 1 or 3.
        mean: Mean of each channel.
        std: Standard deviation of each channel.
    """

    size: int
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, image: Image.Image) -> Tensor:
        """Input ``(C, size, size)`` of an RGB picture."""
        mean, std = (torch.tensor(values)[:, None, None] for values in (self.mean, self.std))
        grey_or_rgb = image.convert("L" if self.channels == 1 else "RGB")
        return (to_unit(resize_and_crop(grey_or_rgb, self.size)) - mean) / std


def load_estimator(name: str, weights: str | None = None) -> Estimator:
    """A classifier by name, with the preprocessing it was trained with.

    Args:
        name: ``torchvision:NAME`` or ``timm:NAME``, an ImageNet-1K classifier; or a weights folder that
            ``ResultWriter`` wrote.
        weights: Local file of a named network's weights, or torchvision's name of weights; by default
            ``IMAGENET1K_V1`` for torchvision's networks and timm's own, both fetched from their hubs once.

    Raises:
        InputError: If there is no such classifier, its weights cannot be had, or it has other classes than ImageNet-1K.
    """
    if Path(name).is_dir():
        return _own(Path(name))
    source, _, bare = name.partition(":")
    if not bare or source not in ("torchvision", "timm") or "/" in bare:
        raise InputError(
            "estimator",
            found=repr(name),
            expected="torchvision:NAME, timm:NAME, or a folder of trained weights",
            remedy="Correct the name, or train the classifier first",
        )
    return _torchvision(bare, weights) if source == "torchvision" else _timm(bare, weights)


def _own(folder: Path) -> Estimator:
    network, config = load_classifier(folder)
    preprocess = ClassifierInput(config.image_size, config.channels, config.mean, config.std)
    left_out = None if config.folds is None or config.fold is None else (config.fold, config.folds)
    return Estimator(network, config.labels, preprocess, config.network, left_out)


def _torchvision(name: str, weights: str | None) -> Estimator:
    from torchvision.models import get_model_weights

    network = build_network(f"torchvision:{name}", IMAGENET_CLASSES, 224, pretrained=weights or TORCHVISION_WEIGHTS)
    known: Any = get_model_weights(name).__members__
    published = known.get(weights) or known.get(TORCHVISION_WEIGHTS) or known["DEFAULT"]
    return _of_imagenet(network, published.transforms(), f"torchvision:{name}")


def _timm(name: str, weights: str | None) -> Estimator:
    import timm
    from timm.data.config import resolve_model_data_config
    from timm.data.transforms_factory import create_transform

    config = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
    if config is None or config.num_classes != IMAGENET_CLASSES:
        raise InputError(
            "estimator",
            found=f"timm:{name}" + ("" if config is None else f" with {config.num_classes} classes"),
            expected=f"a timm classifier of the {IMAGENET_CLASSES} classes of ImageNet-1K",
            remedy="Name another network",
        )
    network = build_network(f"timm:{name}", IMAGENET_CLASSES, config.input_size[-1], pretrained=weights or True)
    preprocess = create_transform(**resolve_model_data_config(network))  # type: ignore[no-untyped-call]
    return _of_imagenet(network, preprocess, f"timm:{name}")


def _of_imagenet(network: nn.Module, preprocess: Preprocess, name: str) -> Estimator:
    """A classifier of ImageNet-1K, its weights laid out as convolutions of many channels are fastest."""
    network = network.to(memory_format=torch.channels_last)
    return Estimator(network, class_list("imagenet1k"), preprocess, name)
