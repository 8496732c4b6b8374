"""Networks by their architecture alone, and a trial of them: do they take the images, and how fast are they?"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

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

    @property
    def operations(self) -> int:
        """Floating-point operations of a forward pass of one image. A multiplication and a sum are two.

        Raises:
            InputError: If there is no such network, or the images are too small.
        """
        return _operations(self)

    def build(self) -> nn.Module:
        """The network with random weights. An InputError says that there is none, or the images are too small."""
        return build_network(self.name, self.classes, self.side, self.channels, width=self.width)


Network = Classifier | DiTConfig


@cache
def _operations(network: Classifier) -> int:
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        network.build().eval()(torch.zeros(1, network.channels, network.side, network.side))
    return int(counter.get_total_flops())


@cache
def kept_bytes(network: Network, twice: bool = False) -> int:
    """Bytes that autograd keeps of one image until a backward pass, as counted without computing anything.

    The weights of a DiT get no gradients: its latents, of which the bytes are told, do.

    Args:
        network: Architecture of the network.
        twice: Whether the gradients of a classifier's weights are differentiated, too, as for gradient matching.

    Raises:
        InputError: If there is no such network, or the images are too small.
    """
    with torch.device("meta"):
        label = torch.zeros(TRIED, dtype=torch.long)
        if isinstance(network, Classifier):
            model = network.build()
            images = torch.zeros(TRIED, network.channels, network.side, network.side, requires_grad=True)
            forward = partial(_step, model, images, label, twice)
            return saved_bytes(forward, model.parameters()) // TRIED
        model = DiT(network).requires_grad_(False).eval()
        latents = torch.zeros(TRIED, *network.latent_shape, requires_grad=True)
        return saved_bytes(lambda: model(latents, label, label), model.parameters()) // TRIED


def _step(model: nn.Module, images: Tensor, label: Tensor, gradients: bool) -> None:
    """Loss of a classifier, and the gradients of its weights in a way that they can be differentiated, if wanted."""
    loss = F.cross_entropy(model(images), label)
    if gradients:
        torch.autograd.grad(loss, list(model.parameters()), create_graph=True)


def saved_bytes(forward: Callable[[], object], parameters: Iterable[Tensor]) -> int:
    """Bytes of the tensors that a computation keeps for its gradient, beside the parameters."""
    kept: dict[int, Tensor] = {}  # by storage, which several tensors may share

    def keep(tensor: Tensor) -> Tensor:
        kept.setdefault(tensor.untyped_storage()._cdata, tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        forward()
    own = {parameter.untyped_storage()._cdata for parameter in parameters}
    return sum(tensor.untyped_storage().nbytes() for key, tensor in kept.items() if key not in own)


@torch.inference_mode()
def seconds_per_image(network: Network, dtype: torch.dtype = torch.float32) -> tuple[float, float] | None:
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
    model = build().to(device, dtype).eval()

    def seconds(batch: int) -> float:
        images = torch.randn(batch, *shape, device=device, dtype=dtype)
        inputs = [images, *[torch.zeros(batch, dtype=torch.long, device=device)] * indices]
        clock = time.process_time if device.type == "cpu" else time.perf_counter
        start = clock()
        model(*inputs).sum().item()
        return (clock() - start) / (torch.get_num_threads() if device.type == "cpu" else 1)

    batch = next((batch for batch in BATCHES if seconds(batch) > LONG_ENOUGH), BATCHES[-1])
    timings = [seconds(batch) / batch for _ in range(TIMINGS)]
    return min(timings), max(timings)
