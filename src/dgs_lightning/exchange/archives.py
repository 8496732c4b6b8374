"""Sets in the tar files of WebDataset: files of one image have one name, and differ in their endings."""

import tarfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple, TypedDict

from PIL import Image

from dgs_lightning.data.images import load_image
from dgs_lightning.data.trees import is_image_name
from dgs_lightning.documents.files import LINE, parse_line
from dgs_lightning.errors import InputError, listed
from dgs_lightning.exchange.source import Label, Reading, Source, card_in, no_labels
from dgs_lightning.exchange.tables import files_of_split
from dgs_lightning.files import reading

EXPECTED = "a tar file without compression, as WebDataset reads it"
CARD_KEY = "DGS_LIGHTNING.card"  # of the global header of an archive (pax): the card of a set that this package made
LABEL_ENDINGS = ("cls", "json", "txt")  # of the file with the label; in JSON, it is the value of ``label``


class _Note(TypedDict):
    """The JSON file of an image."""

    label: int | str


class _Member(NamedTuple):
    """Where a file lies in an archive."""

    file: Path
    name: str
    start: int
    size: int

    def read(self) -> bytes:
        """Its content."""
        with reading(self.file, EXPECTED), self.file.open("rb") as file:
            file.seek(self.start)
            return file.read(self.size)


def read_webdataset(path: Path, settings: Reading) -> Source:
    """A set in a tar file, or in all those of a split below a folder.

    The label of an image is the number or name in its file ``.cls``, ``.txt`` or ``.json``; ``labels`` names another
    ending. Nothing is unpacked to the disk.

    Raises:
        InputError: If a file is broken or compressed, or an image has no label.
    """
    files = files_of_split(path, ".tar", settings.split) if path.is_dir() else [path]
    samples: dict[str, dict[str, _Member]] = {}
    card = ""
    for file in files:
        members, notes = _opened(file)
        card = card or notes.get(CARD_KEY, "")
        for member in members:
            folder, slash, name = member.name.rpartition("/")
            stem, _, ending = name.partition(".")
            own = samples.setdefault(f"{folder}{slash}{stem}", {})
            if ending.lower() in own:
                raise InputError(file, f"a second file {member.name!r}", "one image of each name", "Rename one of them")
            own[ending.lower()] = member
    pictures = {key: _picture(own, settings.images) for key, own in samples.items()}
    found = {key: member for key, member in pictures.items() if member is not None}
    if not found:
        raise InputError(path, "no images", EXPECTED, "Check the file, or set images=ENDING")
    labels = [_label(samples[key], settings.labels, member) for key, member in found.items()]
    images = [*found.values()]

    def read(position: int) -> Image.Image:
        member = images[position]
        return load_image(Path(f"{member.file}, {member.name}"), content=member.read())

    return Source(path, labels, read, card=card_in(card, path))


def _opened(file: Path) -> tuple[list[_Member], Mapping[str, str]]:
    """The files in an archive, in its order, and its notes. Links and other things are no images, and are left out."""
    size = file.stat().st_size if file.is_file() else 0
    with ExitStack() as stack:
        stack.enter_context(reading(file, EXPECTED, "Copy or download it again, or unpack its compression first"))
        archive = stack.enter_context(tarfile.open(file, "r:"))
        found = [member for member in archive if member.isreg() and not member.issparse()]
        if beyond := [member.name for member in found if member.offset_data + member.size > size]:
            raise ValueError(f"{beyond[0]} is cut off")
        return [_Member(file, member.name, member.offset_data, member.size) for member in found], archive.pax_headers


def _picture(sample: dict[str, _Member], ending: str | None) -> _Member | None:
    """The image among the files of one name; the first by its ending where there are several."""
    if ending is not None:
        return sample.get(ending.lower())
    return next((sample[name] for name in sorted(sample) if is_image_name(f"image.{name}")), None)


def _label(sample: dict[str, _Member], ending: str | None, image: _Member) -> Label:
    """The label of an image."""
    endings = [ending.lower()] if ending is not None else LABEL_ENDINGS
    member = next((sample[name] for name in endings if name in sample), None)
    if member is None:
        raise no_labels(
            Path(f"{image.file}, {image.name}"),
            f"Add a file {listed(endings)} beside it, or set labels=ENDING; there are {listed(sorted(sample))}",
        )
    place = Path(f"{member.file}, {member.name}")
    with reading(place, "the number or name of a class", "Correct or remove it", "no label"):
        text = member.read()[: LINE + 1].decode().strip()
        if member.name.lower().endswith("json"):
            return parse_line(text, _Note)["label"]
        if not text:
            raise ValueError("nothing in it")
    return int(text) if text.isdecimal() else text
