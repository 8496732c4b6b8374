"""Networks by their architecture alone, and a trial of them: do they take the images, and how fast are they?"""

import time
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from dgs_lightning.models.dit.network import DiT, DiTConfig
from dgs_lightning.models.registry import build_network

MOST_PARAMETERS = 60_000_000  # of a network that is tried
BATCHES = (1, 8, 64)  # numbers of images that are tried, one after the other
LONG_ENOUGH = 0.2  # seconds of a trial


@dataclass(frozen=True)
class Classifier:
    """Architecture of a classifier: the arguments of :func:`~dgs_lightning.models.registry.build_network`."""

    name: str
    classes: int
    side: int
    channels: int
    width: int

    def build(self) -> nn.Module:
        """The network with random weights. An InputError says that there is none, or the images are too small."""
        return build_network(self.name, self.classes, self.side, self.channels, width=self.width)


Network = Classifier | DiTConfig


@torch.inference_mode()
def seconds_per_image(network: Network) -> float | None:
    """Time of one image's share of a forward pass, in batches as large as can be tried; ``None`` for large networks."""
    if isinstance(network, Classifier):
        build, shape, indices = network.build, (network.channels, network.side, network.side), 0
    else:  # the DiT takes timesteps and classes, too
        build, shape, indices = partial(DiT, network), network.latent_shape, 2
    with torch.device("meta"):
        if sum(parameter.numel() for parameter in build().parameters()) > MOST_PARAMETERS:
            return None
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = build().to(device).eval()
    for batch in BATCHES:
        images = torch.randn(batch, *shape, device=device)
        inputs = [images, *[torch.zeros(batch, dtype=torch.long, device=device)] * indices]
        start = time.perf_counter()
        model(*inputs).sum().item()
        seconds = time.perf_counter() - start
        if seconds > LONG_ENOUGH:
            break
    return seconds / batch
