"""What names and bytes of the image files tell without decoding: files that are ignored, and images that are alike."""

from collections.abc import Iterator
from pathlib import Path

from dgs_lightning.data.sources import ignored_of, in_both, png_names, split_tree
from dgs_lightning.data.trees import parts_among
from dgs_lightning.doctor.finding import Finding, error_of, of_error, warning
from dgs_lightning.errors import listed
from dgs_lightning.experiment.images import Trees, val_fraction
from dgs_lightning.experiment.settings import Experiment


def check_ignored(experiment: Experiment, trees: Trees) -> Iterator[Finding]:
    """Files that are not read as images, by ending, class folders without images, and folders beside train and val."""
    remedy = "Save images as PNG or JPEG, in the folder of their class; leave the rest as it is if it is no image"
    own = [tree for role, tree in trees.items() if role not in ("original", "pool")]
    found = ignored_of(Path(experiment.data), own) if experiment.data and own else {}
    for tree in trees.values():
        found |= {} if tree in own else ignored_of(tree.folder, [tree])
        if parts := sorted(parts_among(tree.counts)):
            what = f"{tree.folder}: a class with the name of a part of a data set ({listed(parts)})"
            yield warning(what, "If it is no class, move it out of the folder")
    for what in found.values():
        yield warning(what, remedy)


def check_endings(experiment: Experiment, trees: Trees) -> Iterator[Finding]:
    """Images that differ from another in their ending alone, which becomes ``.png`` for all that are prepared."""
    if experiment.prepare is None:
        return
    for tree in (tree for role, tree in trees.items() if role not in ("original", "pool")):
        if error := error_of(png_names, tree):
            yield of_error(error)


def check_identical(experiment: Experiment, trees: Trees) -> Iterator[Finding]:
    """Images for validation that are among those for training, byte for byte."""
    train, val, share = trees.get("train"), trees.get("val"), val_fraction(experiment)
    if "data" in trees and 0 < share < 1:
        train, val = split_tree(trees["data"], share, experiment.seed)
    if train is None or val is None:
        return
    if same := in_both(train, val):
        yield warning(same, "Remove them from one of the two: an accuracy on images of the training says little")
