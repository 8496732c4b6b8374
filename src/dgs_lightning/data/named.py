"""Data sets that are meant by a name: which there are, and how names and folders are told apart."""

import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass

from dgs_lightning.errors import InputError, listed

DIGITS = "digits"
_DIGITS, _TORCHVISION = f"sklearn:{DIGITS}", "torchvision:"


@dataclass(frozen=True)
class NamedSet:
    """A data set that is known by its name.

    Attributes:
        kind: Its class in ``torchvision.datasets``; empty for scikit-learn's digits.
        counts: Images of each class for training, or of all images if the set has no split of its own. Except
            for the digits, it is the mean over the classes.
        val: Number of images for validation; ``None`` if the set has no split of its own.
        side: Side of the images in pixels.
        channels: 1 for grey, 3 for RGB.
        origin: Its authors.
        licence: Its licence, where it names one.
    """

    kind: str
    counts: tuple[int, ...]
    val: int | None
    side: int
    channels: int
    origin: str
    licence: str = "as the source's"


def _even(images: int, classes: int) -> tuple[int, ...]:
    return (images // classes,) * classes


KNOWN: Mapping[str, NamedSet] = {
    DIGITS: NamedSet(
        *("", (178, 182, 177, 183, 181, 182, 181, 179, 174, 180), None, 8, 1),
        "Optical Recognition of Handwritten Digits (Alpaydin and Kaynak, UCI), as bundled with scikit-learn",
        "CC BY 4.0",
    ),
    "fashion_mnist": NamedSet(
        *("FashionMNIST", _even(60_000, 10), 10_000, 28, 1), "Fashion-MNIST (Xiao, Rasul and Vollgraf, 2017)", "MIT"
    ),
    "mnist": NamedSet("MNIST", _even(60_000, 10), 10_000, 28, 1, "MNIST (LeCun, Cortes and Burges)"),
    "kmnist": NamedSet(
        *("KMNIST", _even(60_000, 10), 10_000, 28, 1), "Kuzushiji-MNIST (Clanuwat et al., 2018)", "CC BY-SA 4.0"
    ),
    "emnist": NamedSet(
        *("EMNIST", _even(112_800, 47), 18_800, 28, 1), "EMNIST Balanced (Cohen, Afshar, Tapson and van Schaik, 2017)"
    ),
    "qmnist": NamedSet("QMNIST", _even(60_000, 10), 60_000, 28, 1, "QMNIST (Yadav and Bottou, 2019)"),
    "usps": NamedSet("USPS", _even(7_291, 10), 2_007, 16, 1, "USPS (Hull, 1994)"),
    "cifar10": NamedSet("CIFAR10", _even(50_000, 10), 10_000, 32, 3, "CIFAR-10 (Krizhevsky, 2009)"),
    "cifar100": NamedSet("CIFAR100", _even(50_000, 100), 10_000, 32, 3, "CIFAR-100 (Krizhevsky, 2009)"),
    "svhn": NamedSet(
        *("SVHN", _even(73_257, 10), 26_032, 32, 3),
        "Street View House Numbers (Netzer et al., 2011)",
        "non-commercial use only",
    ),
    "stl10": NamedSet("STL10", _even(5_000, 10), 8_000, 96, 3, "STL-10 (Coates, Lee and Ng, 2011)"),
    "eurosat": NamedSet("EuroSAT", _even(27_000, 10), None, 64, 3, "EuroSAT (Helber et al., 2019)", "MIT"),
}
"""The sets that may be named without a prefix."""


def is_named(data: str) -> bool:
    """Whether a text names a data set, and not a folder. A folder with the name of a data set is written ``./NAME``."""
    return data in KNOWN or data == _DIGITS or data.startswith(_TORCHVISION)


def check_name(data: str) -> None:
    """Check that the name of a data set is not that of a folder here, too.

    Raises:
        InputError: If it is. The message shows the spelling of either.
    """
    if data in KNOWN and os.path.lexists(data):
        other = f"{_TORCHVISION}{data}" if KNOWN[data].kind else _DIGITS
        found = f"{data!r}, the name of a data set and of a folder here"
        raise InputError("data", found, "one of the two", f"Write data=./{data} for the folder, or data={other}")


def bare_name(data: str) -> str:
    """Name of a set without the library that it is from: ``fashion_mnist`` for ``torchvision:FashionMNIST``."""
    name = data.rpartition(":")[2]
    return next((known for known in KNOWN if letters(known) == letters(name)), name)


def letters(name: str) -> str:
    """A name as it is compared: in small letters, without underscores."""
    return name.replace("_", "").lower()


def known_set(data: str) -> NamedSet | None:
    """What is known of a set beforehand; ``None`` for a folder, and for other sets of torchvision."""
    return KNOWN.get(bare_name(data)) if is_named(data) else None


def near_names(text: str) -> str:
    """Names of data sets that are like a text; all of them if none is."""
    return listed(difflib.get_close_matches(text, KNOWN, n=3) or KNOWN, len(KNOWN))
