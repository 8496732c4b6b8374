"""The images that an experiment starts from: are they there, of the right classes, enough, and readable?"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import median

from dgs_lightning.commands.prepare import DIGITS, SPLITS
from dgs_lightning.data.classes import CLASS_LISTS, class_list, imagenet_index, readable_name
from dgs_lightning.data.folders import read_set
from dgs_lightning.data.images import load_image
from dgs_lightning.data.records import ImageRecord
from dgs_lightning.doctor.finding import Finding, of_error, ok, problem, warning
from dgs_lightning.errors import InputError
from dgs_lightning.experiment.sections import expand
from dgs_lightning.experiment.settings import Experiment, variant_of
from dgs_lightning.runs.methods import METHODS, ORIGINALS

SAMPLE = 24  # images of each folder that are read
FASTAI = {"imagewoof": (9_025, 3_929), "imagenette": (9_469, 3_925)}  # training and validation images in all
IMAGENET_TRAIN, IMAGENET_VAL = range(732, 1_301), 50  # images of one class


@dataclass(frozen=True)
class ImageTree:
    """A folder of class folders.

    Args:
        role: What the experiment uses it for: ``train``, ``val``, ``data`` (to be split), ``original`` or ``pool``.
        folder: The folder.
        records: Its images.
    """

    role: str
    folder: Path
    records: Sequence[ImageRecord]

    @cached_property
    def counts(self) -> Counter[str]:
        """Images of each class."""
        return Counter(record.label for record in self.records)

    @property
    def labels(self) -> set[str]:
        """The classes."""
        return set(self.counts)

    def sample(self) -> list[Path]:
        """Some images from all over the tree."""
        step = max(1, len(self.records) // SAMPLE)
        return [self.folder / record.file_name for record in self.records[::step][:SAMPLE]]


Trees = dict[str, ImageTree]


def open_trees(experiment: Experiment) -> tuple[Trees, list[Finding]]:
    """The folders of images that an experiment names, by role, and what is wrong with those that cannot be read."""
    trees: Trees = {}
    findings: list[Finding] = []
    for role, folder in _folders(experiment).items():
        try:
            trees[role] = ImageTree(role, folder, read_set(folder))
        except InputError as error:
            findings.append(_unreadable(role, error, experiment))
    return trees, findings


def _folders(experiment: Experiment) -> dict[str, Path]:
    folders = {role: Path(name) for role in ("original", "pool") if (name := getattr(experiment, role)) is not None}
    if experiment.data is None or (experiment.data == DIGITS and experiment.prepare is not None):
        return folders
    data = Path(experiment.data)
    split = experiment.prepare is None or all((data / name).is_dir() for name in SPLITS)
    return folders | ({name: data / name for name in SPLITS} if split else {"data": data})


def _unreadable(role: str, error: InputError, experiment: Experiment) -> Finding:
    """What is wrong with a folder, and for a missing split the way around it."""
    found = of_error(error)
    if role not in SPLITS or not Path(str(experiment.data)).is_dir():
        return found
    return problem(found.what, f"{found.remedy}; for one tree of class folders let dgs split it: --set prepare={{}}")


# ---- classes -----------------------------------------------------------------------------------------------------


def check_classes(experiment: Experiment, trees: Trees) -> Iterator[Finding]:
    """The classes against the list that the experiment names, and of each folder against the first one's."""
    known = [trees[role] for role in ("train", "data", "original", "val", "pool") if role in trees]
    if not known:
        return
    first, *others = known
    if len(first.labels) < 2:
        yield problem(f"{first.folder} has one class alone", "Give the folder that holds all class folders")
    elif experiment.classes is None:
        yield ok(f"{first.folder}: {len(first.labels)} classes ({listed(sorted(first.labels))})")
    else:
        yield _against_list(first, experiment.classes)
    for tree in others:
        missing, unknown = sorted(first.labels - tree.labels), sorted(tree.labels - first.labels)
        if missing or unknown:
            yield problem(
                f"{tree.folder} has other classes than {first.folder}: {_difference(missing, unknown)}",
                "Give both the same class folders",
            )


def _against_list(tree: ImageTree, name: str) -> Finding:
    """A tree's classes against a published list."""
    try:
        expected = class_list(name)
    except InputError as error:
        return of_error(error)
    missing = [label for label in expected if label not in tree.labels]
    unknown = sorted(tree.labels - set(expected))
    if not missing and not unknown:
        return ok(f"{tree.folder}: the {len(expected)} classes of {name}; labels are WordNet ids, whatever their order")
    what = f"{tree.folder}: not the {len(expected)} classes of {name}: {_difference(missing, unknown)}"
    return problem(what, _mend_classes(tree.labels, missing, unknown))


def _mend_classes(found: set[str], missing: Sequence[str], unknown: Sequence[str]) -> str:
    """The likeliest reason why classes differ from a list, and what to do about it."""
    other = list_of(found)
    if other is not None:
        return f"These are the classes of {other}: set classes={other}, or name another folder"
    if renamings := renamed(unknown, missing):
        return f"Rename the folders from names to WordNet ids: {listed(renamings)}"
    if unknown and all(name.isdigit() for name in unknown):
        return (
            "Rename the folders from positions to WordNet ids. Whoever numbered them took the published or the sorted "
            f"order: compare some images, sorted begins {_with_name(min(missing))}, published {_with_name(missing[0])}"
        )
    added = f"Add the folders {listed([_with_name(label) for label in missing])}" if missing else ""
    removed = f"Copy the listed class folders to a place without {listed(unknown, 3)}" if unknown else ""
    return "; ".join(filter(None, (added, removed))) + "; or set classes to the list that fits"


def renamed(folders: Sequence[str], labels: Sequence[str]) -> list[str]:
    """Folders that have the readable name of a label, each with that label, or with all labels of that name."""
    ids: dict[str, list[str]] = {}
    for label in labels:
        ids.setdefault(_plain(readable_name(label)), []).append(label)
    return [f"{folder} -> {' or '.join(ids[_plain(folder)])}" for folder in folders if _plain(folder) in ids]


def list_of(labels: set[str]) -> str | None:
    """Name of the published list with exactly these classes, if there is one."""
    sizes = {10: CLASS_LISTS[:3], 100: CLASS_LISTS[3:4], 1000: CLASS_LISTS[4:]}
    return next((name for name in sizes.get(len(labels), ()) if set(class_list(name)) == labels), None)


def _difference(missing: Sequence[str], unknown: Sequence[str]) -> str:
    kinds = (("missing", [_with_name(label) for label in missing]), ("not expected", unknown))
    return "; ".join(f"{len(names)} {kind}: {listed(names)}" for kind, names in kinds if names)


def _with_name(label: str) -> str:
    name = readable_name(label)
    return label if name == label else f"{label} ({name})"


def _plain(name: str) -> str:
    """A name without what people write differently."""
    return "".join(filter(str.isalnum, name.lower()))


def listed(names: Sequence[str], most: int = 10) -> str:
    """Names, the first few of many."""
    return ", ".join(names[:most]) + (" ..." if len(names) > most else "")


# ---- numbers of images -------------------------------------------------------------------------------------------


def check_counts(experiment: Experiment, trees: Trees) -> Iterator[Finding]:
    """Images of each class, against those that are to be selected."""
    ipc = experiment.ipcs[-1]
    for tree in trees.values():
        counts = tree.counts.values()
        yield ok(f"{tree.folder}: {len(tree.records):,} images, {min(counts):,} to {max(counts):,} of a class")
        wanted = 1 if tree.role == "val" else ipc
        left = {label: _for_training(tree, count, experiment) for label, count in tree.counts.items()}
        short = {label: count for label, count in sorted(left.items()) if count < wanted}
        if short:
            examples = listed([f"{label}: {count}" for label, count in short.items()])
            what = f"{tree.folder}: {len(short)} classes with fewer images than the largest ipc {wanted} ({examples})"
            remedy = f"Add images, or lower ipc to {max(1, min(short.values()))}"
            fatal = tree.role == "pool" or min(short.values()) == 0 or _selects_from_originals(experiment)
            yield problem(what, remedy) if fatal else warning(what, remedy)
        elif tree.role == "pool" and min(counts) < 2 * ipc:
            yield warning(
                f"{tree.folder}: hardly more images of a class than the ipc {ipc}: little to select from",
                f"Make a pool of {experiment.pool_multiple * ipc} images a class, as the paper does",
            )


def _for_training(tree: ImageTree, count: int, experiment: Experiment) -> int:
    """How many of a class's images the training set gets."""
    if tree.role != "data":
        return count
    return count - max(1, round(val_fraction(experiment) * count))


def val_fraction(experiment: Experiment) -> float:
    """Share of the images that becomes the validation set, where one tree is split."""
    return float(expand(experiment.prepare or {}).get("val_fraction", 0.2))


def _selects_from_originals(experiment: Experiment) -> bool:
    methods = (METHODS.get(variant_of(experiment, row)[0]) for row in experiment.methods)
    return any(method and method.rule and method.images == ORIGINALS for method in methods)


def check_edition(trees: Trees) -> Iterator[Finding]:
    """Which edition of an ImageNet subset it is: published numbers are on ImageNet's own."""
    if not {"train", "val"} <= trees.keys():
        return
    train, val = trees["train"], trees["val"]
    if train.labels != val.labels or not all(imagenet_index(label) is not None for label in train.labels):
        return
    name = list_of(train.labels) or "this part of ImageNet"
    fastai = FASTAI.get(name)
    numbers = f"{len(train.records):,} training and {len(val.records):,} validation images"
    if all(count in IMAGENET_TRAIN for count in train.counts.values()) and set(val.counts.values()) == {IMAGENET_VAL}:
        yield ok(f"{name} with ImageNet's own images, as the published numbers: {numbers}")
    elif (len(train.records), len(val.records)) == fastai:
        yield warning(
            f"{name} as fastai split it ({numbers}); published numbers are on ImageNet's own, with {IMAGENET_VAL} "
            "validation images a class",
            "Do not compare accuracies with published ones; for that, take the class folders from ILSVRC 2012",
        )
    else:
        fastai_numbers = f" nor fastai's {fastai[0]:,} and {fastai[1]:,}" if fastai else ""
        yield warning(
            f"{name}: {numbers}, neither ImageNet's about 1,300 and {IMAGENET_VAL} a class{fastai_numbers}",
            "Check that copying or unpacking came to its end; do not compare accuracies with published ones",
        )


# ---- files -------------------------------------------------------------------------------------------------------


def check_files(experiment: Experiment, trees: Trees) -> Iterator[Finding]:
    """Whether a sample of the images can be read, and is large enough."""
    for tree in trees.values():
        sides, broken = [], []
        for path in tree.sample():
            try:
                sides.append(min(load_image(path).size))
            except InputError as error:
                broken.append(error)
        if broken:
            first = of_error(broken[0])
            yield problem(f"{len(broken)} of {len(broken) + len(sides)} images: {first.what}", first.remedy)
        elif (
            tree.role != "val"
            and experiment.image_size is not None
            and (side := int(median(sides))) < experiment.image_size
        ):
            yield warning(
                f"{tree.folder}: shorter sides of {side} pixels, enlarged to {experiment.image_size}",
                f"Use larger originals, or set image_size={side} where the DiT is trained from scratch",
            )
        else:
            yield ok(f"{tree.folder}: a sample of {len(sides)} images is readable")
