"""The networks that an experiment trains or samples, as far as they can be tried before they are trained."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from dgs_lightning.doctor.finding import Finding, of_error, ok
from dgs_lightning.doctor.work import DIT, Network, Scale, Work
from dgs_lightning.errors import InputError
from dgs_lightning.models.dit import DiT, DiTConfig
from dgs_lightning.models.registry import build_network


def check_networks(works: Sequence[Work], scale: Scale) -> Iterator[Finding]:
    """Whether each downstream network exists and takes images of its size."""
    networks = sorted({work.network for work in works if work.network is not None and work.network.name != DIT})
    for network in networks:
        try:
            with torch.device("meta"):
                build(network, scale, None)
            yield ok(f"network {network.name}: takes images of {network.side} pixels")
        except InputError as error:
            yield of_error(error)


def build(network: Network, scale: Scale, dit: DiTConfig | None) -> nn.Module:
    """A network with random weights.

    Raises:
        InputError: If there is no such network, or the images are too small for it.
    """
    if network.name != DIT:
        return build_network(network.name, scale.classes, network.side, scale.channels, width=network.width)
    assert dit is not None  # without it there is no work for it
    return DiT(dit)


def random_inputs(network: Network, batch: int, scale: Scale, dit: DiTConfig | None) -> tuple[Tensor, ...]:
    """What a network takes."""
    if network.name != DIT or dit is None:
        return (torch.rand(batch, scale.channels, network.side, network.side),)
    latents = torch.randn(batch, dit.in_channels, dit.input_size, dit.input_size)
    return latents, torch.zeros(batch, dtype=torch.long), torch.zeros(batch, dtype=torch.long)
