"""The images that an experiment starts from: are they there, of the right classes, enough, and readable?"""

from collections.abc import Iterator
from statistics import median

from dgs_lightning.bounds import with_defaults
from dgs_lightning.commands.crops import crops
from dgs_lightning.commands.prepare import prepare
from dgs_lightning.configs import expand
from dgs_lightning.data.classes import check_labels, extremes, in_natural_order, is_imbalanced
from dgs_lightning.data.editions import edition_of
from dgs_lightning.data.images import Range, load_image, sample, values_of, why_not_of_16_bits
from dgs_lightning.data.named import DIGITS, bare_name, is_named
from dgs_lightning.data.sources import SPLITS, other_folder
from dgs_lightning.data.splits import validation_count
from dgs_lightning.doctor.finding import Finding, error_of, of_error, ok, problem, warning
from dgs_lightning.errors import InputError, counted, listed
from dgs_lightning.experiment.images import Trees, classes_from, image_folders, read_images, val_fraction
from dgs_lightning.experiment.settings import Experiment, variant_of
from dgs_lightning.runs.methods import METHODS, ORIGINALS

FEW = 20  # validation images of a class, from which Table 6 takes parts


def open_trees(experiment: Experiment) -> tuple[Trees, list[Finding]]:
    """The image sets that an experiment names, and the problems of those that cannot be read."""
    trees: Trees = {}
    findings: list[Finding] = []
    for role, folder in image_folders(experiment).items():
        try:
            trees[role] = read_images(experiment, role, folder)
        except InputError as error:
            found = of_error(error)
            if role in SPLITS and folder.parent.is_dir():
                remedy = f"{found.remedy}; if {folder.parent} holds class folders, let dgs split it: --set prepare={{}}"
                found = problem(found.what, remedy)
            findings.append(found)
    return trees, findings


def check_named_set(experiment: Experiment) -> Iterator[Finding]:
    """Where the files of a data set by name are, and whether they are there."""
    if experiment.data is None or not is_named(experiment.data) or bare_name(experiment.data) == DIGITS:
        return
    from dgs_lightning.data.fetching import files_of, missing_files  # slow to import

    data, folder = experiment.data, files_of(experiment.data, experiment.root)
    if missing := missing_files(data, experiment.root):
        remedy = (
            f"The run downloads them into {folder}; without a network, copy them there, or set root to their folder"
        )
        yield warning(f"{folder}: no files of {data} ({missing})", remedy)
    else:
        yield ok(f"{data}: files in {folder}")


def value_range_of(experiment: Experiment, role: str) -> Range | None:
    """The values of an image set that become black and white when it is prepared; none for those of 16 bits."""
    match with_defaults(prepare, expand(experiment.prepare or {}))["value_range"]:
        case [int() | float() as low, int() | float() as high] if low < high and role in (*SPLITS, "data"):
            return low, high
    return None


def check_classes(experiment: Experiment, trees: Trees) -> Iterator[Finding]:
    """The classes of one set against the list that the experiment names, and those of the other sets against these."""
    first = classes_from(trees)
    if first is None:
        return
    labels = in_natural_order(first.counts)
    if len(labels) < 2:
        yield problem(f"{first.folder} has only one class", other_folder(first))
    elif error := error_of(check_labels, set(labels), experiment.classes, first.folder):
        yield of_error(error)
    else:
        known = f" of {experiment.classes}, by their WordNet ids" if experiment.classes else f" ({listed(labels, 10)})"
        yield ok(f"{first.folder}: {counted(len(labels), 'class')}{known}")
    for tree in trees.values():
        if error := error_of(check_labels, set(tree.counts), labels, tree.folder):
            what = f"{tree.folder} has other classes than {first.folder}: {error.parts[1]}"
            yield problem(what, "Give both the same class folders")


def check_counts(experiment: Experiment, trees: Trees) -> Iterator[Finding]:
    """Images of each class, against those that are to be selected."""
    ipc = experiment.ipcs[-1]
    for role, tree in trees.items():
        sizes = tree.counts.values()
        yield ok(f"{tree.folder}: {counted(len(tree.records), 'image')}, {min(sizes):,} to {max(sizes):,} of a class")
        if role == "val":
            continue
        share = val_fraction(experiment) if role == "data" else None
        classes = [(label, tree.counts[label]) for label in in_natural_order(tree.counts)]
        left = {label: size - (validation_count(size, share) if share else 0) for label, size in classes}
        short, least = [f"{label}: {size}" for label, size in left.items() if size < ipc], min(left.values())
        if short:
            what = f"{tree.folder}: {counted(len(short), 'class')} with fewer images than the largest ipc {ipc}"
            what, remedy = f"{what} ({listed(short, 10)})", f"Add images, or lower ipc to {max(1, least)}"
            fatal = role == "pool" or least == 0 or _selects_from_originals(experiment)
            yield problem(what, remedy) if fatal else warning(what, remedy)
        elif role == "pool" and least < 2 * ipc:
            what = f"{tree.folder}: hardly more images of a class than the ipc {ipc}, so there is little to select from"
            yield warning(what, f"Make a pool of {experiment.pool_multiple * ipc} images a class, as the paper does")


def check_balance(experiment: Experiment, trees: Trees) -> Iterator[Finding]:
    """Numbers of images of the classes. Where they differ much, an estimator may learn them instead of the images."""
    tree = classes_from(trees)
    if tree is None or not is_imbalanced(tree.counts):
        return
    own = expand(experiment.cross_fit).get("model", {}).get("init_args", {})
    remedy = "Read the accuracy of each class: that of all images is mostly that of the large classes"
    if experiment.estimator is None and not own.get("balanced"):
        balanced = "cross_fit.model.init_args.balanced=true"
        remedy = f"Set {balanced}, or difficulty says how small a class is; or give classes of similar size"
    yield warning(f"{tree.folder}: classes of {' to '.join(extremes(tree.counts))} images", remedy)


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
    what = f"{tree.folder}: {counted(least, 'validation image')} in the smallest class, to take {listed(subsets)} from"
    if least < 2:
        yield problem(what, "Add validation images: a class needs 2 or more, and 20 or more are better")
    elif least < FEW:
        yield warning(what, "Add validation images, since accuracies on parts of so few images say little")


def _selects_from_originals(experiment: Experiment) -> bool:
    methods = (METHODS.get(variant_of(experiment, row)[0]) for row in experiment.methods)
    from_originals = (method and method.rule and method.images == ORIGINALS for method in methods)
    return bool(experiment.scores) or any(from_originals)  # scores compare with a random set


def check_edition(trees: Trees) -> Iterator[Finding]:
    """The edition of ImageNet, or of a subset. Published numbers are those of ImageNet's own images."""
    if {"train", "val"} <= trees.keys() and (edition := edition_of(trees["train"].counts, trees["val"].counts)):
        yield warning(str(edition), edition.advice) if edition.advice else ok(str(edition))


def check_files(experiment: Experiment, trees: Trees) -> Iterator[Finding]:
    """Whether a sample of the images can be read, and is large enough."""
    for role, tree in trees.items():
        sides, broken = [], []
        value_range = value_range_of(experiment, role)
        paths = [tree.folder / record.file_name for record in sample(tree.records)]
        if error := why_not_of_16_bits(map(values_of, paths), tree.folder, value_range):
            yield of_error(error)
            continue
        for path in paths:
            try:
                sides.append(min(load_image(path, value_range=value_range).size))
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
            yield ok(f"{tree.folder}: a sample of {counted(len(sides), 'image')} is readable")
