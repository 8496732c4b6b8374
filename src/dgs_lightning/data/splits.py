"""Folds and validation parts of a set. They depend on file names alone, not on the order or the machine."""

from collections import defaultdict
from collections.abc import Sequence

from dgs_lightning.data.records import ImageRecord
from dgs_lightning.seeding import named_seed


def ranks_in_class(records: Sequence[ImageRecord], *names: int | str) -> list[tuple[int, int]]:
    """Rank of each image within its class, by a hash of its file name and ``names``, and the size of the class."""
    classes: dict[str, list[int]] = defaultdict(list)
    for position, record in enumerate(records):
        classes[record.label].append(position)
    ranks = [(0, 0)] * len(records)
    for positions in classes.values():
        positions.sort(key=lambda position: named_seed(*names, records[position].file_name))
        for rank, position in enumerate(positions):
            ranks[position] = rank, len(positions)
    return ranks


def folds_of(records: Sequence[ImageRecord], folds: int) -> list[int]:
    """Fold of each image, in ``[0, folds)``. The images of a class are spread evenly over the folds.

    A classifier that is trained without fold k has not seen its images. Fewer than two folds raise a ValueError.
    """
    if folds < 2:
        raise ValueError(f"cross-fitting needs at least 2 folds, got {folds}; set folds: 5")
    return [rank % folds for rank, _ in ranks_in_class(records, "fold")]


def validation_part(records: Sequence[ImageRecord], fraction: float, seed: int) -> list[bool]:
    """Whether each image is for validation: a fraction of every class, at least one image but never all.

    A fraction that is not between 0 and 1 raises a ValueError.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"a validation fraction lies between 0 and 1, got {fraction}; set 0.2")
    ranks = ranks_in_class(records, "split", seed)
    return [rank < min(validation_count(size, fraction), size - 1) for rank, size in ranks]


def validation_count(size: int, fraction: float) -> int:
    """Number of images for validation in a class of so many images: at least one, and not all of several."""
    return max(1, min(round(fraction * size), size - 1))


def split_sizes(classes: Sequence[int], fraction: float) -> tuple[int, int]:
    """Numbers of images for training and for validation, from the number of images in each class."""
    val = sum(validation_count(size, fraction) for size in classes)
    return sum(classes) - val, val
