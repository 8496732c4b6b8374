"""Sets in folders: image sets of this package, class folders, and image folders with a list of labels."""

import csv
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from dgs_lightning.data.cards import CARD, read_card
from dgs_lightning.data.folders import read_set, scan_images
from dgs_lightning.data.images import load_image
from dgs_lightning.data.records import MANIFEST, relative_path
from dgs_lightning.data.sources import Split, png_names
from dgs_lightning.data.trees import image_files
from dgs_lightning.documents.files import lines_of, parse_line
from dgs_lightning.errors import InputError, listed
from dgs_lightning.exchange.source import LABELS, Label, Reading, Source, chosen_name, no_labels
from dgs_lightning.files import explain_disk_errors

TABLE = "metadata.csv"
Row = Mapping[str, Any]


def is_own(folder: Path) -> bool:
    """Whether a folder is an image set of this package, by its card."""
    return (folder / CARD).is_file() and "kind" in read_card(folder)


def read_folder(folder: Path, settings: Reading) -> Source:
    """A set in class folders of any names, or in a folder whose ``metadata.jsonl`` or ``metadata.csv`` has the labels.

    Raises:
        InputError: If there are no images, or labels or files are missing.
    """
    if settings.split is not None:
        folder = folder / settings.split
    own = is_own(folder)
    rows = None if own else _rows(folder)
    if rows is not None and (settings.labels is not None or _named(rows[0])):
        return _listed(folder, rows, settings)
    if rows is not None and all("/" not in str(row.get("file_name")) for row in rows):
        others = listed((name for name in rows[0] if name != "file_name"), 20)
        raise no_labels(folder, f"Set labels=NAME to their column in the list; it has {others or 'none'}")
    records = read_set(folder) if own else scan_images(folder)
    split = Split(folder.name, folder, records)
    names = [os.path.splitext(name)[0].partition("/")[2] for name in png_names(split)]
    return Source(
        folder, [record.label for record in records], _reader(split.paths), names=names, card=read_card(folder)
    )


def _named(row: Row) -> bool:
    """Whether a line has a usual name of labels."""
    return any(str(name).lower() in LABELS for name in row)


def _reader(paths: list[Path]) -> Callable[[int], Image.Image]:
    def read(position: int) -> Image.Image:
        return load_image(paths[position])

    return read


def _rows(folder: Path) -> list[Row] | None:
    """The lines of the list of images; none where the folder has no list."""
    for name, read in ((MANIFEST, _json_rows), (TABLE, _csv_rows)):
        if (path := folder / name).is_file():
            with explain_disk_errors(path):
                rows = [*read(path)]
            if not rows:
                raise InputError(path, "no lines", "a line for each image", "Write them, or remove the file")
            return rows
    return None


def _json_rows(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8", errors="strict") as file:
        for number, line in enumerate(lines_of(file), 1):
            try:
                yield parse_line(line, dict[str, Any])
            except ValueError as error:
                raise InputError.line(path, number, str(error)) from None


def _csv_rows(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8", newline="") as file:
        try:
            yield from csv.DictReader(file, strict=True)
        except (csv.Error, UnicodeDecodeError) as error:
            raise InputError.broken(path, error, "a table with a line for each image") from None


def _listed(folder: Path, rows: list[Row], settings: Reading) -> Source:
    """A set of images with a list of their labels."""
    others = [str(name) for name in rows[0] if name != "file_name"]
    column = chosen_name(others, LABELS, settings.labels, "labels", folder)
    names, labels = [], list[Label]()
    for number, row in enumerate(rows, 1):
        label = row.get(column)
        try:
            names.append(relative_path(row.get("file_name")))
            if not isinstance(label, int | str) or isinstance(label, bool) or label == "":
                raise ValueError(f"{column} {label!r} instead of the number or name of a class")
        except ValueError as error:
            raise InputError.line(folder / MANIFEST, number, str(error)) from None
        labels.append(int(label) if isinstance(label, str) and label.isdecimal() else label)
    found = set(image_files(folder))
    if missing := [name for name in names if name not in found]:
        raise InputError(
            folder, f"{len(missing)} missing images, such as {missing[0]!r}", "all that it lists", "Add them"
        )
    stems = [os.path.splitext(name)[0] for name in names]
    return Source(folder, labels, _reader([folder / name for name in names]), names=stems)
