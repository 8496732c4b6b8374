"""Labels of classes: the published class lists, ImageNet's order, readable names, comparison with a list."""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from dgs_lightning.data.folders import scan_images
from dgs_lightning.errors import InputError, counted, listed

_LISTS = Path(__file__).parent / "class_lists"
WORDNET_ID = re.compile(r"n\d{8}")
IMBALANCED = 3  # times as many images in the largest class as in the smallest
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


def in_natural_order(labels: Iterable[str]) -> list[str]:
    """Labels as people list them: ``2`` before ``10``, and ``a`` beside ``A``. It is the order of what is shown.

    Positions of labels, seeds and files follow the plain order of the characters.
    """

    def key(label: str) -> tuple[list[str | int], str]:
        parts = re.split(r"(\d+)", label.casefold())  # texts at even places, numbers at odd ones
        return [int(part) if place % 2 else part for place, part in enumerate(parts)], label

    return sorted(labels, key=key)


def is_imbalanced(counts: Mapping[str, int]) -> bool:
    """Whether the largest class has several times as many images as the smallest."""
    return bool(counts) and max(counts.values()) >= IMBALANCED * min(counts.values())


def extremes(counts: Mapping[str, int], name: Callable[[str], str] = str) -> list[str]:
    """The class with the fewest images and that with the most, in words: ``6 (owl)`` and ``167 (cat)``."""
    labels = sorted(counts, key=lambda label: counts[label])
    return [f"{counts[label]:,} ({name(label)})" for label in (labels[0], labels[-1])]


def labels_of(source: str | Path) -> tuple[str, ...]:
    """Labels of a class list, by its name, in its order; or of a tree of class folders, sorted.

    Raises:
        InputError: If it is no class list, and no folder with images.
    """
    if source in CLASS_LISTS:
        return class_list(str(source))
    return tuple(sorted({record.label for record in scan_images(Path(source), links="follow")}))


def check_labels(found: set[str], expected: str | Sequence[str] | None, where: object) -> tuple[str, ...]:
    """Check the labels ``found`` of an image set against a list, and return them in its order.

    ``expected`` is the list or the name of a class list. Without it, all labels are allowed, and returned sorted.
    ``where`` names the set in the message.

    Raises:
        InputError: If the labels differ from those of the list; the message names the differences.
    """
    if expected is None:
        return tuple(sorted(found))
    labels = class_list(expected) if isinstance(expected, str) else tuple(expected)
    missing, unknown = [label for label in labels if label not in found], sorted(found - set(labels))
    if missing or unknown:
        wanted = f"the {counted(len(labels), 'class')} of {expected if isinstance(expected, str) else 'the list'}"
        other = list_with(found) if isinstance(expected, str) else None
        remedy = f"These are the classes of {other}: name that list, or another folder" if other else ""
        remedy = remedy or _how_to_match(missing, unknown)
        raise InputError.labels(where, wanted, remedy, missing=[*map(with_name, missing)], unknown=unknown)
    return labels


def check_known(labels: Collection[str], known: Collection[str], where: object, remedy: str) -> None:
    """Raise an InputError unless a model knows all labels of an image set.

    ``where`` names the model. ``remedy`` says what to do about labels that are not readable names of known ones.
    """
    if unknown := sorted(set(labels) - set(known)):
        if names := renamings(unknown, known):
            others = "" if len(names) == len(unknown) else f". {remedy}"
            remedy = f"Rename the folders from names to labels: {listed(names, 10)}{others}"
        raise InputError.labels(
            where, f"labels of the model, for {counted(len(labels), 'class')}", remedy, unknown=unknown
        )


def list_with(labels: set[str]) -> str | None:
    """Name of the published list that has exactly these classes; ``None`` if no list has."""
    sizes = {10: CLASS_LISTS[:3], 100: CLASS_LISTS[3:4], 1000: CLASS_LISTS[4:]}
    return next((name for name in sizes.get(len(labels), ()) if set(class_list(name)) == labels), None)


def renamings(folders: Collection[str], labels: Collection[str]) -> list[str]:
    """Class folders that have the readable name of a label, such as ``Tench -> n01440764``.

    A readable name that several labels have comes with all of them: ``crane -> n02012849 or n03126707``.
    """
    ids: dict[str, list[str]] = {}
    for label in labels:
        ids.setdefault(_letters(readable_name(label)), []).append(label)
    return [f"{folder} -> {' or '.join(ids[_letters(folder)])}" for folder in folders if _letters(folder) in ids]


def with_name(label: str) -> str:
    """A WordNet id with its readable name, ``n02086240 (Shih-Tzu)``; other labels unchanged."""
    name = readable_name(label)
    return label if name == label else f"{label} ({name})"


def _letters(name: str) -> str:
    """Letters and digits of a name in lower case, since people write the rest in different ways."""
    return "".join(filter(str.isalnum, name.lower()))


def _how_to_match(missing: Sequence[str], unknown: Sequence[str]) -> str:
    """How to change class folders, by the likeliest reason why their names differ from the labels expected."""
    if names := renamings(unknown, missing):
        return f"Rename the folders from names to WordNet ids: {listed(names, 10)}"
    if missing and imagenet_index(missing[0]) is not None and unknown and all(name.isdigit() for name in unknown):
        return (
            "Rename the folders from positions to WordNet ids. They may be numbered in the published or the sorted "
            f"order: compare some images, sorted begins {with_name(min(missing))}, published {with_name(missing[0])}"
        )
    added = f"Add the folders {listed(map(with_name, missing), 10)}" if missing else ""
    removed = f"Copy the listed class folders to a place without {listed(unknown, 3)}" if unknown else ""
    return "; ".join(filter(None, (added, removed))) + "; or name the list that fits"
