"""Labels of classes: the published class lists, ImageNet's order, readable names, comparison with a list."""

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from dgs_lightning.data.folders import scan_images
from dgs_lightning.errors import InputError

_LISTS = Path(__file__).parent / "class_lists"
WORDNET_ID = re.compile(r"n\d{8}")
CLASS_LISTS = ("imagewoof", "imagenette", "imageidc", "imagenet100", "imagenet1k")


def class_list(name: str) -> tuple[str, ...]:
    """WordNet ids of a published subset of ImageNet, in the published order.

    Raises:
        InputError: If the name is not in ``CLASS_LISTS``.
    """
    if name == "imageidc":
        return class_list("imagenet100")[:10]
    if name == "imagenet1k":
        return tuple(_imagenet().label_names())
    if name not in CLASS_LISTS:
        raise InputError.choice("classes", name, CLASS_LISTS, "Name one of them, or give the labels themselves")
    return tuple((_LISTS / f"{name}.txt").read_text(encoding="utf-8").split())


@cache
def _imagenet() -> Any:  # noqa: ANN401  (timm is not typed)
    from timm.data.imagenet_info import ImageNetInfo  # slow to import, and needed for ImageNet's labels alone

    return ImageNetInfo()


@cache
def _imagenet_ranks() -> dict[str, int]:
    return {label: rank for rank, label in enumerate(class_list("imagenet1k"))}


def imagenet_index(label: str) -> int | None:
    """Rank of a WordNet id among the 1,000 of ImageNet-1K; none for other labels."""
    return _imagenet_ranks().get(label) if WORDNET_ID.fullmatch(label) else None


def readable_name(label: str) -> str:
    """The first English name of a WordNet id, such as ``Shih-Tzu`` for ``n02086240``; other labels unchanged."""
    if imagenet_index(label) is None:
        return label
    description: str = _imagenet().label_name_to_description(label)
    return description.split(",", 1)[0]


def labels_of(source: str | Path) -> tuple[str, ...]:
    """Labels of a class list, by its name, in its order; or of a tree of class folders, sorted.

    Raises:
        InputError: If it is no class list, and no folder with images.
    """
    if source in CLASS_LISTS:
        return class_list(str(source))
    return tuple(sorted({record.label for record in scan_images(Path(source))}))


def check_labels(found: set[str], expected: str | Sequence[str] | None, where: object) -> tuple[str, ...]:
    """Check the labels of an image set against a list, and return them in its order; without a list, sorted.

    Args:
        found: Labels of an image set.
        expected: The labels that it must have, or the name of a class list; none if all labels are allowed.
        where: The set, for the message.

    Raises:
        InputError: If the labels differ from those of the list; the message names the differences.
    """
    if expected is None:
        return tuple(sorted(found))
    labels = class_list(expected) if isinstance(expected, str) else tuple(expected)
    missing, unknown = [label for label in labels if label not in found], sorted(found - set(labels))
    if missing or unknown:
        wanted = f"the {len(labels)} classes of {expected if isinstance(expected, str) else 'the list'}"
        remedy = "Name the list that fits, or add and remove class folders"
        raise InputError.labels(where, wanted, remedy, missing=missing, unknown=unknown)
    return labels
