"""Keys of methods, networks, data sets and variants, the names shown for them, and their order in tables."""

import re
from collections.abc import Mapping
from typing import Any

from dgs_lightning.runs.layout import GIVEN_POOL, PROTOCOL, SOFT, UNAUGMENTED
from dgs_lightning.runs.methods import METHODS, find_method
from dgs_lightning.selection.distribution import PUBLISHED

Variants = Mapping[str, Mapping[str, Any]]  # name of a variant -> its method and the settings that it changes

_SUBSET = "-val_"
DISTRIBUTIONS = (*PUBLISHED, "scale")  # sampling distributions that the paper compares
_NAMES: Mapping[str, Mapping[str, str]] = {  # field of a setting -> key -> name shown, in the order of the tables
    "network": {"convnet6": "ConvNet-6", "resnet_ap10": "ResNetAP-10", "resnet18": "ResNet-18"},
    "dataset": {
        "digits": "Digits",
        "fashion_mnist": "Fashion-MNIST",
        "cifar10": "CIFAR-10",
        "svhn": "SVHN",
        "imagewoof": "ImageWoof",
        "imagenette": "ImageNette",
        "imageidc": "ImageIDC",
        "imagenet100": "ImageNet-100",
        "imagenet1k": "ImageNet-1K",
    },
    "variant": {
        **{name: name.capitalize() for name in DISTRIBUTIONS},
        **{"val_original": "Ori", "val_random": "Random", "val_easy": "Easy", "val_scale": "Scale"},
    },
}
_NUMBERED = {  # field of a setting -> key with a number -> name shown
    "network": {r"convnet(\d+)": r"ConvNet-\1", r"convnet(\d+)_padded": r"ConvNet-\1, padded"},
    "variant": {
        **{r"pool(\d+)": r"\1 x IPC", r"stop(\d+)": r"stop \1", r"stop(\d+)-below": r"stop \1, below"},
        **{r"guidance_([\d.]+)(_dgs)?": r"guidance \1", r"dag_(scale|stop)_([\d.]+)": r"\1 \2"},
    },
}


def under(network: str, protocol: str) -> str:
    """Name of a network after that of its protocol, if this is not the one with the labels of the images."""
    return network if protocol == PROTOCOL else f"{protocol}/{network}"


def on_subset(row: str, subset: str) -> str:
    """The row with the accuracies of a row's trainings on a subset of the validation images: ``ROW-val_SUBSET``."""
    return f"{row}{_SUBSET}{subset}"


def trained_row(row: str, variants: Variants) -> str:
    """The row whose trainings a row shows: itself, unless :func:`on_subset` made it."""
    return row if row in variants or _SUBSET not in row else row.rpartition(_SUBSET)[0]


def split_variant(row: str, variants: Variants) -> tuple[str, str]:
    """Method and variant of a row: the key of a method, ``METHOD-VARIANT``, or the name of one of the ``variants``.

    The variant is named as in the keys of the paper's tables: a sampling distribution, ``stopN``, ``poolN``, or
    ``val_NAME`` for a row of :func:`on_subset`; ``stopN-below`` guides the steps below the stop. Otherwise it is the
    row's name without its method. It is empty for an unchanged method.
    """
    if row not in variants:
        trained, _, subset = row.rpartition(_SUBSET)
        if trained in variants:
            method, variant = split_variant(trained, variants)
            return method, f"{variant}, val_{subset}"
        method, _, variant = row.partition("-")
        return method, variant
    changes = variants[row]
    method = str(changes["method"])
    distribution = changes.get("select", {}).get("distribution")
    own = changes.get(method)
    guidance = own if isinstance(own, dict) else {}
    stop, side = guidance.get("stop_timestep"), guidance.get("guided", "above")
    if isinstance(distribution, str):
        return method, distribution
    if stop is not None:
        return method, f"stop{stop}" + ("" if side == "above" else f"-{side}")
    if "pool_multiple" in changes:
        return method, f"pool{changes['pool_multiple']}"
    return method, row.removeprefix(f"{method}-")


def show(field: str, value: object) -> str:
    """The name of a field's value in tables and figures; a value without a name is shown as it is.

    The fields are those of :class:`~dgs_lightning.reporting.published.Setting`.
    """
    text = str(value)
    if field == "network" and "/" in text:
        protocol, _, network = text.partition("/")
        labels = ", soft labels" if protocol.startswith(SOFT) else ""
        return show(field, network) + labels + ", no data augmentation" * protocol.endswith(UNAUGMENTED)
    for pattern, name in _NUMBERED.get(field, {}).items():
        if match := re.fullmatch(pattern, text):
            return match.expand(name)
    if field == "method" and (method := find_method(text)):
        return method.title
    return _NAMES.get(field, {}).get(text, text)


def pool_name(pool: str) -> str:
    """The name of an image pool: that of its method, and of the row whose settings it has if these are not all rows'.

    A pool that was made outside of the run has no method.
    """
    method, _, row = pool.partition("-")
    return "Given pool" if pool == GIVEN_POOL else f"{show('method', method)} pool" + (f" ({row})" if row else "")


def show_row(row: str, variants: Variants) -> str:
    """The name of a row in tables and figures: its method, and its variant in brackets."""
    method, variant = split_variant(row, variants)
    shown = ", ".join(show("variant", part) for part in variant.split(", "))
    return show("method", method) + (f" ({shown})" if shown else "")


def table_order(field: str, value: object) -> tuple[int, str]:
    """Sort key of a value in tables: numbers by size, named values in the paper's order, other values last by name."""
    if isinstance(value, int):
        return value, ""
    known = list(METHODS if field == "method" else _NAMES[field])
    return (known.index(str(value)) if value in known else len(known)), str(value)
