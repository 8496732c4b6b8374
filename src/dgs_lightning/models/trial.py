"""Networks by their architecture alone, and a trial of them: do they take the images, and how fast are they?"""

import time
from dataclasses import dataclass
from functools import cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dgs_lightning.models.dit.network import DiT, DiTConfig
from dgs_lightning.models.registry import build_network

MOST_PARAMETERS = 60_000_000  # of a network that is tried
BATCHES = (1, 8, 64)  # numbers of images that are tried, one after the other
TRIED = 2  # images of which the memory is counted: batch norm takes no single one
LONG_ENOUGH = 0.2  # seconds of a trial
TIMINGS = 5  # of the largest batch


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


@cache
def kept_bytes(classifier: Classifier, twice: bool = False) -> int:
    """Bytes that autograd keeps of one image until a backward pass, as counted without computing anything.

    Args:
        classifier: Architecture of the network.
        twice: Whether the gradients of the network's weights are differentiated, too, as for gradient matching.

    Raises:
        InputError: If there is no such network, or the images are too small.
    """
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept.setdefault(tensor.untyped_storage()._cdata, tensor)
        return tensor

    with torch.device("meta"):
        network, side = classifier.build(), classifier.side
        images = torch.zeros(TRIED, classifier.channels, side, side, requires_grad=True)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = F.cross_entropy(network(images), torch.zeros(TRIED, dtype=torch.long))
            if twice:
                torch.autograd.grad(loss, list(network.parameters()), create_graph=True)
    weights = {parameter.untyped_storage()._cdata for parameter in network.parameters()}
    return sum(tensor.untyped_storage().nbytes() for key, tensor in kept.items() if key not in weights) // TRIED


@torch.inference_mode()
def seconds_per_image(network: Network) -> tuple[float, float] | None:
    """Shortest and longest of several times of one image's share of a forward pass; ``None`` for large networks.

    Batches are as large as can be tried. On a CPU it is the time that this process has computed, divided among its
    threads: what else runs on the machine counts little.
    """
    if isinstance(network, Classifier):
        build, shape, indices = network.build, (network.channels, network.side, network.side), 0
    else:  # the DiT takes timesteps and classes, too
        build, shape, indices = partial(DiT, network), network.latent_shape, 2
    with torch.device("meta"):
        if sum(parameter.numel() for parameter in build().parameters()) > MOST_PARAMETERS:
            return None
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = build().to(device).eval()

    def seconds(batch: int) -> float:
        images = torch.randn(batch, *shape, device=device)
        inputs = [images, *[torch.zeros(batch, dtype=torch.long, device=device)] * indices]
        clock = time.process_time if device.type == "cpu" else time.perf_counter
        start = clock()
        model(*inputs).sum().item()
        return (clock() - start) / (torch.get_num_threads() if device.type == "cpu" else 1)

    batch = next((batch for batch in BATCHES if seconds(batch) > LONG_ENOUGH), BATCHES[-1])
    timings = [seconds(batch) / batch for _ in range(TIMINGS)]
    return min(timings), max(timings)
