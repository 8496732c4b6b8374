"""Writing of image sets, whole or not at all, and the check that a set is intact."""

import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from dgs_lightning.data.cards import CARD, hash_files, read_card, write_card
from dgs_lightning.data.records import MANIFEST, ImageRecord, read_manifest, write_manifest
from dgs_lightning.errors import InputError
from dgs_lightning.files import replacing


def write_set(source: Path, records: Sequence[ImageRecord], destination: Path, card: Mapping[str, Any]) -> None:
    """Copy images, byte for byte, into a new image set ``LABEL/NAME`` with manifest and card, whole or not at all.

    An earlier set of the same kind at the destination is replaced. The records' file names are relative to ``source``.
    :func:`finish_set` completes the card.

    Raises:
        InputError: If two images would get the same name, or the destination holds something else.
    """
    destination = destination.absolute()
    names = [name_in_class(record) for record in records]
    if len(set(names)) < len(names):
        found = "images whose names in one class folder would be equal"
        raise InputError(source, found, "names that differ", "Rename the images")
    written = [replace(record, file_name=name) for record, name in zip(records, names, strict=True)]
    _check_destination(source, destination, card)
    partial = destination.with_name(f".{destination.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    for record, copy in zip(records, written, strict=True):
        with replacing(partial / copy.file_name) as path:
            shutil.copyfile(source / record.file_name, path)
    finish_set(partial, written, card, destination)


def name_in_class(record: ImageRecord) -> str:
    """The file name ``LABEL/NAME`` that an image gets in a set that :func:`write_set` makes."""
    return f"{record.label}/{record.file_name.removeprefix(f'{record.label}/')}"


def _check_destination(source: Path, destination: Path, card: Mapping[str, Any]) -> None:
    """Raise an error unless the destination is apart from the source, and free or an earlier set of the same kind."""
    here, there = source.resolve(), destination.resolve()
    overlaps = here.is_relative_to(there) or there.is_relative_to(here)
    occupied = destination.exists() and (not destination.is_dir() or any(destination.iterdir()))
    if overlaps or (occupied and ("kind" not in card or read_card(destination).get("kind") != card["kind"])):
        found = "the images' own folder" if overlaps else "other files"
        raise InputError.occupied(destination, found, remedy="Name another folder for the output")


def finish_set(partial: Path, records: Sequence[ImageRecord], card: Mapping[str, Any], destination: Path) -> None:
    """Add manifest and card to a folder of images, and move it to ``destination``, beside it, in one step.

    The number of images and their hash are added to the card as ``images`` and ``hashes.images``. An intact destination
    with the same content is left unchanged.
    """
    hashes = {**card.get("hashes", {}), "images": hash_files(partial, records)}
    write_manifest(partial, records)
    write_card(partial, {**card, "images": len(records), "hashes": hashes})
    files = [(partial / name, destination / name) for name in (MANIFEST, CARD)]
    same = all(there.is_file() and here.read_bytes() == there.read_bytes() for here, there in files)
    if same and is_intact(destination):
        shutil.rmtree(partial)
        return
    replaced = destination.with_name(f".{destination.name}.replaced")
    shutil.rmtree(replaced, ignore_errors=True)
    if destination.exists():
        os.rename(destination, replaced)
    os.rename(partial, destination)
    shutil.rmtree(replaced, ignore_errors=True)


def is_intact(folder: Path) -> bool:
    """Whether the images of a set are still those whose hash is on its card."""
    expected = read_card(folder).get("hashes", {}).get("images")
    with suppress(InputError, FileNotFoundError):
        return expected is not None and bool(hash_files(folder, read_manifest(folder)) == expected)
    return False
