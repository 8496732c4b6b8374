"""The card of an image set: its origin, settings, hashes, versions and terms of use."""

import hashlib
import json
import os
import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, TypedDict

from dgs_lightning.bounds import AtLeast
from dgs_lightning.data.records import MARK, ImageRecord
from dgs_lightning.documents.files import read_json
from dgs_lightning.files import explain_disk_errors, write_json

CARD = "dataset.json"
LATENTS_CARD = "latents.json"  # card of a latent cache
HASHED_AT_ONCE = 256  # images that a thread hashes in one task
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


class Requests(TypedDict, total=False):
    """The images that were asked for, on the card of generated images."""

    batch_size: Annotated[int | None, AtLeast(1)]


class CardSettings(TypedDict, total=False):
    """Settings that the images of a set depend on. Others than these are compared only."""

    image_size: Annotated[int | None, AtLeast(1)]
    channels: Annotated[int | None, AtLeast(1)]
    requests: Requests


class Scoring(TypedDict, total=False):
    """Settings that the scores of a set depend on. Others than this are compared only."""

    key: str


class Card(TypedDict, total=False):
    """The card of an image set. Other keys are allowed."""

    name: str
    kind: str
    labels: dict[str, str | None]  # label -> readable name
    images: Annotated[int, AtLeast(0)]
    settings: CardSettings
    versions: dict[str, str]
    hashes: dict[str, str]
    measures: dict[str, float]  # means of what was measured of each image
    provenance: list[Any]
    licences: list[str]
    scoring: Scoring


def read_card(folder: Path) -> dict[str, Any]:
    """The folder's ``dataset.json``; empty if there is none.

    Raises:
        InputError: If it is no :class:`Card`.
    """
    remedy = "Make the set again, or delete the card"
    return {**read_json(folder / CARD, Card, "the card of an image set", remedy, default={})}


class Mark(TypedDict, total=False):
    """What is being made in a folder."""

    kind: str
    key: str | CardSettings  # what the results depend on


def read_mark(folder: Path) -> Mark:
    """The mark of a folder that is not finished; empty if there is none. A broken one raises an InputError."""
    remedy = f"Delete {folder} and run the command again"
    return read_json(folder / MARK, Mark, "what is being made in this folder", remedy, default=Mark())


def write_card(folder: Path, card: Mapping[str, Any], *, durable: bool = False) -> None:
    """Write ``dataset.json`` atomically; for ``durable`` see ``dgs_lightning.files.replacing``."""
    write_json(folder / CARD, dict(card), durable=durable)


@cache
def versions() -> Mapping[str, str]:
    """Versions of Python and of the libraries that results depend on."""
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in LIBRARIES}


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with explain_disk_errors(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_files(folder: Path, records: Iterable[ImageRecord]) -> str:
    """SHA-256 of the images' names, labels and bytes. It does not depend on their order."""
    ordered = sorted(records, key=lambda record: record.file_name)
    parts = [ordered[start : start + HASHED_AT_ONCE] for start in range(0, len(ordered), HASHED_AT_ONCE)]

    def lines_of(part: Sequence[ImageRecord]) -> str:
        return "".join(json.dumps([r.file_name, r.label, hash_file(folder / r.file_name)]) for r in part)

    digest = hashlib.sha256()
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:  # hashing lets other threads run
        for lines in threads.map(lines_of, parts):
            digest.update(lines.encode())
    return digest.hexdigest()


def hash_each(folder: Path, names: Sequence[str]) -> dict[str, str]:
    """SHA-256 of each of some files in a folder that is there, by its name."""

    def hash_of(name: str) -> str | None:
        with suppress(FileNotFoundError, NotADirectoryError):
            return hash_file(folder / name)
        return None

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        found = zip(names, threads.map(hash_of, names), strict=True)
        return {name: sha256 for name, sha256 in found if sha256 is not None}


def hash_json(content: object) -> str:
    """SHA-256 of a value in canonical JSON."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def differences(old: Mapping[str, Any], new: Mapping[str, Any], name: str = "") -> Iterator[str]:
    """Settings that differ, as ``name: old -> new``."""
    for key in sorted(old.keys() | new.keys()):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            yield from differences(before, after, f"{name}{key}.")
        elif before != after:
            yield f"{name}{key}: {before} -> {after}"
