"""The records of an image set, one for each image, and the manifest that contains them."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path, PurePosixPath
from typing import Any

from dgs_lightning.documents.files import check_length, lines_of
from dgs_lightning.documents.shapes import FolderName
from dgs_lightning.documents.texts import LARGEST, check_plain
from dgs_lightning.errors import InputError
from dgs_lightning.files import explain_disk_errors, replacing

MANIFEST = "metadata.jsonl"
MARK = ".unfinished/mark.json"  # what is being made in a folder; see dgs_lightning.data.unfinished
LONGEST_PATH = 4096  # characters that a file system takes
_FOLDER_NAME = FolderName()


@dataclass(slots=True)
class ImageRecord:
    """One line of ``metadata.jsonl``.

    Args:
        file_name: POSIX path of the image relative to the set's folder.
        label: WordNet id or folder name.
        class_name: Readable name of the label.
        index: Number of a generated image within its class.
        seed: Seed of a generated image.
        difficulty: Difficulty in [0, 1]; a higher one is harder.
        estimator: Identity of the difficulty estimator.
        predicted: Label that the estimator gives the image.
        interval: Difficulty interval, counted from 0.
        extra: All other keys of the line.
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


def read_manifest(folder: Path) -> list[ImageRecord]:
    """Records of a folder's ``metadata.jsonl``, in the order of its lines.

    Raises:
        InputError: If there is no manifest, or a line is truncated, is invalid, repeats an image, or names a path that
            leaves the folder. The message gives the number of the line.
    """
    path = folder / MANIFEST
    records: dict[str, ImageRecord] = {}
    shared: dict[str, str] = {}  # labels and estimators repeat: a million lines need a thousand strings
    try:
        with explain_disk_errors(path), path.open(encoding="utf-8") as file:
            for number, line in enumerate(lines_of(file), 1):
                try:
                    record = _parse(line, shared)
                    if record.file_name in records:
                        raise ValueError(f"a second line of {record.file_name!r}")
                except ValueError as error:
                    raise InputError.line(path, number, str(error)) from None
                records[record.file_name] = record
    except FileNotFoundError:
        raise InputError(folder, f"no {MANIFEST}", "an image set with one", "Check the folder") from None
    except UnicodeDecodeError:
        raise InputError.line(path, len(records) + 1, "text that is not UTF-8") from None
    return list(records.values())


def _parse(line: str, shared: dict[str, str]) -> ImageRecord:
    """Record of one line. A ValueError describes the fault of a line that cannot be used."""
    try:
        entry = json.loads(check_length(line))
    except json.JSONDecodeError as error:
        raise ValueError(f"a truncated or invalid line ({error.msg})") from None
    except RecursionError:
        raise ValueError("values nested too deeply") from None
    if not isinstance(entry, dict):
        raise ValueError(f"{type(entry).__name__} instead of an object")
    if "\\ud" in line.lower():
        json.dumps(entry, ensure_ascii=False).encode()  # half of a surrogate pair cannot be written
    known = {name: value for name, value in entry.items() if name in _NAMES and value is not None}
    extra = {name: value for name, value in entry.items() if name not in _NAMES}
    if extra:
        check_plain(extra, infinite=False)
    known["file_name"] = relative_path(known.get("file_name"))
    check_label(known.get("label"))
    _check_values(known)
    for name in ("label", *_TEXTS):
        if name in known:
            known[name] = shared.setdefault(known[name], known[name])
    return ImageRecord(**known, extra=extra)


def _check_values(known: dict[str, Any]) -> None:
    """Check the types and ranges of texts, counts and difficulty; a ValueError names the first wrong one."""
    for name, value in known.items():
        if name in _TEXTS and not isinstance(value, str):
            raise ValueError(f"{name} {value!r} instead of text")
        if name in _COUNTS and (type(value) is not int or not 0 <= value < LARGEST):
            raise ValueError(f"{name} {value!r} instead of a whole number")
        if name == "difficulty":
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
                raise ValueError(f"difficulty {value!r} instead of a number in [0, 1]")
            known[name] = float(value)


def relative_path(name: object) -> str:
    """A relative path in its shortest form. A ValueError names a path that leaves the folder."""
    if not isinstance(name, str) or not name or "\0" in name or len(name) > LONGEST_PATH:
        raise ValueError(f"file_name {repr(name)[:100]}")
    if "/." not in name and "//" not in name and name[0] not in "./" and name[-1] != "/":
        return name  # the quick way for nearly all names, since a set may have a million
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise ValueError(f"file_name {name!r}, which leaves the folder")
    return path.as_posix()


def check_label(label: object) -> None:
    """Raise a ValueError if a label cannot be the name of a class folder."""
    if not isinstance(label, str) or not _FOLDER_NAME.allows(label):
        raise ValueError(f"label {repr(label)[:100]}, which is no name of a class folder")
    if label.startswith("."):  # as the folder would be hidden
        raise ValueError(f"label {label!r}, which begins with a dot: hidden folders are not read")


def write_manifest(folder: Path, records: Iterable[ImageRecord], *, durable: bool = False) -> None:
    """Write ``metadata.jsonl`` atomically, sorted by file name. A number that is not finite raises a ValueError.

    For ``durable`` see ``dgs_lightning.files.replacing``.
    """
    with (
        replacing(folder / MANIFEST, durable=durable) as partial,
        partial.open("w", encoding="utf-8", newline="\n") as file,
    ):
        file.writelines(manifest_line(record) for record in sorted(records, key=lambda r: r.file_name))


def manifest_line(record: ImageRecord) -> str:
    """One line of a manifest: the fields of the record that have a value, then the extra keys in sorted order.

    Numbers keep all their digits. One that is not finite raises a ValueError.
    """
    entry = {name: value for name in _NAMES if (value := getattr(record, name)) is not None}
    entry |= {name: record.extra[name] for name in sorted(record.extra)}
    try:
        return json.dumps(entry, ensure_ascii=False, allow_nan=False) + "\n"
    except ValueError:
        raise ValueError(f"{record.file_name}: a number that is not finite; manifests contain finite ones") from None


def require_scores(records: Sequence[ImageRecord], folder: Path) -> str:
    """Identity of the one estimator that scored all records of the image set in ``folder``.

    Raises:
        InputError: If a record has no difficulty, or the difficulties are from several estimators.
    """
    unscored = [record.file_name for record in records if record.difficulty is None or record.estimator is None]
    if unscored or not records:
        such = f", such as {unscored[0]!r}" if unscored else ""
        found = f"{len(unscored)} of {len(records)} images without difficulty and estimator{such}"
        remedy = "Score it with 'dgs predict --model ScoringTask', or name the folder of its scores"
        raise InputError(folder, found, "a scored set", remedy)
    estimators = sorted({str(record.estimator) for record in records})
    if len(estimators) > 1:
        found = f"difficulties of {len(estimators)} estimators ({', '.join(estimators)})"
        expected = "those of one, since those of different estimators cannot be compared"
        raise InputError(folder, found, expected, "Score the whole set with one estimator")
    return estimators[0]
