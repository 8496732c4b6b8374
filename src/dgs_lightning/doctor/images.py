"""The images that an experiment starts from: are they there, of the right classes, enough, and readable?"""

from collections.abc import Iterator
from pathlib import Path
from statistics import median

from dgs_lightning.bounds import with_defaults
from dgs_lightning.commands.crops import crops
from dgs_lightning.commands.prepare import DIGITS, SPLITS, Split, prepare
from dgs_lightning.configs import expand
from dgs_lightning.data.classes import check_labels
from dgs_lightning.data.editions import edition_of
from dgs_lightning.data.folders import read_set
from dgs_lightning.data.images import load_image
from dgs_lightning.data.splits import validation_count
from dgs_lightning.doctor.finding import Finding, error_of, of_error, ok, problem, warning
from dgs_lightning.errors import InputError, listed
from dgs_lightning.experiment.settings import Experiment, variant_of
from dgs_lightning.runs.methods import METHODS, ORIGINALS

FEW = 20  # validation images of a class, from which Table 6 takes parts
SAMPLE = 24  # images of each folder that are read
Trees = dict[str, Split]
"""Image sets by their use: ``train`` and ``val``, or ``data`` (to be split), ``original`` and ``pool``."""


def open_trees(experiment: Experiment) -> tuple[Trees, list[Finding]]:
    """The image sets that an experiment names, and the problems of those that cannot be read."""
    trees: Trees = {}
    findings: list[Finding] = []
    for role, folder in _folders(experiment).items():
        try:
            trees[role] = Split(role, folder, read_set(folder))
        except InputError as error:
            found = of_error(error)
            if role in SPLITS and folder.parent.is_dir():
                remedy = f"{found.remedy}; if {folder.parent} holds class folders, let dgs split it: --set prepare={{}}"
                found = problem(found.what, remedy)
            findings.append(found)
    return trees, findings


def _folders(experiment: Experiment) -> dict[str, Path]:
    """The folders of images that an experiment names, by their use."""
    folders = {role: Path(name) for role in ("original", "pool") if (name := getattr(experiment, role)) is not None}
    if experiment.data is None or are_digits(experiment):
        return folders
    data = Path(experiment.data)
    split = experiment.prepare is None or all((data / name).is_dir() for name in SPLITS)
    return folders | ({name: data / name for name in SPLITS} if split else {"data": data})


def are_digits(experiment: Experiment) -> bool:
    """Whether the images are scikit-learn's digits."""
    return experiment.data == DIGITS and experiment.prepare is not None


def classes_from(trees: Trees) -> Split | None:
    """The set with the classes of the experiment; ``None`` if it cannot be read."""
    return next((trees[role] for role in ("train", "data", "original", "pool") if role in trees), None)


def check_classes(experiment: Experiment, trees: Trees) -> Iterator[Finding]:
    """The classes of one set against the list that the experiment names, and those of the other sets against these."""
    first = classes_from(trees)
    if first is None:
        return
    labels = sorted(first.counts)
    if len(labels) < 2:
        yield problem(f"{first.folder} has only one class", "Give the folder that holds all class folders")
    elif error := error_of(check_labels, set(labels), experiment.classes, first.folder):
        yield of_error(error)
    else:
        known = f" of {experiment.classes}, by their WordNet ids" if experiment.classes else f" ({listed(labels, 10)})"
        yield ok(f"{first.folder}: {len(labels)} classes{known}")
    for tree in trees.values():
        if error := error_of(check_labels, set(tree.counts), labels, tree.folder):
            what = f"{tree.folder} has other classes than {first.folder}: {error.parts[1]}"
            yield problem(what, "Give both the same class folders")


def check_counts(experiment: Experiment, trees: Trees) -> Iterator[Finding]:
    """Images of each class, against those that are to be selected."""
    ipc = experiment.ipcs[-1]
    for role, tree in trees.items():
        sizes = tree.counts.values()
        yield ok(f"{tree.folder}: {len(tree.records):,} images, {min(sizes):,} to {max(sizes):,} of a class")
        if role == "val":
            continue
        share = val_fraction(experiment) if role == "data" else None
        classes = sorted(tree.counts.items())
        left = {label: size - (validation_count(size, share) if share else 0) for label, size in classes}
        short, least = [f"{label}: {size}" for label, size in left.items() if size < ipc], min(left.values())
        if short:
            what = f"{tree.folder}: {len(short)} classes with fewer images than the largest ipc {ipc}"
            what, remedy = f"{what} ({listed(short, 10)})", f"Add images, or lower ipc to {max(1, least)}"
            fatal = role == "pool" or least == 0 or _selects_from_originals(experiment)
            yield problem(what, remedy) if fatal else warning(what, remedy)
        elif role == "pool" and least < 2 * ipc:
            what = f"{tree.folder}: hardly more images of a class than the ipc {ipc}, so there is little to select from"
            yield warning(what, f"Make a pool of {experiment.pool_multiple * ipc} images a class, as the paper does")


def check_drawn(experiment: Experiment, trees: Trees) -> Iterator[Finding]:
    """Training images of each class, against those that a method cuts crops from."""
    tree = trees.get("train") or trees.get("data") or trees.get("original")
    rows = [METHODS[key] for row in experiment.methods if (key := variant_of(experiment, row)[0]) in METHODS]
    makers = {method.maker for method in rows if any(stage.command == "crops" for stage in method.made_by)}
    if tree is None:
        return
    share = val_fraction(experiment) if "data" in trees else None
    least = min(size - (validation_count(size, share) if share else 0) for size in tree.counts.values())
    for key in sorted(makers):
        drawn = with_defaults(crops, experiment.settings_of(key))["mipc"]
        if drawn is not None and least < drawn:
            what = (
                f"{tree.folder}: {least} training images in the smallest class, and {METHODS[key].title} draws {drawn}"
            )
            yield problem(what, f"Add images, or set options.{key}.mipc to at most {least}")


def check_validation_sets(experiment: Experiment, trees: Trees) -> Iterator[Finding]:
    """Validation images of each class, against the subsets of them that trainings are evaluated on (Table 6)."""
    subsets, tree = experiment.validation, trees.get("val") or trees.get("data")
    if not subsets or tree is None:
        return
    share = None if "val" in trees else val_fraction(experiment)
    least = min(validation_count(size, share) if share else size for size in tree.counts.values())
    what = f"{tree.folder}: {least} validation images in the smallest class, to take {listed(subsets)} from"
    if least < 2:
        yield problem(what, "Add validation images: a class needs 2 or more, and 20 or more are better")
    elif least < FEW:
        yield warning(what, "Add validation images, since accuracies on parts of so few images say little")


def val_fraction(experiment: Experiment) -> float:
    """Share of the images that becomes the validation set if one tree is split."""
    return float(with_defaults(prepare, expand(experiment.prepare or {}))["val_fraction"])


def _selects_from_originals(experiment: Experiment) -> bool:
    methods = (METHODS.get(variant_of(experiment, row)[0]) for row in experiment.methods)
    return any(method and method.rule and method.images == ORIGINALS for method in methods)


def check_edition(trees: Trees) -> Iterator[Finding]:
    """The edition of ImageNet, or of a subset. Published numbers are those of ImageNet's own images."""
    if {"train", "val"} <= trees.keys() and (edition := edition_of(trees["train"].counts, trees["val"].counts)):
        yield warning(str(edition), edition.advice) if edition.advice else ok(str(edition))


def check_files(experiment: Experiment, trees: Trees) -> Iterator[Finding]:
    """Whether a sample of the images can be read, and is large enough."""
    for role, tree in trees.items():
        sides, broken = [], []
        for record in tree.records[:: max(1, len(tree.records) // SAMPLE)][:SAMPLE]:
            try:
                sides.append(min(load_image(tree.folder / record.file_name).size))
            except InputError as error:
                broken.append(error)
        side, wanted = int(median(sides or [0])), experiment.image_size
        if broken:
            yield of_error(broken[0], f"{len(broken)} of {len(broken) + len(sides)} images: ")
        elif role != "val" and wanted is not None and side < wanted:
            yield warning(
                f"{tree.folder}: shorter sides of {side} pixels, enlarged to {wanted}",
                f"Use larger originals, or set image_size={side} if the DiT is trained from scratch",
            )
        else:
            yield ok(f"{tree.folder}: a sample of {len(sides)} images is readable")
