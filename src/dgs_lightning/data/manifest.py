"""Image sets on disk: class folders, one line of metadata an image, and a card that says where they came from."""

import hashlib
import json
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields, replace
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Any

from dgs_lightning.data.tree import image_files
from dgs_lightning.errors import InputError
from dgs_lightning.files import replacing, write_json

MANIFEST = "metadata.jsonl"
CARD = "dataset.json"
LONGEST_PATH, LONGEST_NAME = 4096, 255  # characters that a file system takes
HASHED_AT_ONCE = 256  # images that a thread hashes before it takes others
LIBRARIES = (
    "dgs-lightning",
    "diffusers",
    "lightning",
    "numpy",
    "pillow",
    "scikit-learn",
    "timm",
    "torch",
    "torchvision",
)


@dataclass(slots=True)
class ImageRecord:
    """One line of ``metadata.jsonl``.

    Args:
        file_name: POSIX path of the image relative to the set's folder.
        label: WordNet id or folder name.
        class_name: The label in words.
        index: Number of a generated image within its class.
        seed: Seed of a generated image.
        difficulty: In [0, 1], higher is harder.
        estimator: Identity of the difficulty estimator.
        predicted: Label that the estimator gives the image.
        interval: Difficulty interval, counted from 0.
        extra: Other keys of the line, kept as they are.
    """

    file_name: str
    label: str
    class_name: str | None = None
    index: int | None = None
    seed: int | None = None
    difficulty: float | None = None
    estimator: str | None = None
    predicted: str | None = None
    interval: int | None = None
    extra: dict[str, Any] = field(default_factory=dict)


_NAMES = tuple(f.name for f in fields(ImageRecord) if f.name != "extra")
_TEXTS = ("class_name", "estimator", "predicted")
_COUNTS = ("index", "seed", "interval")


# ---- the manifest ------------------------------------------------------------------------------------------------


def read_manifest(folder: Path) -> list[ImageRecord]:
    """Records of a folder's ``metadata.jsonl``, in the order of its lines.

    Raises:
        InputError: If there is none, or a line is truncated, invalid, a second one of its image, or names a path that
            leaves the folder; the message has the line's number.
    """
    path = folder / MANIFEST
    records: list[ImageRecord] = []
    seen: set[str] = set()
    shared: dict[str, str] = {}  # labels and estimators repeat: a million lines share a thousand strings
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    record = _parse(line, shared)
                    if record.file_name in seen:
                        raise ValueError(f"a second line of {record.file_name!r}")
                except ValueError as error:
                    raise _bad_line(path, number, str(error)) from None
                seen.add(record.file_name)
                records.append(record)
    except FileNotFoundError:
        raise InputError(
            folder, found=f"no {MANIFEST}", expected="an image set with one", remedy="Check the folder"
        ) from None
    except UnicodeDecodeError:
        raise _bad_line(path, len(records) + 1, "text that is not UTF-8") from None
    return records


def _bad_line(path: Path, number: int, found: str) -> InputError:
    return InputError(
        f"{path}, line {number}",
        found=found[:300],
        expected="one JSON object an image with 'file_name' and 'label'",
        remedy="Mend or delete the line, or make the file again with the command that wrote it",
    )


def _parse(line: str, shared: dict[str, str]) -> ImageRecord:
    """Record of one line; a ValueError says what is wrong with it."""
    try:
        entry = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"a truncated or invalid line ({error.msg})") from None
    except RecursionError:
        raise ValueError("values nested too deeply") from None
    if not isinstance(entry, dict):
        raise ValueError(f"{type(entry).__name__} instead of an object")
    if "\\ud" in line.lower():
        json.dumps(entry, ensure_ascii=False).encode()  # half of a surrogate pair could not be written again
    known = {name: entry.pop(name) for name in _NAMES if entry.get(name) is not None}
    entry = {name: value for name, value in entry.items() if name not in _NAMES}
    if entry:
        json.dumps(entry, allow_nan=False)  # what is not finite could not be written again
    record = ImageRecord(**{"file_name": "", "label": "", **known}, extra=entry)
    record.file_name = _inside(record.file_name)
    check_label(record.label)
    for name in _TEXTS:
        if not isinstance(getattr(record, name), str | None):
            raise ValueError(f"{name} {getattr(record, name)!r} instead of text")
    for name in _COUNTS:
        value = getattr(record, name)
        if value is not None and (type(value) is not int or value < 0):
            raise ValueError(f"{name} {value!r} instead of a whole number")
    _check_difficulty(record)
    for name in ("label", *_TEXTS):
        text = getattr(record, name)
        if text is not None:
            setattr(record, name, shared.setdefault(text, text))
    return record


def _inside(name: object) -> str:
    """A relative path in its shortest form, checked to stay below the folder."""
    if not isinstance(name, str) or not name or "\0" in name or len(name) > LONGEST_PATH:
        raise ValueError(f"file_name {repr(name)[:100]}")
    if "/." not in name and "//" not in name and name[0] not in "./" and name[-1] != "/":
        return name  # as nearly all are, and a million of them take their time
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise ValueError(f"file_name {name!r}, which leaves the folder")
    return path.as_posix()


def check_label(label: object) -> None:
    """Check that a label can be the name of a class folder.

    Raises:
        ValueError: If it cannot.
    """
    if not isinstance(label, str) or label in ("", ".", "..") or {"/", "\0"} & set(label) or len(label) > LONGEST_NAME:
        raise ValueError(f"label {repr(label)[:100]}, which is no name of a class folder")


def _check_difficulty(record: ImageRecord) -> None:
    value = record.difficulty
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError(f"difficulty {value!r} instead of a number in [0, 1]")
    record.difficulty = float(value)


def write_manifest(folder: Path, records: Iterable[ImageRecord]) -> None:
    """Write ``metadata.jsonl`` atomically, sorted by file name, numbers with all their digits.

    Raises:
        ValueError: If a number is not finite.
    """
    with replacing(folder / MANIFEST) as partial, partial.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(manifest_line(record) for record in sorted(records, key=lambda r: r.file_name))


def manifest_line(record: ImageRecord) -> str:
    """One line of a manifest: ``file_name`` and ``label`` first, then what else is known, extras in sorted order.

    Raises:
        ValueError: If a number is not finite.
    """
    entry = {name: value for name in _NAMES if (value := getattr(record, name)) is not None}
    entry |= {name: record.extra[name] for name in sorted(record.extra)}
    try:
        return json.dumps(entry, ensure_ascii=False, allow_nan=False) + "\n"
    except ValueError:
        raise ValueError(f"{record.file_name}: a number that is not finite; manifests hold finite ones") from None


# ---- folders of images -------------------------------------------------------------------------------------------


def scan_images(folder: Path) -> list[ImageRecord]:
    """Records of all images in class folders, sorted by file name.

    Raises:
        InputError: If the folder or its images are missing, or a link in it leads out of it.
    """
    names = sorted(name for name in image_files(folder) if "/" in name)
    if not names:
        raise InputError(
            folder,
            found="no class folders with images",
            expected="images in one folder for each class, such as cat/1.png",
            remedy="Check the path",
        )
    shared: dict[str, str] = {}
    return [ImageRecord(name, shared.setdefault(label := name.split("/", 1)[0], label)) for name in names]


def read_set(folder: Path, scores: Path | None = None) -> list[ImageRecord]:
    """Records of an image set, sorted by file name: its manifest where there is one, else its class folders.

    Args:
        folder: The image set.
        scores: A scores folder of it, whose difficulties then stand in place of the set's own.

    Raises:
        InputError: If manifest and files differ, or the scores are another set's.
    """
    if not (folder / MANIFEST).is_file():
        records = scan_images(folder)
    else:
        records = sorted(read_manifest(folder), key=lambda record: record.file_name)
        _check_files(folder, {record.file_name for record in records})
    return records if scores is None else _with_scores(folder, records, scores)


def _check_files(folder: Path, listed: set[str]) -> None:
    """Compare a manifest with the images that are there."""
    found = set(image_files(folder))
    for problem, names in (("missing images", listed - found), ("images that the manifest lacks", found - listed)):
        if names:
            raise InputError(
                folder / MANIFEST,
                found=f"{len(names)} {problem}, such as {min(names)!r}",
                expected="a line for each image and an image for each line",
                remedy=f"Finish or repeat the command that writes the folder, or delete {MANIFEST} to use all images",
            )


def _with_scores(folder: Path, records: list[ImageRecord], scores: Path) -> list[ImageRecord]:
    """Records with difficulty, estimator and predicted label of a scores folder, and none of their own."""
    by_name = {record.file_name: record for record in read_manifest(scores)}
    merged = []
    for record in records:
        score = by_name.pop(record.file_name, None)
        if score is None:
            score = ImageRecord(record.file_name, record.label)
        if score.label != record.label:
            raise InputError(
                scores / MANIFEST,
                found=f"label {score.label!r} of {record.file_name!r}",
                expected=f"{record.label!r}, as in {folder}",
                remedy="Score this set again",
            )
        merged.append(
            replace(record, difficulty=score.difficulty, estimator=score.estimator, predicted=score.predicted)
        )
    if by_name:
        raise InputError(
            scores / MANIFEST,
            found=f"scores of {len(by_name)} images that {folder} lacks, such as {min(by_name)!r}",
            expected="scores of this set",
            remedy="Name this set's scores, or score it again",
        )
    return merged


def require_scores(records: Sequence[ImageRecord], folder: Path) -> str:
    """Identity of the one estimator that scored all records.

    Args:
        records: Records of an image set.
        folder: The set, for the message.

    Raises:
        InputError: If a record has no difficulty, or they are of several estimators.
    """
    unscored = [record.file_name for record in records if record.difficulty is None or record.estimator is None]
    if unscored or not records:
        raise InputError(
            folder,
            found=f"{len(unscored)} of {len(records)} images without difficulty and estimator"
            + (f", such as {unscored[0]!r}" if unscored else ""),
            expected="a scored set",
            remedy="Score it with 'dgs predict --model ScoringTask', or name the folder of its scores",
        )
    estimators = sorted({str(record.estimator) for record in records})
    if len(estimators) > 1:
        raise InputError(
            folder,
            found=f"difficulties of {len(estimators)} estimators ({', '.join(estimators)})",
            expected="those of one, since others do not compare",
            remedy="Score the whole set with one estimator",
        )
    return estimators[0]


# ---- cards and identities ----------------------------------------------------------------------------------------


def read_card(folder: Path) -> dict[str, Any]:
    """The folder's ``dataset.json``; empty where there is none.

    Raises:
        InputError: If it is not a JSON object.
    """
    path = folder / CARD
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (ValueError, RecursionError, IsADirectoryError):
        card = None
    problem = "broken JSON" if not isinstance(card, dict) else _misshapen(card)
    if problem:
        raise InputError(path, found=problem, expected="a JSON object", remedy="Make the set again, or delete the card")
    return dict(card)


def _misshapen(card: Mapping[str, Any]) -> str | None:
    """A part of a card that is not of the kind that its readers expect."""
    for kind, names in ((dict, ("labels", "settings", "hashes", "scoring")), (list, ("provenance", "licences"))):
        for name in names:
            if not isinstance(card.get(name, kind()), kind):
                return f"{name} that are no {'object' if kind is dict else 'list'}"
    return None if all(isinstance(text, str) for text in card.get("licences", [])) else "licences that are no texts"


def write_card(folder: Path, card: Mapping[str, Any]) -> None:
    """Write ``dataset.json`` atomically."""
    write_json(folder / CARD, dict(card))


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that results depend on."""
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in LIBRARIES}


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_files(folder: Path, records: Iterable[ImageRecord]) -> str:
    """SHA-256 of the images' names, labels and bytes, whatever their order."""
    ordered = sorted(records, key=lambda record: record.file_name)
    parts = [ordered[start : start + HASHED_AT_ONCE] for start in range(0, len(ordered), HASHED_AT_ONCE)]

    def lines_of(part: Sequence[ImageRecord]) -> str:
        return "".join(json.dumps([r.file_name, r.label, hash_file(folder / r.file_name)]) for r in part)

    digest = hashlib.sha256()
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:  # hashing lets other threads run
        for lines in threads.map(lines_of, parts):
            digest.update(lines.encode())
    return digest.hexdigest()


def hash_json(content: object) -> str:
    """SHA-256 of a value in canonical JSON."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
