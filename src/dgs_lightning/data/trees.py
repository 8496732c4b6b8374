"""Trees of class folders: their images, what is ignored in them, and trees whose folders are no classes."""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dgs_lightning.errors import InputError, listed

Links = Literal["refuse", "follow"]
IMAGE_SUFFIXES = frozenset((".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"))
PARTS = {  # of a data set: our name -> usual names, the likeliest first
    "train": ("train", "training", "trainval", "trn"),
    "val": ("val", "valid", "validation", "dev", "eval", "evaluation", "holdout", "test", "testing", "tst"),
}
_ROLES = {name: role for role, names in PARTS.items() for name in names}
_PART = re.compile(
    rf"(?P<before>.*[\W\d_])?(?P<part>{'|'.join(sorted(_ROLES, key=len, reverse=True))})"
    r"([\W\d_]*(sets?|data|images?|imgs?|splits?|folders?))*[\W\d_]*"
)


# ---- files -------------------------------------------------------------------------------------------------------


def is_image_name(name: str) -> bool:
    """Whether a file of this name is an image."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def image_files(folder: Path, links: Links = "refuse") -> Iterator[str]:
    """POSIX paths of the image files below a folder, relative to it, without hidden files and in no order.

    Args:
        folder: The folder.
        links: ``refuse`` allows links to files in the folder itself; ``follow`` follows all links that end somewhere.

    Raises:
        InputError: If there is no such folder, a link is not allowed, or an image is no file or has a name that is
            not UTF-8.
    """
    for name, entry in tree_files(folder, links):
        if is_image_name(entry.name):
            _check_image(entry, name)
            yield name


def tree_files(folder: Path, links: Links = "refuse") -> Iterator[tuple[str, os.DirEntry[str]]]:
    """All files below a folder, hidden ones aside, as :func:`image_files` names its images and with its errors."""
    if not folder.is_dir():
        raise InputError(folder, "no such folder", "a folder with class folders of images", _where_else(folder))
    # Of each folder to read, the real paths of the folders whose links led to it, and its own.
    waiting: list[tuple[str, tuple[str, ...]]] = [("", (os.path.realpath(folder),))]
    while waiting:
        below, way = waiting.pop()
        with os.scandir(folder / below) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                name = below + entry.name
                if entry.is_symlink():
                    target = _linked_folder(entry, links, way)
                    if target is not None:
                        waiting.append((f"{name}/", (*way, target)))
                        continue
                elif entry.is_dir():
                    waiting.append((f"{name}/", (*way[:-1], os.path.join(way[-1], entry.name))))
                    continue
                yield name, entry


def _linked_folder(link: os.DirEntry[str], links: Links, way: Sequence[str]) -> str | None:
    """Real path of the folder that a link leads to; ``None`` for a link to a file.

    Raises:
        InputError: If the link is broken or leads in a circle, or out of the tree or to a folder where these are
            refused.
    """
    if links == "follow" and os.path.isfile(link.path):
        return None
    target = os.path.realpath(link.path)
    if links == "refuse":
        if os.path.isfile(target) and Path(target).is_relative_to(way[0]):
            return None
        expected = "images in the folder itself, or links to them"
        remedy = "Copy the files there, or set links=follow, which a folder with metadata.jsonl does not allow"
        raise InputError(link.path, f"a link to {target}", expected, remedy)
    circle = any(Path(place).is_relative_to(target) for place in way)
    if circle or not os.path.isdir(target):
        found = f"a link to {target}, {'which leads in a circle' if circle else 'which is no file and no folder'}"
        raise InputError(link.path, found, "links to images and to folders with images", "Remove or mend the link")
    return target


def _check_image(entry: os.DirEntry[str], name: str) -> None:
    """Raise an error for an image that is no file, or has a name that a manifest, in UTF-8, cannot hold."""
    if not entry.is_file():
        raise InputError(entry.path, "a pipe, a socket or a device", "an image file", "Remove it")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise InputError(entry.path, "a name that is not UTF-8", "names in UTF-8", "Rename the file") from None


# ---- what is ignored ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ignored:
    """What a tree of class folders has beside the images that are read.

    Args:
        endings: Number of files in class folders that are no images by their names, by ending.
        loose: Number of images outside of class folders.
        empty: Class folders without images.
    """

    endings: Mapping[str, int]
    loose: int
    empty: Sequence[str]

    def __str__(self) -> str:
        """What is ignored, in words; empty if nothing is."""
        parts = []
        if self.endings:
            most = sorted(self.endings.items(), key=lambda item: (-item[1], item[0]))
            kinds = listed((f"{count:,} {ending or 'without ending'}" for ending, count in most), 10)
            parts.append(f"files that are not read as images ({kinds})")
        if self.loose:
            parts.append(f"images outside of class folders ({self.loose:,})")
        if self.empty:
            parts.append(f"class folders without images ({len(self.empty)}: {listed(self.empty, 10)})")
        return ", ".join(parts)


def ignored_files(folder: Path, links: Links = "refuse") -> Ignored:
    """What a tree of class folders has beside its images. Hidden files do not count, nor others beside the classes.

    Raises:
        InputError: As :func:`image_files`.
    """
    endings: Counter[str] = Counter()
    loose, full = 0, set()
    for name, entry in tree_files(folder, links):
        label, _, inside = name.partition("/")
        if not is_image_name(entry.name):
            endings.update([_ending(entry.name)] if inside else [])
        elif inside:
            full.add(label)
        else:
            loose += 1
    return Ignored(endings, loose, sorted(visible_folders(folder) - full))


def _ending(name: str) -> str:
    """The ending of a file's name in lower case, with that of an image before it: ``.heic``, ``.jpg.download``."""
    stem, ending = os.path.splitext(name.lower())
    return os.path.splitext(stem)[1] + ending if is_image_name(stem) else ending


def visible_folders(folder: Path) -> set[str]:
    """Names of the folders, and of links to folders, that are directly in a folder and not hidden."""
    with os.scandir(folder) as entries:
        return {entry.name for entry in entries if not entry.name.startswith(".") and os.path.isdir(entry.path)}


# ---- folders that are no classes ---------------------------------------------------------------------------------


def check_class_folders(folder: Path, names: Sequence[str]) -> None:
    """Check that the folders of a tree are classes: neither training and validation parts nor a copy of the tree.

    A class may be called ``train`` if its folder is like those of the other classes.

    Args:
        folder: The tree.
        names: Paths of its images, relative to it, each in a class folder.

    Raises:
        InputError: If they are not.
    """
    _check_copies(folder, names)
    inside: dict[str, set[str]] = defaultdict(set)  # of each class folder: folders in it, "" where it has images itself
    for name in names:
        label, _, rest = name.partition("/")
        inside[label].add(rest.partition("/")[0] if "/" in rest else "")
    nested = {label for label, folders in inside.items() if "" not in folders}
    parts = parts_among(inside)
    deep = parts.keys() & nested
    like_no_class = deep and (len(deep) > 1 or len(inside) <= 2 or nested != inside.keys())
    if like_no_class or len(parts) == len(inside) > 1:
        found = f"folders that are parts of a data set and no classes ({listed(sorted(parts))})"
        expected = "one folder for each class, or folders train and val that hold such folders"
        raise InputError(folder, found, expected, _how_to_part(folder, sorted(inside), parts))
    if all(_likeliest(parts_among(folders)).keys() == PARTS.keys() for folders in inside.values()):
        label = min(inside)
        found = f"a folder for each part of a data set in each class folder ({listed(sorted(inside[label]))})"
        remedy = f"Move their images into folders such as {folder / 'train' / label} and {folder / 'val' / label}"
        raise InputError(folder / label, found, "one folder for each class in each part", remedy)


def parts_among(folders: Iterable[str]) -> dict[str, str]:
    """Folders that are called like parts of a data set, each with the usual name of the part.

    A name with another word before it, such as ``seg_train``, counts where both parts are there: ``seg_test`` beside
    it, since ``bullet train`` alone is a class.
    """
    found = {name: match for name in folders if (match := _PART.fullmatch(name.lower()))}
    if {_ROLES[match["part"]] for match in found.values()} != PARTS.keys():
        found = {name: match for name, match in found.items() if not any(map(str.isalpha, match["before"] or ""))}
    return {name: match["part"] for name, match in found.items()}


def _check_copies(folder: Path, names: Sequence[str]) -> None:
    """Raise an error if a class folder holds most of the tree's images once more, under the same names."""
    stems = {os.path.splitext(name)[0] for name in names}
    deep, again = Counter[str](), Counter[str]()
    for stem in stems:
        label, _, rest = stem.partition("/")
        if "/" in rest:
            deep[label] += 1
            again[label] += rest in stems
    for label, count in sorted(again.items()):
        if 2 * count >= deep[label]:
            found = f"{count:,} of {deep[label]:,} images in its folders that are beside it as well, by their names"
            remedy = f"Move the copy out of {folder}, or rename its images if they are others"
            raise InputError(folder / label, found, f"a class folder, and no copy of {folder}", remedy)


def _how_to_part(folder: Path, labels: Sequence[str], parts: Mapping[str, str]) -> str:
    """How to rename or name folders that are parts of a data set, given the usual name in each of their names."""
    if len(labels) == 1:
        return f"Give {folder / labels[0]}, or move what is in it to {folder}"
    likeliest = _likeliest(parts)
    renamings = [f"{name} to {role}" for role, name in likeliest.items() if name != role]
    if likeliest.keys() == PARTS.keys():
        both = " and ".join(str(folder / role) for role in PARTS)
        return f"Rename {' and '.join(renamings)}" if renamings else f"Give one of {both}"
    steps = [f"Rename {' and '.join(renamings)}"] if renamings else []
    if "train" in likeliest:
        steps.append(f"Rename the folder of validation images to val. Or give {folder / likeliest['train']} alone")
        return ". ".join(steps) + ", which is split then"
    return ". ".join([*steps, f"Put the class folders of training images into {folder / 'train'}"])


def _likeliest(parts: Mapping[str, str]) -> dict[str, str]:
    """Folder that is likeliest the training or the validation part, where there is one."""
    found = {}
    for role, usual in PARTS.items():
        if folders := [name for name, part in parts.items() if part in usual]:
            found[role] = min(folders, key=lambda name: (usual.index(parts[name]), name.lower(), name))
    return found


def _where_else(folder: Path) -> str:
    """What to do about a folder that is missing: a renaming, where one of its parts has another usual name."""
    beside = visible_folders(folder.parent) if folder.parent.is_dir() else ()
    other = _likeliest(parts_among(beside)).get(folder.name)
    return f"Rename {folder.parent / other} to {folder.name}" if other else "Check the path"
