"""The networks that an experiment trains or samples, as far as they can be tried before they are trained."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from dgs_lightning.doctor.finding import Finding, of_error, ok, problem
from dgs_lightning.doctor.work import Classifier, Scale, Work
from dgs_lightning.errors import InputError
from dgs_lightning.models.dit.network import DiT, DiTConfig
from dgs_lightning.models.registry import build_network


def check_networks(works: Sequence[Work], scale: Scale) -> Iterator[Finding]:
    """Whether each downstream network exists and takes images of its size."""
    stages = {work.network: work.stage for work in works if isinstance(work.network, Classifier)}
    for network, stage in stages.items():
        try:
            with torch.device("meta"):
                build(network, scale)
            yield ok(f"network {network.name}: takes images of {network.side} pixels")
        except InputError as error:
            found = of_error(error)
            yield problem(f"stage {stage}: {found.what}", found.remedy)


def build(network: Classifier | DiTConfig, scale: Scale) -> nn.Module:
    """A network with random weights.

    Raises:
        InputError: If there is no such network, or the images are too small for it.
    """
    if isinstance(network, DiTConfig):
        return DiT(network)
    return build_network(network.name, scale.classes, network.side, scale.channels, width=network.width)


def random_inputs(network: Classifier | DiTConfig, batch: int, scale: Scale) -> tuple[Tensor, ...]:
    """What a network takes."""
    if isinstance(network, DiTConfig):
        zeros = torch.zeros(batch, dtype=torch.long)
        return torch.randn(batch, network.in_channels, network.input_size, network.input_size), zeros, zeros
    return (torch.rand(batch, scale.channels, network.side, network.side),)
