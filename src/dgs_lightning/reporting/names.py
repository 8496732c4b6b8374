"""How methods, networks, data sets and variants are called on disk, and how they are shown."""

import re
from collections.abc import Mapping
from typing import NamedTuple

METHODS = {
    "random": "Random",
    "kcenter": "K-Center",
    "herding": "Herding",
    "kmeans": "K-Means",
    "ccs": "CCS",
    "dgs_ori": "DGS (Ori)",
    "dm": "DM",
    "idc1": "IDC-1",
    "d4m": "D4M",
    "dit": "DiT",
    "dit_dgs": "DiT + DGS",
    "minimax": "Minimax",
    "minimax_dgs": "Minimax + DGS",
    "pool": "Pool",
    "pool_dgs": "Pool + DGS",
    "mgd3": "MGD3",
    "dag": "DAG",
    "full": "Full dataset",
}
NETWORKS = {"convnet6": "ConvNet-6", "convnet3": "ConvNet-3", "resnet_ap10": "ResNetAP-10", "resnet18": "ResNet-18"}
DATASETS = {
    "digits": "Digits",
    "imagewoof": "ImageWoof",
    "imagenette": "ImageNette",
    "imageidc": "ImageIDC",
    "imagenet100": "ImageNet-100",
    "imagenet1k": "ImageNet-1K",
}
VARIANTS = {
    "hill": "Hill",
    "ground": "Ground",
    "slope": "Slope",
    "cliff": "Cliff",
    "scale": "Scale",
    "val_original": "Ori",
    "val_random": "Random",
    "val_easy": "Easy",
    "val_scale": "Scale",
}
_SET_NAME = re.compile(r"(?P<method>[a-z0-9_]+)(-(?P<variant>[a-z0-9_]+))?-ipc(?P<ipc>\d+)")


class SetName(NamedTuple):
    """What the name of a distilled set's folder says, for example ``minimax_dgs-hill-ipc10``."""

    method: str
    variant: str
    ipc: int


def parse_set_name(name: str) -> SetName | None:
    """Read ``METHOD[-VARIANT]-ipcN``.

    Args:
        name: Name of a folder below ``distilled/`` or ``evaluation/``.

    Returns:
        Its parts, or None where the name has another form.
    """
    match = _SET_NAME.fullmatch(name)
    return None if match is None else SetName(match["method"], match["variant"] or "", int(match["ipc"]))


def show_method(slug: str) -> str:
    """Name of a method in tables and figures; the slug itself where it is not one of the paper's."""
    return METHODS.get(slug, slug)


def show_network(slug: str) -> str:
    """Name of a downstream network in tables and figures."""
    return NETWORKS.get(slug, slug)


def show_dataset(slug: str) -> str:
    """Name of a data set in tables and figures."""
    return DATASETS.get(slug, slug)


def show_variant(slug: str) -> str:
    """Name of a variant: a sampling distribution, ``poolN``, ``stopN``, or a validation set ``val_NAME``."""
    for prefix, form in (("pool", "{} x IPC"), ("stop", "stop {}")):
        if slug.removeprefix(prefix).isdigit():
            return form.format(slug.removeprefix(prefix))
    return VARIANTS.get(slug, slug)


def table_order(known: Mapping[str, str], slug: str) -> tuple[int, str]:
    """Sort key that puts the known slugs in their table's order, and unknown ones last by name."""
    return (list(known).index(slug) if slug in known else len(known), slug)
