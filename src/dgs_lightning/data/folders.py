"""Reading of image sets: the records of the images of a folder, with or without scores."""

from dataclasses import replace
from pathlib import Path

from dgs_lightning.data.cards import CARD, read_card, read_mark
from dgs_lightning.data.records import MANIFEST, ImageRecord, read_manifest
from dgs_lightning.data.trees import Ignored, Links, check_class_folders, ignored_files, image_files
from dgs_lightning.errors import InputError

IMAGES = "images"  # kind of a folder whose images are being made


def scan_images(folder: Path, links: Links = "refuse") -> list[ImageRecord]:
    """Records of all images in class folders, sorted by file name.

    Raises:
        InputError: If the folder or its images are missing, a link is not allowed (see
            ``dgs_lightning.data.trees.image_files``), or the folders are no classes.
    """
    names = sorted(name for name in image_files(folder, links) if "/" in name)
    if not names:
        others = str(ignored_files(folder, links))
        found = "no class folders with images" + (f", but {others}" if others else "")
        expected = "images in one folder for each class, such as cat/1.png"
        raise InputError(folder, found, expected, "Check the path" if not others else "Check path and file formats")
    check_class_folders(folder, names)
    shared: dict[str, str] = {}
    return [ImageRecord(name, shared.setdefault(label := name.split("/", 1)[0], label)) for name in names]


def read_set(folder: Path, scores: Path | None = None, links: Links = "refuse") -> list[ImageRecord]:
    """Records of an image set, sorted by file name, from its manifest or, if it has none, from its class folders.

    Args:
        folder: The folder of the set.
        scores: A folder with scores of the set, which replace those of its manifest.
        links: Which links are followed. Those of a set with a manifest never lead out of it, since a manifest may come
            from anywhere.

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
        records = scan_images(folder, links)
    return records if scores is None else _with_scores(folder, records, scores)


def ignored_in(folder: Path, links: Links = "refuse") -> Ignored:
    """What :func:`read_set` ignores in a folder. A set with a manifest has all its images in it.

    Raises:
        InputError: As :func:`read_set`, for links that are not allowed.
    """
    if (folder / MANIFEST).is_file():
        return replace(ignored_files(folder), loose=0, empty=())
    return ignored_files(folder, links)


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
