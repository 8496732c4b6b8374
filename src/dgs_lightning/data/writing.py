"""Writing of image sets, whole or not at all, and the check that a set is intact.

A set is put together in a hidden folder beside its place, marked as :class:`~dgs_lightning.data.unfinished.Unfinished`,
and moved there in one step.
"""

import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from dgs_lightning.data.cards import CARD, hash_files, read_card, write_card
from dgs_lightning.data.readme import DISTILLED, README, write_readme
from dgs_lightning.data.records import MANIFEST, ImageRecord, read_manifest, write_manifest
from dgs_lightning.data.trees import is_image_name
from dgs_lightning.data.unfinished import ADOPTED, Unfinished
from dgs_lightning.errors import BrokenFile, InputError
from dgs_lightning.files import explain_disk_errors, force_to_disk, remove_leftovers, replacing


def write_set(
    source: Path,
    records: Sequence[ImageRecord],
    destination: Path,
    card: Mapping[str, Any],
    beside: Mapping[str, Callable[[Path], object]] | None = None,
    encode: Callable[[ImageRecord], bytes] | None = None,
) -> None:
    """Copy images, byte for byte, into a new image set ``LABEL/NAME`` with manifest and card, whole or not at all.

    An earlier set of the same kind at the destination is replaced. The records' file names are relative to ``source``.
    :func:`finish_set` completes the card, and writes the files ``beside`` the images. Where the images are made from
    those of ``source``, ``encode`` returns the bytes of the file of a record.

    Raises:
        InputError: If two images would get the same name, or the destination holds something else.
    """
    destination = destination.absolute()
    names = [name_in_class(record) for record in records]
    if len(set(names)) < len(names):
        found = "images whose names in one class folder would be equal"
        raise InputError(source, found, "names that differ", "Rename the images")
    written = [replace(record, file_name=name) for record, name in zip(records, names, strict=True)]
    check_destination(source, destination, card, beside or {})
    unfinished = begin_set(destination, card, key=None)
    for record, copy in zip(records, written, strict=True):
        with replacing(unfinished.folder / copy.file_name) as path:
            if encode is None:
                shutil.copyfile(source / record.file_name, path)
            else:
                path.write_bytes(encode(record))
    finish_set(unfinished, written, card, destination, beside)


def name_in_class(record: ImageRecord) -> str:
    """The file name ``LABEL/NAME`` that an image gets in a set that :func:`write_set` makes."""
    return f"{record.label}/{record.file_name.removeprefix(f'{record.label}/')}"


def check_destination(source: Path, destination: Path, card: Mapping[str, Any], beside: Collection[str]) -> None:
    """Raise an error unless the destination is apart from the source, and free or an earlier set of the same kind."""
    here, there = source.resolve(), destination.resolve()
    found, remedy = "", "Name another folder for the output"
    if here.is_relative_to(there) or there.is_relative_to(here):
        found = "the images' own folder"
    elif destination.exists() and not destination.is_dir():
        found = "a file"
    elif destination.exists() and any(destination.iterdir()):
        same = "kind" in card and read_card(destination).get("kind") == card["kind"]
        same = same or Unfinished(destination, str(card.get("kind"))).begun() == ADOPTED
        found = next(_foreign(destination, beside), "") if same else "other files"
    if found:
        raise InputError.occupied(destination, found, remedy=remedy)


def _foreign(folder: Path, beside: Collection[str]) -> Iterator[str]:
    """Files in a set's folder that no writer of sets wrote."""
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.is_file() and not hidden and name not in (MANIFEST, CARD, README, *beside) and not is_image_name(name):
            yield name


def begin_set(destination: Path, card: Mapping[str, Any], key: object) -> Unfinished:
    """The hidden folder in which a set is put together, beside its destination.

    Args:
        destination: Where the set will be.
        card: Its card.
        key: What the images depend on, as JSON. Images of an earlier attempt with this key are kept, of others removed;
            with ``None``, all are removed.

    Raises:
        InputError: If there is a folder of this name that is something else.
    """
    unfinished = _beside(destination, "partial", card)
    if key is None or unfinished.begun() != key:
        _discard(unfinished)
        unfinished.begin(key if key is not None else "")
    else:
        remove_leftovers(unfinished.folder)
    return unfinished


def _discard(unfinished: Unfinished) -> None:
    """Remove a folder that mark or card prove to be this program's. The mark goes last, so that it can be repeated.

    Raises:
        InputError: If nothing proves it.
    """
    folder = unfinished.folder
    if not os.path.lexists(folder):
        return
    if folder.is_symlink() or not folder.is_dir():
        raise InputError.occupied(folder, "a file or a link")
    if unfinished.begun() is None:
        if read_card(folder).get("kind") != unfinished.kind:
            unfinished.check_free()
        unfinished.begin("")
    with explain_disk_errors(folder):
        for path in folder.iterdir():
            if path != unfinished.hidden:
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        unfinished.end()
        folder.rmdir()


def finish_set(
    unfinished: Unfinished,
    records: Sequence[ImageRecord],
    card: Mapping[str, Any],
    destination: Path,
    beside: Mapping[str, Callable[[Path], object]] | None = None,
) -> None:
    """Complete a folder of images by manifest and card, and move it to ``destination``, beside it, in one step.

    The number of images and their hash are added to the card as ``images`` and ``hashes.images``. A distilled set gets
    a README.md as well. An intact destination with the same content is left unchanged.

    Args:
        unfinished: Folder of the images.
        records: The images.
        card: Card of the set.
        destination: Where the set will be.
        beside: Further files, by name: functions that write them into a folder.
    """
    partial = unfinished.folder
    hashes = {**card.get("hashes", {}), "images": hash_files(partial, records)}
    whole = {**card, "images": len(records), "hashes": hashes}
    others = dict(beside or {})
    if card.get("kind") == DISTILLED:
        others[README] = lambda folder: write_readme(folder, whole, records)
    for name, write in others.items():
        write(partial)
        force_to_disk(partial / name)
    write_manifest(partial, records, durable=True)
    write_card(partial, whole, durable=True)
    files = [(partial / name, destination / name) for name in (*others, MANIFEST, CARD)]
    same = all(there.is_file() and here.read_bytes() == there.read_bytes() for here, there in files)
    if same and is_intact(destination):
        tidy(destination, card)
        return
    replaced = _beside(destination, "replaced", card)
    with explain_disk_errors(destination):
        _discard(replaced)
        if destination.exists():
            os.rename(destination, replaced.folder)
        unfinished.end()  # from here on, the card proves what the folder is
        os.rename(partial, destination)
        force_to_disk(destination.parent)
    _discard(replaced)


def tidy(destination: Path, card: Mapping[str, Any]) -> None:
    """Remove what an earlier attempt left beside a set that is in its place.

    Raises:
        InputError: If there is a folder of such a name that is something else.
    """
    for role in ("partial", "replaced"):
        _discard(_beside(destination, role, card))


def _beside(destination: Path, role: str, card: Mapping[str, Any]) -> Unfinished:
    """The hidden folder beside a set's place that has a role in its writing."""
    return Unfinished(destination.with_name(f".{destination.name}.{role}"), str(card.get("kind")))


def is_intact(folder: Path) -> bool:
    """Whether the images of a set are still those whose hash is on its card."""
    expected = read_card(folder).get("hashes", {}).get("images")
    if expected is None or not (folder / MANIFEST).is_file():
        return False
    with suppress(BrokenFile, FileNotFoundError):
        return bool(hash_files(folder, read_manifest(folder)) == expected)
    return False
