"""Reading of image sets: the image files of a folder, and their records with or without scores."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from dgs_lightning.data.cards import CARD, read_card, read_mark
from dgs_lightning.data.records import MANIFEST, ImageRecord, read_manifest
from dgs_lightning.errors import InputError

IMAGES = "images"  # kind of a folder whose images are being made
IMAGE_SUFFIXES = frozenset((".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"))


def is_image_name(name: str) -> bool:
    """Whether a file of this name is an image."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def image_files(folder: Path) -> Iterator[str]:
    """POSIX paths of the image files below a folder, relative to it, without hidden files and in no order.

    Raises:
        InputError: If there is no such folder, a link in it leads to a folder or out of it, or an image is no file
            or has a name that is not UTF-8.
    """
    if not folder.is_dir():
        raise InputError(folder, "no such folder", "a folder with class folders of images", "Check the path")
    root = os.path.realpath(folder)
    waiting = [""]
    while waiting:
        below = waiting.pop()
        with os.scandir(folder / below) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(f"{below}{entry.name}/")
                    continue
                if entry.is_symlink():
                    _check_link(entry, root)
                if is_image_name(entry.name):
                    _check_image(entry, below + entry.name)
                    yield below + entry.name


def _check_link(link: os.DirEntry[str], root: str) -> None:
    """Raise an error for a link that is broken, leads out of the tree, or leads to a folder, perhaps in circles."""
    target = os.path.realpath(link.path)
    if not os.path.isfile(target) or not Path(target).is_relative_to(root):
        expected = "images in the folder itself, or links to them"
        raise InputError(link.path, f"a link to {target}", expected, "Copy the files there instead")


def _check_image(entry: os.DirEntry[str], name: str) -> None:
    """Raise an error for an image that is no file, or has a name that a manifest, in UTF-8, cannot hold."""
    if not entry.is_file():
        raise InputError(entry.path, "a pipe, a socket or a device", "an image file", "Remove it")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise InputError(entry.path, "a name that is not UTF-8", "names in UTF-8", "Rename the file") from None


def scan_images(folder: Path) -> list[ImageRecord]:
    """Records of all images in class folders, sorted by file name.

    Raises:
        InputError: If the folder or its images are missing, or a link in it leads out of it.
    """
    names = sorted(name for name in image_files(folder) if "/" in name)
    if not names:
        expected = "images in one folder for each class, such as cat/1.png"
        raise InputError(folder, "no class folders with images", expected, "Check the path")
    shared: dict[str, str] = {}
    return [ImageRecord(name, shared.setdefault(label := name.split("/", 1)[0], label)) for name in names]


def read_set(folder: Path, scores: Path | None = None) -> list[ImageRecord]:
    """Records of an image set, sorted by file name, from its manifest or, if it has none, from its class folders.

    ``scores`` is a folder with scores of the set, which replace those of its manifest.

    Raises:
        InputError: If manifest and files differ, the set is not finished, or the scores are those of another set.
    """
    if read_mark(folder).get("kind") == IMAGES:
        remedy = "Run the command that writes it again: it goes on where it stopped"
        raise InputError(folder, "unfinished images", "a finished image set", remedy)
    if (folder / MANIFEST).is_file():
        records = sorted(read_manifest(folder), key=lambda record: record.file_name)
        _check_files(folder, {record.file_name for record in records})
    else:
        records = scan_images(folder)
    return records if scores is None else _with_scores(folder, records, scores)


def _check_files(folder: Path, listed: set[str]) -> None:
    """Raise an error if a manifest and the images of its folder differ."""
    found = set(image_files(folder))
    for problem, names in (("missing images", listed - found), ("images that the manifest lacks", found - listed)):
        if names:
            wrong = f"{len(names)} {problem}, such as {min(names)!r}"
            remedy = f"Finish or repeat the command that writes the folder, or delete {MANIFEST} to use all images"
            raise InputError(folder / MANIFEST, wrong, "a line for each image and an image for each line", remedy)


def read_scores(folder: Path) -> dict[str, ImageRecord]:
    """Records of a folder with scores, by the file name of their image.

    Raises:
        InputError: If the manifest is broken, or has not as many lines as the card says.
    """
    records = read_manifest(folder)
    expected = read_card(folder).get("images", len(records))
    if len(records) != expected:
        found, wanted = f"{len(records)} of {expected} lines", f"a line for each of the images that {CARD} counts"
        raise InputError(folder / MANIFEST, found, wanted, "Make the scores again with the command that wrote them")
    return {record.file_name: record for record in records}


def _with_scores(folder: Path, records: list[ImageRecord], scores: Path) -> list[ImageRecord]:
    """Records with the difficulty, estimator and predicted label of a scores folder instead of their own."""
    by_name = read_scores(scores)
    merged = []
    for record in records:
        score = by_name.pop(record.file_name, None) or ImageRecord(record.file_name, record.label)
        if score.label != record.label:
            found, expected = f"label {score.label!r} of {record.file_name!r}", f"{record.label!r}, as in {folder}"
            raise InputError(scores / MANIFEST, found, expected, "Score this set again")
        scored = {name: getattr(score, name) for name in ("difficulty", "estimator", "predicted")}
        merged.append(replace(record, **scored, extra={**record.extra, **score.extra}))
    if by_name:
        found = f"scores of {len(by_name)} images that {folder} lacks, such as {min(by_name)!r}"
        raise InputError(scores / MANIFEST, found, "scores of this set", "Name this set's scores, or score it again")
    return merged
