"""Published settings of matching methods, by data set and images per class (IPC)."""

from collections.abc import Mapping
from typing import NamedTuple

ROUNDS = {1: (1, 1), 10: (10, 50), 20: (20, 25), 30: (30, 20), 40: (40, 15), 50: (50, 10)}
BATCH_STORED = 128  # most synthetic images of a class in a step of IDC
BOUND_FROM = (3, 20)  # factor and IPC from which IDC bounds the decoded images on ImageNet


def rounds(ipc: int) -> tuple[int, int]:
    """Image steps for each network of DC and DSA, and epochs of the network between two of them.

    Zhao et al., ICLR 2021, Table 7. An IPC that the table lacks has the rounds of the next smaller one.
    """
    return ROUNDS[max(known for known in ROUNDS if known <= ipc)]


class _Data(NamedTuple):
    """What the published settings of IDC for a data set differ in."""

    metric: str
    rate: float  # for IPC 10 at the base side
    side: int
    base: int  # side that the rate is meant for
    seen: int = 500
    iterations: int = 2000
    early: int = 0
    batch: int = 64
    network: tuple[float, float] = (0.01, 5e-4)
    cutmix: float = 0.5


_DATA: Mapping[str, _Data] = {
    "mnist": _Data("l1", 1e-4, 28, 28),
    "fashion": _Data("l1", 1e-4, 28, 32),  # the released base side is that of CIFAR
    "svhn": _Data("mse", 5e-3, 32, 32),
    "cifar10": _Data("mse", 5e-3, 32, 32, seen=2000),
    "cifar100": _Data("mse", 5e-3, 32, 32, seen=2000),
    "imagenet10": _Data("l1", 3e-3, 224, 224, iterations=500, early=10, cutmix=1.0),
    "imagenet100": _Data("l1", 1e-3, 224, 224, iterations=500, batch=128, network=(0.1, 1e-4), cutmix=1.0),
}
DATA = tuple(_DATA)  # names of the data sets with published settings


class IDCSchedule(NamedTuple):
    """Published settings of IDC for one data set, IPC and factor."""

    metric: str  # distance of gradients
    rate: float  # learning rate of the images
    iterations: int  # networks, each with 100 rounds
    early: int  # epochs of a new network on real images before its first round
    seen: int  # least number of real images that train the network in a round
    batch: int  # real images of a class in a step, and in a batch that trains the network
    augmentation: tuple[str, ...]  # entries of the strategy while matching
    network_rate: float  # learning rate of the network
    weight_decay: float  # of the network
    cutmix: float  # share of CutMix among the batches that train the network
    bound: int | None  # most decoded images of a class in a step; None: all


def idc_schedule(data: str, ipc: int, factor: int = 1) -> IDCSchedule:
    """Published settings of IDC; with factor 1 those of IDC-1.

    Kim et al., ICML 2022, Appendix, and the defaults of the released code.

    Args:
        data: One of ``DATA``.
        ipc: Stored images per class.
        factor: Tiles along a side of a stored image.
    """
    own = _DATA[data]
    tiled_digits = data == "mnist" and factor > 1
    bounded = data.startswith("imagenet") and factor >= BOUND_FROM[0] and ipc >= BOUND_FROM[1]
    return IDCSchedule(
        own.metric,
        own.rate * image_rate(ipc, own.side, own.base),
        own.iterations,
        own.early,
        own.seen,
        own.batch,
        ("color", "crop") if tiled_digits else ("color", "crop", "cutout"),
        *own.network,
        0.0 if tiled_digits else own.cutmix,
        BATCH_STORED if bounded else None,
    )


def image_rate(ipc: int, side: int, base: int) -> float:
    """Factor of IDC's learning rate of images: proportional to IPC (1 at 10), and to the area (1 at a base side)."""
    return ipc / 10 * (side / base) ** 2
