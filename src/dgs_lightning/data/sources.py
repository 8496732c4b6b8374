"""The trees of class folders that a data set consists of, before they are prepared: what their names tell."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from dgs_lightning.data.classes import check_labels, in_natural_order
from dgs_lightning.data.folders import ignored_in, read_set
from dgs_lightning.data.identical import identical_files
from dgs_lightning.data.records import ImageRecord
from dgs_lightning.data.splits import validation_part
from dgs_lightning.data.trees import Ignored, Links, visible_folders
from dgs_lightning.errors import InputError, counted, listed

SPLITS = ("train", "val")


@dataclass(frozen=True)
class Split:
    """An image set of an experiment, such as the images for training or validation before they are prepared."""

    name: str
    folder: Path
    records: list[ImageRecord]
    links: Links = "refuse"

    @cached_property
    def counts(self) -> Counter[str]:
        """Number of images of each class."""
        return Counter(record.label for record in self.records)

    @cached_property
    def ignored(self) -> Ignored:
        """What its folder has beside the images that are read."""
        return ignored_in(self.folder, self.links)

    @property
    def paths(self) -> list[Path]:
        """Its image files."""
        return [self.folder / record.file_name for record in self.records]


def has_parts(folder: Path) -> bool:
    """Whether a data set comes as folders train and val, and not as one tree that is split."""
    return all((folder / name).is_dir() for name in SPLITS)


def read_trees(
    folder: Path, output: Path | None, classes: str | None, links: Links = "refuse"
) -> tuple[list[Split], tuple[str, ...]]:
    """The trees of a data set, ``train`` and ``val`` or the one that is to be split, and their classes, by names alone.

    Raises:
        InputError: If images or classes are missing or not those of the list, images differ in their ending alone, or
            an ``output``, where one is given, lies among them.
    """
    folders = {name: folder / name for name in SPLITS} if has_parts(folder) else {"data": folder}
    trees = [Split(name, tree, read_set(tree, links=links), links) for name, tree in folders.items()]
    if len(trees) == 1 and (single := [label for label, count in trees[0].counts.items() if count == 1]):
        found = f"one image only of {counted(len(single), 'class')} ({listed(in_natural_order(single), 10)})"
        expected = "at least two images of each, to split them into train and val"
        raise InputError(folder, found, expected, "Add images, or make folders train and val with all classes")
    if output is not None:
        _check_apart(trees, output)
    labels = _check_classes(trees, classes)
    for tree in trees:
        png_names(tree)
    return trees, labels


def split_tree(tree: Split, val_fraction: float, seed: int) -> list[Split]:
    """The two sets of one tree, split by the hash of file names."""
    in_val = validation_part(tree.records, val_fraction, seed)
    pairs = [*zip(tree.records, in_val, strict=True)]
    parts = [[record for record, val in pairs if val == wanted] for wanted in (False, True)]
    return [replace(tree, name=name, records=part) for name, part in zip(SPLITS, parts, strict=True)]


def _check_apart(trees: Sequence[Split], output: Path) -> None:
    """Raise an error for an output among the images, since the next run would read it as images."""
    for tree in trees:
        among = {tree.folder}
        if tree.links == "follow":
            among |= {path.parent for path in tree.paths}
        if any(output.resolve().is_relative_to(place.resolve()) for place in among):
            found = f"a folder in {tree.folder}, whose images are read"
            raise InputError.occupied(output, found, "a folder outside it", "Give another output")


def _check_classes(trees: Sequence[Split], classes: str | None) -> tuple[str, ...]:
    """The classes, at least two and the same in all trees."""
    first = trees[0]
    labels = check_labels(set(first.counts), classes, first.folder)
    if len(labels) < 2:
        raise InputError(first.folder, f"one class ({labels[0]})", "at least two class folders", other_folder(first))
    for tree in trees[1:]:
        check_labels(set(tree.counts), labels, tree.folder)
    return labels


def other_folder(tree: Split) -> str:
    """What to give instead of a tree with one class: the folder above it, or one in it that holds folders itself."""
    [label] = tree.counts
    deeper = all(record.file_name.count("/") > 1 for record in tree.records)
    return f"Give {tree.folder / label}, which holds folders" if deeper else "Give the folder that holds all classes"


def png_names(tree: Split) -> list[str]:
    """Names that the images of a tree have as PNG.

    Raises:
        InputError: If images differ in their ending alone.
    """
    names = [record.file_name for record in tree.records]
    stems = [os.path.splitext(name)[0] for name in names]
    counts = Counter(stems)
    if alike := [name for name, stem in zip(names, stems, strict=True) if counts[stem] > 1]:
        found = f"{len(alike):,} images whose names differ only in their ending ({listed(alike, 6)})"
        expected = "one image of each name, since all become PNG"
        raise InputError(tree.folder, found, expected, "Rename them apart, or remove one of two of the same picture")
    return [f"{stem}.png" for stem in stems]


def in_both(train: Split, val: Split) -> str:
    """How many images for validation are also there for training, byte for byte, in words; empty if none is."""
    same = identical_files(val.paths, train.paths)
    if not same:
        return ""
    example, other = next(iter(same.items()))
    found = f"{len(same):,} of {len(val.records):,} images for validation are also there for training"
    return f"{found}, such as {example} ({other})"


def ignored_of(folder: Path, trees: Sequence[Split]) -> dict[Path, str]:
    """What is ignored in the trees of a data set and beside them, in words; nothing for a folder that is read whole."""
    found = {tree.folder: str(tree.ignored) for tree in trees}
    if folder not in found and (beside := sorted(visible_folders(folder) - {tree.folder.name for tree in trees})):
        found[folder] = f"folders beside train and val ({len(beside)}: {listed(beside, 10)})"
    return {place: f"{place}: ignored {what}" for place, what in found.items() if what}
