"""How methods, networks, data sets and variants are called on disk, and how they are shown."""

import re
from collections.abc import Mapping
from typing import Any

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
NETWORKS = {"convnet6": "ConvNet-6", "resnet_ap10": "ResNetAP-10", "resnet18": "ResNet-18"}
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
_ROW_AND_IPC = re.compile(r"(.+)-ipc(\d+)")


def split_ipc(name: str) -> tuple[str, int | None]:
    """Row of the table and images per class that the name of a set's folder says.

    Args:
        name: ``ROW-ipcN``, or ``full``, which has no IPC.

    Returns:
        For ``dit_dgs-ipc10`` the pair ``("dit_dgs", 10)``; without an IPC the name and None.
    """
    match = _ROW_AND_IPC.fullmatch(name)
    return (match[1], int(match[2])) if match else (name, None)


def split_variant(row: str, variants: Mapping[str, Mapping[str, Any]]) -> tuple[str, str]:
    """Method and variant of a row of the table.

    Args:
        row: A method's slug, ``METHOD-VARIANT``, or the name of one of the experiment's variants.
        variants: The experiment's variants: name to ``{method: ..., CHANGES}``.

    Returns:
        The method and, as the paper's tables are keyed, its variant: the name of a sampling distribution, ``stopN``,
        ``poolN``, ``val_NAME``, or else the row's own name, without that of its method; empty for a method as it is.
    """
    if row not in variants:
        method, _, variant = row.partition("-")
        return method, variant
    changes = variants[row]
    method = str(changes["method"])
    distribution = changes.get("select", {}).get("distribution")
    stop = {**changes.get("mgd3", {}), **changes.get("dag", {})}.get("stop_timestep")
    if isinstance(distribution, str):
        return method, distribution
    if stop is not None:
        return method, f"stop{stop}"
    if "pool_multiple" in changes:
        return method, f"pool{changes['pool_multiple']}"
    if "validation" in changes:
        return method, f"val_{changes['validation']}"
    return method, row.removeprefix(f"{method}-")


def show_row(row: str, variants: Mapping[str, Mapping[str, Any]]) -> str:
    """Name of a row in tables and figures: the method, and in brackets its variant."""
    method, variant = split_variant(row, variants)
    return show_method(method) + (f" ({show_variant(variant)})" if variant else "")


def show_method(slug: str) -> str:
    """Name of a method in tables and figures; the slug itself where it is not one of the paper's."""
    return METHODS.get(slug, slug)


def show_network(slug: str) -> str:
    """Name of a downstream network in tables and figures; ``convnetD`` is a ConvNet of any depth."""
    return NETWORKS.get(slug, re.sub(r"^convnet(\d+)$", r"ConvNet-\1", slug))


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
