"""The command ``dgs prepare``: training and validation sets at the working size, from images or the bundled digits."""

import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import numpy as np
from PIL import Image

from dgs_lightning.bounds import Between, OneOf, check_bounds
from dgs_lightning.data.cards import hash_each, hash_files, read_card, versions, write_card
from dgs_lightning.data.classes import check_labels, in_natural_order, readable_name
from dgs_lightning.data.editions import is_imagenet, licences_of
from dgs_lightning.data.folders import read_set
from dgs_lightning.data.images import channels_of, load_image, save_png
from dgs_lightning.data.records import ImageRecord
from dgs_lightning.data.splits import validation_part
from dgs_lightning.data.transforms import adm_center_crop
from dgs_lightning.data.unfinished import ADOPTED, Unfinished
from dgs_lightning.data.writing import begin_set, finish_set, is_intact, tidy
from dgs_lightning.errors import BrokenFile, InputError, counted, listed

DIGITS = "digits"
DIGIT_SIDE = 8  # pixels
DIGIT_COUNTS = (178, 182, 177, 183, 181, 182, 181, 179, 174, 180)  # images of each class
SPLITS = ("train", "val")
_DIGITS_SOURCE = "Optical Recognition of Handwritten Digits (Alpaydin and Kaynak, UCI), as bundled with scikit-learn"


@dataclass(frozen=True)
class Split:
    """An image set of an experiment, such as the images for training or validation before they are prepared."""

    name: str
    folder: Path
    records: list[ImageRecord]

    @cached_property
    def counts(self) -> Counter[str]:
        """Number of images of each class."""
        return Counter(record.label for record in self.records)


def prepare(
    data: str,
    output: str,
    image_size: Annotated[int | None, Between(1, 16384)] = None,
    val_fraction: Annotated[float, Between(0, 1, open="both")] = 0.2,
    seed: int = 0,
    channels: Annotated[int | None, OneOf(1, 3)] = None,
    classes: str | None = None,
) -> str:
    """Write a data set as PNG at the working size: OUTPUT/train and OUTPUT/val, with metadata and cards.

    Images are cropped to their centre square. An interrupted preparation is continued; an unchanged one is kept.

    Args:
        data: ``digits``, scikit-learn's 1,797 handwritten digits of 8 x 8 pixels; a folder with ``train`` and ``val``;
            or one tree of class folders, which is split.
        output: Folder of the two sets.
        image_size: Side in pixels; by default the images keep their size and must be squares of one size.
        val_fraction: Share of each class for validation if one tree is split.
        seed: Seed of the split, which depends only on it and on file names.
        channels: 1 for grey, 3 for RGB; by default 1 if all images are grey.
        classes: Name of the class list that the data must have (``imagewoof``, ``imagenette``, ...); by default any.

    Returns:
        A summary of the images read and written, in a few lines.

    Raises:
        InputError: If images or classes are missing or unreadable, or ``output`` lies among the images or has others.
    """
    check_bounds(prepare, {"image_size": image_size, "val_fraction": val_fraction, "channels": channels})
    with _source(data) as folder:
        splits = _splits(folder, val_fraction, seed)
        labels = _check(splits, classes, Path(output))
        channels = channels or channels_of(image for _, image in _readable(splits))
        size = image_size or _common_size(splits)
        origin = "ImageNet (ILSVRC 2012)" if is_imagenet(labels) else Path(data).name
        card: dict[str, Any] = {
            "name": Path(data).name,
            "kind": "original",
            "labels": {label: readable_name(label) for label in labels},
            "settings": {"image_size": size, "channels": channels, "crop": "ADM centre crop", "seed": seed},
            "versions": versions(),
            "provenance": read_card(folder).get("provenance", [origin]),
            "licences": licences_of(folder, labels),
        }
        if splits[0].folder == folder:
            card["settings"] |= {"val_fraction": val_fraction}
        for split, records in [(split, _png_records(split)) for split in splits]:
            _write_split(split, records, card, Path(output) / split.name, resize=image_size is not None)
    return _summary(data, output, splits, labels, size, channels)


@contextmanager
def _source(data: str) -> Iterator[Path]:
    """Folder of the images; a temporary one with the digits."""
    if data != DIGITS:
        yield Path(data)
        return
    from sklearn.datasets import load_digits  # slow to import, and needed only here

    digits = load_digits()
    with tempfile.TemporaryDirectory() as folder:
        write_card(Path(folder), {"provenance": [_DIGITS_SOURCE], "licences": ["CC BY 4.0"]})
        for index, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
            path = Path(folder, str(label), f"{index:05d}.png")
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(np.round(pixels * (255 / 16)).astype(np.uint8)).save(path)
        yield Path(folder)


def _splits(folder: Path, val_fraction: float, seed: int) -> list[Split]:
    """The two sets of a folder: its folders train and val, or a split by the hash of file names."""
    if all((folder / name).is_dir() for name in SPLITS):
        return [Split(name, folder / name, read_set(folder / name)) for name in SPLITS]
    records = read_set(folder)
    if single := [label for label, count in Counter(record.label for record in records).items() if count == 1]:
        found = f"one image only of {counted(len(single), 'class')} ({listed(in_natural_order(single), 10)})"
        expected = "at least two images of each, to split them into train and val"
        raise InputError(folder, found, expected, "Add images, or make folders train and val with all classes")
    in_val = validation_part(records, val_fraction, seed)
    parts = [[record for record, val in zip(records, in_val, strict=True) if val == wanted] for wanted in (False, True)]
    return [Split(name, folder, part) for name, part in zip(SPLITS, parts, strict=True)]


def _check(splits: Sequence[Split], classes: str | None, output: Path) -> tuple[str, ...]:
    """The classes, at least two and the same in both sets. An output among the images is an error, too."""
    for split in splits:  # the next run would read the output as images
        if output.resolve().is_relative_to(split.folder.resolve()):
            found = f"a folder in {split.folder}, whose images are read"
            raise InputError.occupied(output, found, "a folder outside it", "Give another output")
    train, val = splits
    labels = check_labels(set(train.counts), classes, train.folder)
    if len(labels) < 2:
        raise InputError(
            train.folder, f"one class ({labels[0]})", "at least two class folders", "Give the folder above them"
        )
    return check_labels(set(val.counts), labels, val.folder)


def _readable(splits: Sequence[Split]) -> Iterator[tuple[Path, Image.Image]]:
    """The readable images in RGB. The others are reported together when the images are written."""
    for split in splits:
        for record in split.records:
            path = split.folder / record.file_name
            with suppress(BrokenFile):
                yield path, load_image(path)


def _common_size(splits: Sequence[Split]) -> int:
    """Side of the first image, which all others must have."""
    path, image = next(_readable(splits), (splits[0].folder, Image.new("L", (1, 1))))
    if image.width != image.height:
        raise _wrong_size(path, image)
    return image.width


def _wrong_size(path: Path, image: Image.Image) -> InputError:
    expected, remedy = "squares of one size without image_size", "Set image_size, for example 32 or 128"
    return InputError(path, f"{image.width} x {image.height} pixels", expected, remedy)


def _write_split(split: Split, records: list[ImageRecord], card: dict[str, Any], output: Path, resize: bool) -> None:
    """Write the missing images of one set, and move the set to its place when it is complete."""
    size, channels = card["settings"]["image_size"], card["settings"]["channels"]
    hashes = {"sources": hash_files(split.folder, split.records)}
    card = {**card, "name": f"{card['name']}/{split.name}", "hashes": hashes}
    made = read_card(output)
    made["hashes"] = {"sources": made.get("hashes", {}).get("sources")}
    other = any(made.get(key) != value for key, value in card.items() if key != "versions")
    adopted = Unfinished(output, card["kind"]).begun() == ADOPTED
    if other and not adopted and output.exists() and any(output.iterdir()):
        raise InputError.occupied(output, "files made with other settings, or of other images")
    if is_intact(output):
        tidy(output, card)
        return
    unfinished = begin_set(output, card, key=card)
    noted = unfinished.hashes()
    kept = {name for name, sha256 in hash_each(unfinished.folder, list(noted)).items() if sha256 == noted[name]}

    def write(position: int) -> InputError | None:
        name = records[position].file_name
        if name in kept:
            return None
        try:
            source = split.folder / split.records[position].file_name
            image = load_image(source, channels)
            if not resize and image.size != (size, size):
                return _wrong_size(source, image)
        except BrokenFile as error:
            return error
        unfinished.note(0, {name: save_png(unfinished.folder / name, adm_center_crop(image, size))})
        return None

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        errors = [error for error in threads.map(write, range(len(records))) if error]
    if len(errors) > 1:
        lines = "".join(f"\n  {where}: {found}" for where, found, _, _ in (error.parts for error in errors[:20]))
        remedy = f"Replace or remove them:{lines}" + ("\n  ..." if len(errors) > 20 else "")
        raise InputError(split.folder, f"{len(errors)} images at fault", "images that can be used", remedy)
    if errors:
        raise errors[0]
    finish_set(unfinished, records, card, output)


def _png_records(split: Split) -> list[ImageRecord]:
    """Records of the images to write."""
    names = [PurePosixPath(record.file_name).with_suffix(".png").as_posix() for record in split.records]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        found = f"{len(twice)} names that differ only in their ending, such as {twice[0]!r}"
        expected = "one image of each name, since all become PNG"
        raise InputError(split.folder, found, expected, "Rename or remove the others")
    pairs = zip(names, split.records, strict=True)
    return [ImageRecord(name, each.label, readable_name(each.label), extra=each.extra) for name, each in pairs]


def _summary(data: str, output: str, splits: Sequence[Split], labels: Sequence[str], size: int, channels: int) -> str:
    """The images read and written, in a few lines."""
    pixels = f"{size} x {size} pixels, {'grey' if channels == 1 else 'RGB'}, centre crop"
    lines = [f"{data}: {counted(len(labels), 'class')} ({listed(in_natural_order(labels), 10)}); {pixels}"]
    for split in splits:
        least, most = min(split.counts.values()), max(split.counts.values())
        lines.append(
            f"{Path(output) / split.name}: {counted(len(split.records), 'image')}, {least} to {most} of a class"
        )
    return "\n".join(lines)
