"""The network of gradient matching: how it is trained between the steps on images."""

from dataclasses import dataclass
from typing import Annotated, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import SGD

from dgs_lightning.bounds import Above, AtLeast, Between, Group
from dgs_lightning.matching.schedules import IDCSchedule, rounds
from dgs_lightning.tasks.protocol import MOMENTUM

IDC_ROUNDS = 100  # for each network


class NetworkTraining(NamedTuple):
    """Training of a network; the fields are those of :class:`NetworkSettings`."""

    rounds: int
    epochs: int
    early: int
    seen: int
    batch_size: int
    lr: float
    momentum: float
    weight_decay: float
    cutmix: float

    def batches(self, images: int) -> int:
        """Batches of a pass over so many images."""
        return -(-images // self.batch_size)

    def optimizer(self, network: nn.Module) -> SGD:
        """SGD on all parameters of a network."""
        return SGD(network.parameters(), self.lr, self.momentum, weight_decay=self.weight_decay)


def training_of_dc(ipc: int) -> NetworkTraining:
    """Published training of the network of DC and DSA (Zhao et al., ICLR 2021)."""
    return NetworkTraining(*rounds(ipc), 0, 0, 256, 0.01, 0.0, 0.0, 0.0)


def training_of_idc(own: IDCSchedule) -> NetworkTraining:
    """Published training of the network of IDC (Kim et al., ICML 2022)."""
    seen = (own.early, own.seen, own.batch)
    return NetworkTraining(IDC_ROUNDS, 0, *seen, own.network_rate, MOMENTUM, own.weight_decay, own.cutmix)


@dataclass(frozen=True)
class NetworkSettings(Group):
    """How the network is trained between the steps on images: on the stored images (DC), or on real ones (IDC).

    Args:
        rounds: Rounds for each network; by default those of DC for this IPC, or 100 of IDC.
        epochs: DC: epochs on the stored images after each round but the last one; by default those for this IPC.
        early: IDC: epochs on all real images before the first round.
        seen: IDC: real images that train the network in each round, at least; 0: the network is not trained.
        batch_size: Images in a batch.
        lr: Learning rate.
        momentum: Momentum; by default 0 for DC and 0.9 for IDC.
        weight_decay: Weight decay; by default 0 for DC and 5e-4 for IDC.
        cutmix: IDC: share of the batches that CutMix mixes.
    """

    rounds: Annotated[int | None, AtLeast(1)] = None
    epochs: Annotated[int | None, AtLeast(0)] = None
    early: Annotated[int | None, AtLeast(0)] = None
    seen: Annotated[int | None, AtLeast(0)] = None
    batch_size: Annotated[int | None, AtLeast(1)] = None
    lr: Annotated[float | None, Above(0)] = None
    momentum: Annotated[float | None, Between(0, 1, open="right")] = None
    weight_decay: Annotated[float | None, AtLeast(0)] = None
    cutmix: Annotated[float | None, Between(0, 1)] = None

    def completed(self, published: NetworkTraining) -> NetworkTraining:
        """These settings, with published values for those that are not given."""
        return published._replace(**{name: value for name, value in vars(self).items() if value is not None})


class NetworkState(NamedTuple):
    """A network and its optimiser."""

    network: nn.Module
    optimizer: SGD

    def step(self, loss: Tensor) -> None:
        """Train the network by a loss."""
        gradients = torch.autograd.grad(loss, list(self.network.parameters()))
        for parameter, gradient in zip(self.network.parameters(), gradients, strict=True):
            parameter.grad = gradient
        self.optimizer.step()
