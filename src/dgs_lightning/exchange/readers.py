"""Which reader reads which format, and how a format is recognised."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, get_args

from dgs_lightning.errors import InputError
from dgs_lightning.exchange.source import Reading, Source
from dgs_lightning.files import stand_in

Format = Literal["pt", "npz", "safetensors", "parquet", "webdataset", "folder"]
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
    kind = kind or format_of(path)
    if kind not in get_args(Format):
        raise InputError.choice("format", kind, get_args(Format))
    return _reader_of(kind)(path, settings)


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
