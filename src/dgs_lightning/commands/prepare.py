"""The command ``dgs prepare``: training and validation sets at the working size, from images or a data set by name."""

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

from PIL import Image

from dgs_lightning.bounds import FINITE, Between, OneOf, check_bounds
from dgs_lightning.data.cards import CARD, hash_each, hash_files, read_card, versions
from dgs_lightning.data.classes import in_natural_order, readable_name
from dgs_lightning.data.editions import is_imagenet, licences_of
from dgs_lightning.data.images import Range, channels_of, load_image, save_png, values_of, why_not_of_16_bits
from dgs_lightning.data.named import DIGITS, bare_name, is_named, known_set, near_names
from dgs_lightning.data.records import ImageRecord
from dgs_lightning.data.sources import Split, ignored_of, in_both, png_names, read_trees, split_tree
from dgs_lightning.data.transforms import adm_center_crop
from dgs_lightning.data.trees import Links
from dgs_lightning.data.unfinished import ADOPTED, Unfinished
from dgs_lightning.data.writing import begin_set, finish_set, is_intact, tidy
from dgs_lightning.errors import BrokenFile, InputError, counted, listed
from dgs_lightning.files import scratch


def prepare(
    data: str,
    output: str,
    image_size: Annotated[int | None, Between(1, 16384)] = None,
    val_fraction: Annotated[float, Between(0, 1, open="both")] = 0.2,
    seed: int = 0,
    channels: Annotated[int | None, OneOf(1, 3)] = None,
    classes: str | None = None,
    value_range: Annotated[tuple[float, float] | None, FINITE] = None,
    links: Links = "refuse",
    root: str | None = None,
) -> str:
    """Write a data set as PNG at the working size: OUTPUT/train and OUTPUT/val, with metadata and cards.

    Images are cropped to their centre square. An interrupted preparation is continued; an unchanged one is kept.

    Args:
        data: A folder with ``train`` and ``val``; one tree of class folders, which is split; or the name of a data set:
            ``digits`` (scikit-learn's 1,797 handwritten digits of 8 x 8 pixels), ``fashion_mnist``, ``mnist``,
            ``kmnist``, ``emnist``, ``qmnist``, ``usps``, ``cifar10``, ``cifar100``, ``svhn``, ``stl10``, ``eurosat``,
            or ``torchvision:NAME`` for another one of torchvision. A folder of such a name is written ``./NAME``.
        output: Folder of the two sets.
        image_size: Side in pixels; by default the images keep their size and must be squares of one size.
        val_fraction: Share of each class for validation if one tree is split.
        seed: Seed of the split, which depends only on it and on file names.
        channels: 1 for grey, 3 for RGB; by default 1 if all images are grey.
        classes: Name of the class list that the data must have (``imagewoof``, ``imagenette``, ...); by default any.
        value_range: The values of grey images with more than 8 bits that become black and white, such as ``[0, 4095]``
            for 12 bits; by default 0 and 65,535, which the values must then fill.
        links: ``follow`` reads the images and class folders that links in ``data`` lead to, wherever they are. By
            default a link to a folder, or out of the tree, is an error.
        root: Folder with the files of a data set by name. They are downloaded into it where they are not there. By
            default, it is ``datasets`` in torch's cache folder; Fashion-MNIST is read from Debian's package
            ``dataset-fashion-mnist`` if that is installed.

    Returns:
        A summary of the images read, ignored and written, in a few lines.

    Raises:
        InputError: If images or classes are missing or unreadable, or ``output`` lies among the images or has others.
    """
    check_bounds(prepare, {"image_size": image_size, "val_fraction": val_fraction, "channels": channels})
    check_combination({"value_range": value_range})
    name, known = bare_name(data) if is_named(data) else Path(data).name, known_set(data)
    with _source(data, root, Path(output), image_size) as folder:
        trees, labels = read_trees(folder, Path(output), classes, links)
        splits = trees if len(trees) > 1 else split_tree(trees[0], val_fraction, seed)
        _check_values(splits, value_range)
        records = [_png_records(split) for split in splits]
        if known:
            channels = channels or known.channels
        channels = channels or channels_of(image for _, image in _readable(splits, value_range))
        size = image_size or _common_size(splits, value_range)
        origin = "ImageNet (ILSVRC 2012)" if is_imagenet(labels) else name
        described = folder if (folder / CARD).is_file() else trees[0].folder
        card: dict[str, Any] = {
            "name": name,
            "kind": "original",
            "labels": {label: readable_name(label) for label in labels},
            "settings": {"image_size": size, "channels": channels, "crop": "ADM centre crop", "seed": seed},
            "versions": versions(),
            "provenance": read_card(described).get("provenance", [origin]),
            "licences": licences_of(described, labels),
        }
        if splits[0].folder == folder:
            card["settings"] |= {"val_fraction": val_fraction}
        if value_range is not None:
            card["settings"] |= {"value_range": list(value_range)}
        written = []
        for split, png_records in zip(splits, records, strict=True):
            place = Path(output) / split.name
            _write_split(split, png_records, card, place, resize=image_size is not None)
            written.append(Split(split.name, place, png_records))
        lines = [_summary(data, output, splits, labels, size, channels), *ignored_of(folder, trees).values()]
    return "\n".join([*lines, *filter(None, [in_both(*written)])])


def check_combination(settings: Mapping[str, Any]) -> None:
    """Refuse a range of values whose end is not above its start."""
    found = settings["value_range"]
    if found is not None and not found[0] < found[1]:
        raise InputError.setting("value_range", list(found), "the value of black below that of white")


@contextmanager
def _source(data: str, root: str | None, output: Path, size: int | None) -> Iterator[Path]:
    """Folder of the images; a temporary one with those of a data set by name."""
    named = is_named(data)
    if root is not None and (not named or bare_name(data) == DIGITS):
        expected = "no value, since these images are not read by a class of torchvision"
        raise InputError.setting("root", root, expected, "Remove it")
    if not named and not os.path.lexists(data):
        expected = "a folder with class folders of images, or the name of a data set"
        raise InputError(data, "no such folder", expected, f"Check the path; names are {near_names(data)}")
    if not named:
        yield Path(data)
        return
    from dgs_lightning.data.fetching import write_named  # slow to import, and needed only here

    place = tempfile.TemporaryDirectory() if bare_name(data) == DIGITS else scratch(output)
    with place as folder:
        write_named(data, root, Path(folder), size)
        yield Path(folder)


def _check_values(splits: Sequence[Split], value_range: Range | None) -> None:
    """Check the values of images with more than 8 bits."""
    paths = [split.folder / record.file_name for split in splits for record in split.records]
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        if error := why_not_of_16_bits(threads.map(values_of, paths), splits[0].folder, value_range):
            raise error


def _readable(splits: Sequence[Split], value_range: Range | None) -> Iterator[tuple[Path, Image.Image]]:
    """The readable images in RGB. The others are reported together when the images are written."""
    for split in splits:
        for record in split.records:
            path = split.folder / record.file_name
            with suppress(BrokenFile):
                yield path, load_image(path, value_range=value_range)


def _common_size(splits: Sequence[Split], value_range: Range | None) -> int:
    """Side of the first image, which all others must have."""
    path, image = next(_readable(splits, value_range), (splits[0].folder, Image.new("L", (1, 1))))
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
            image = load_image(source, channels, card["settings"].get("value_range"))
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
    pairs = zip(png_names(split), split.records, strict=True)
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
