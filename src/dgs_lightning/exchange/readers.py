"""Which reader reads which format, and how a format is recognised."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

from dgs_lightning.data.cards import read_card
from dgs_lightning.data.records import MANIFEST
from dgs_lightning.data.trees import is_image_name
from dgs_lightning.errors import InputError
from dgs_lightning.exchange.source import Reading, Source
from dgs_lightning.files import stand_in

Format = Literal["pt", "npz", "safetensors", "parquet", "webdataset", "folder"]
TENSORS = ("pt", "npz", "safetensors")
ENDINGS: Mapping[str, Format] = {
    ".pt": "pt",
    ".pth": "pt",
    ".npz": "npz",
    ".safetensors": "safetensors",
    ".parquet": "parquet",
    ".tar": "webdataset",
}


def format_of(path: Path) -> Format:
    """The format of a set, by its ending, or by the files in a folder.

    Raises:
        InputError: If there is nothing at this path, or its ending is none of those.
    """
    if path.is_dir():
        for ending in (".parquet", ".tar"):
            if next(path.rglob(f"*{ending}"), None) is not None:
                return ENDINGS[ending]
        return "folder"
    if not path.exists():
        raise InputError.missing(path, "a file or folder with a set of images")
    if path.suffix.lower() not in ENDINGS:
        expected, remedy = f"a folder, or a file that ends in {', '.join(ENDINGS)}", "Set format to what it is"
        raise stand_in(path, expected) or InputError(
            path, f"the ending {path.suffix or 'of no format'}", expected, remedy
        )
    return ENDINGS[path.suffix.lower()]


def read_source(path: Path, kind: Format | None = None, settings: Reading = Reading()) -> Source:
    """A set in one of the formats.

    Args:
        path: Its file or folder.
        kind: Its format; by default that of its ending.
        settings: What the files do not say.

    Raises:
        InputError: If it cannot be read as such a set.
    """
    path = _only_file(path)
    kind = kind or format_of(path)
    if kind not in get_args(Format):
        raise InputError.choice("format", kind, get_args(Format))
    source = _reader_of(kind)(path, settings)
    card = source.card
    if not card and path.is_file() and not (path.parent / MANIFEST).is_file():
        card = read_card(path.parent)  # as 'dgs export' leaves it beside a file that has no place for it
    labels = card.get("labels")
    return replace(source, card=card, classes=source.classes or (sorted(labels) if labels else None))


def _only_file(path: Path) -> Path:
    """The only file of tensors in a folder without images, or else the path itself."""
    if not path.is_dir():
        return path
    entries = [entry for entry in path.iterdir() if not entry.name.startswith(".")]
    files = [entry for entry in entries if ENDINGS.get(entry.suffix) in TENSORS and entry.is_file()]
    images = any(entry.is_dir() or is_image_name(entry.name) for entry in entries)
    return files[0] if len(files) == 1 and not images else path


def _reader_of(kind: Format) -> Callable[[Path, Reading], Source]:
    if kind == "parquet":
        from dgs_lightning.exchange.tables import read_parquet

        return read_parquet
    if kind == "webdataset":
        from dgs_lightning.exchange.archives import read_webdataset

        return read_webdataset
    if kind == "folder":
        from dgs_lightning.exchange.trees import read_folder

        return read_folder
    from dgs_lightning.exchange.tensors import read_tensors

    return read_tensors
