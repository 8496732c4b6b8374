"""Networks by their architecture alone, and a trial of them: do they take the images, and how fast are they?"""

import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dgs_lightning.models.dit.network import DiT, DiTConfig
from dgs_lightning.models.registry import build_network

MOST_PARAMETERS = 60_000_000  # of a network that is tried
LARGEST_BATCH = 64
LONG_ENOUGH = 0.2  # seconds of a trial


@dataclass(frozen=True)
class Classifier:
    """Architecture of a classifier: the arguments of :func:`~dgs_lightning.models.registry.build_network`."""

    name: str
    classes: int
    side: int
    channels: int
    width: int


Network = Classifier | DiTConfig


def build(network: Network) -> nn.Module:
    """A network with random weights.

    Raises:
        InputError: If there is no such network, or the images are too small for it.
    """
    if isinstance(network, DiTConfig):
        return DiT(network)
    return build_network(network.name, network.classes, network.side, network.channels, width=network.width)


@torch.inference_mode()
def seconds_per_image(network: Network) -> float | None:
    """Time of one image's share of a forward pass, in batches as large as can be tried; ``None`` for large networks."""
    with torch.device("meta"):
        if sum(parameter.numel() for parameter in build(network).parameters()) > MOST_PARAMETERS:
            return None
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = build(network).to(device).eval()
    batch = 1
    while True:
        inputs = [tensor.to(device) for tensor in _random_inputs(network, batch)]
        start = time.perf_counter()
        model(*inputs).sum().item()
        seconds = time.perf_counter() - start
        if batch == LARGEST_BATCH or seconds > LONG_ENOUGH:
            return seconds / batch
        batch = min(8 * batch, LARGEST_BATCH)


def _random_inputs(network: Network, batch: int) -> tuple[Tensor, ...]:
    if isinstance(network, DiTConfig):
        zeros = torch.zeros(batch, dtype=torch.long)
        return torch.randn(batch, network.in_channels, network.input_size, network.input_size), zeros, zeros
    return (torch.rand(batch, network.channels, network.side, network.side),)
