"""Sets as Hugging Face data sets in parquet files: a column of images, and a column of labels."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from PIL import Image

from dgs_lightning.data.images import load_image
from dgs_lightning.documents.files import parse_line
from dgs_lightning.errors import InputError, listed
from dgs_lightning.exchange.source import IMAGES, LABELS, Label, Reading, Source, card_in, chosen_name, no_labels
from dgs_lightning.files import reading

if TYPE_CHECKING:
    import pyarrow as pa

EXPECTED = "a parquet file with a column of images and one of labels"
CARD_KEY = b"dgs_lightning"  # of a file's metadata: the card of a set that this package made
_SPLIT = re.compile(r"(?P<split>.+?)(-\d+-of-\d+|[-_]?\d+)?")


class _Info(TypedDict, total=False):
    features: dict[str, dict[str, Any]]


class _Notes(TypedDict, total=False):
    """What ``datasets`` writes into the metadata of a parquet file."""

    info: _Info


def read_parquet(path: Path, settings: Reading) -> Source:
    """A set in a parquet file, or in all those of a split below a folder.

    An image is its file's bytes, or a structure with them, as ``datasets`` writes it. The names of the classes are
    those of ``ClassLabel`` in the file's metadata.

    Raises:
        InputError: If pyarrow is missing, or a file is broken or has no such columns.
    """
    parquet = _pyarrow()
    files = files_of_split(path, ".parquet", settings.split) if path.is_dir() else [path]
    tables = []
    for file in files:
        with reading(file, EXPECTED, "Copy or download it again"):
            tables.append(parquet.read_table(file))
    names = tables[0].column_names
    for file, table in zip(files, tables, strict=True):
        if table.column_names != names:
            found = f"columns {listed(table.column_names, 20)}"
            raise InputError(file, found, f"those of {files[0]}: {listed(names, 20)}", "Give one data set alone")
    images = chosen_name(names, IMAGES, settings.images, "images", path)
    others = [name for name in names if name != images]
    if settings.labels is None and not set(map(str.lower, others)) & set(LABELS):
        raise no_labels(path, f"Set labels=NAME to their column, if it is one of {listed(others, 20) or 'none'}")
    labels = chosen_name(others, LABELS, settings.labels, "labels", path)
    columns = [(file, table[images]) for file, table in zip(files, tables, strict=True)]
    places = [(file, column, row) for file, column in columns for row in range(len(column))]
    known = [label for table in tables for label in _labels(table[labels].to_pylist(), path, labels)]
    notes = tables[0].schema.metadata or {}
    card = card_in(notes.get(CARD_KEY, b"").decode(errors="replace"), path)

    def read(position: int) -> Image.Image:
        file, column, row = places[position]
        return _image(column, row, file)

    return Source(path, known, read, _class_names(notes, labels, path), card=card)


def _pyarrow() -> Any:  # noqa: ANN401
    try:
        from pyarrow import parquet
    except ImportError:
        raise InputError.not_installed("pyarrow", "format parquet") from None
    return parquet


def files_of_split(folder: Path, ending: str, split: str | None) -> list[Path]:
    """The files below a folder that have an ending and belong to a split, sorted by path.

    A file belongs to the split that its name begins with: ``train-00000-of-00002.parquet`` to ``train``.

    Raises:
        InputError: If there are none, or there are several splits and none is chosen.
    """
    files = sorted(path for path in folder.rglob(f"*{ending}") if path.is_file())
    by_split: dict[str, list[Path]] = {}
    for path in files:
        match = _SPLIT.fullmatch(path.name.removesuffix(ending))
        by_split.setdefault(match["split"] if match else "", []).append(path)
    if split is not None and split in by_split:
        return by_split[split]
    if len(by_split) != 1 or split is not None:
        found = f"files of the splits {listed(by_split)}" if files else f"no {ending} files"
        remedy = f"Set split={next(iter(by_split))}, or another of them" if files else "Check path and format"
        raise InputError(folder, found, f"the {ending} files of the split {split or 'to read'}", remedy)
    return files


def _labels(found: Sequence[object], path: Path, column: str) -> list[Label]:
    """The values of the column of labels."""
    wrong = next((value for value in found if not isinstance(value, int | str) or isinstance(value, bool)), None)
    if wrong is not None or None in found:
        what = "soft labels" if isinstance(wrong, list) else f"the label {wrong!r}"
        expected = "the number or name of one class for each image"
        raise InputError(path, f"{what} in the column {column!r}", expected, "Save hard labels, or set labels=NAME")
    return [value for value in found if isinstance(value, int | str)]


def _image(column: "pa.ChunkedArray", row: int, file: Path) -> Image.Image:
    """The image in a row."""
    value = column[row].as_py()
    content = value.get("bytes") if isinstance(value, dict) else value
    place = Path(f"{file}, row {row}")
    if not isinstance(content, bytes):
        found = "an image that is not in the file" if isinstance(value, dict) else f"a {type(value).__name__}"
        remedy = "Save the images themselves (datasets: embed_external_files=True)"
        raise InputError(place, found, "the bytes of an image file", remedy)
    return load_image(place, content=content)


def _class_names(notes: Mapping[bytes, bytes], column: str, path: Path) -> Sequence[str] | None:
    """Names of the classes of a ``ClassLabel`` in the metadata that ``datasets`` writes."""
    if b"huggingface" not in notes:
        return None
    with reading(path, "metadata of the library datasets"):
        info = parse_line(notes[b"huggingface"].decode(), _Notes)
    names = info.get("info", {}).get("features", {}).get(column, {}).get("names")
    return [str(name) for name in names] if isinstance(names, list) else None
