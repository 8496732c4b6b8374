"""The card of an image set: its origin, settings, hashes, versions and terms of use."""

import hashlib
import json
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from dgs_lightning.data.records import ImageRecord
from dgs_lightning.errors import InputError
from dgs_lightning.files import explain_disk_errors, read_json, write_json

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


def read_card(folder: Path) -> dict[str, Any]:
    """The folder's ``dataset.json``; empty if there is none.

    Raises:
        InputError: If it is no JSON object, or a part of it has the wrong type.
    """
    path, expected, remedy = folder / CARD, "the card of an image set", "Make the set again, or delete the card"
    card = read_json(path, expected, remedy, default={})
    objects, lists = ("labels", "settings", "hashes", "scoring"), ("provenance", "licences")
    wrong = [name for name in objects if not isinstance(card.get(name, {}), dict)]
    wrong += [name for name in lists if not isinstance(card.get(name, []), list)]
    if wrong or not all(isinstance(text, str) for text in card.get("licences", [])):
        raise InputError.broken(path, f"{', '.join(wrong) or 'licences'} of a wrong type", expected, remedy)
    return card


def write_card(folder: Path, card: Mapping[str, Any], *, durable: bool = False) -> None:
    """Write ``dataset.json`` atomically; for ``durable`` see ``dgs_lightning.files.replacing``."""
    write_json(folder / CARD, dict(card), durable=durable)


def versions() -> dict[str, str]:
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
