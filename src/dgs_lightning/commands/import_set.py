"""The command ``dgs import``: a set of other people as an image set of our own."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from dgs_lightning.bounds import Above, AtLeast, Between
from dgs_lightning.data.cards import hash_each, hash_json, read_card, versions
from dgs_lightning.data.classes import in_natural_order, labels_of, readable_name
from dgs_lightning.data.editions import TERMS, UNKNOWN, is_imagenet
from dgs_lightning.data.images import channels_of, encoded
from dgs_lightning.data.records import ImageRecord
from dgs_lightning.data.transforms import adm_center_crop
from dgs_lightning.data.writing import write_set
from dgs_lightning.errors import InputError, counted, listed
from dgs_lightning.exchange.hub import local_copy
from dgs_lightning.exchange.labels import mapped
from dgs_lightning.exchange.readers import Format, format_of, read_source
from dgs_lightning.exchange.source import KIND, Reading, Source

Numbers = Annotated[list[float] | None, Between(-1e6, 1e6)]


def import_set(
    path: str,
    output: str,
    format: Format | None = None,
    original: str | None = None,
    classes: str | list[str] | None = None,
    ipc: Annotated[int | None, AtLeast(1)] = None,
    image_size: Annotated[int | None, Between(1, 16384)] = None,
    images: str | None = None,
    labels: str | None = None,
    split: str | None = None,
    mean: Numbers = None,
    std: Annotated[list[float] | None, Above(0)] = None,
    clip: bool = False,
    licence: str | None = None,
) -> str:
    """Write a set of other people as an image set: class folders of PNG, metadata and a card with its origin.

    Args:
        path: File or folder of the set, or ``hf://USER/NAME`` for a data set of the Hugging Face hub.
        output: Folder to write. An earlier import there is replaced.
        format: ``pt``, ``npz``, ``safetensors``, ``parquet``, ``webdataset`` (tar) or ``folder`` (class folders, or
            images with a list of their labels); by default that of its ending.
        original: The original training images, whose classes the set must have, and whose size if they have a card.
        classes: Labels in the order in which the set numbers its classes, or the name of a class list. By default the
            set's own names of its classes say it, else the sorted labels of ``original``.
        ipc: Images that each class must have; by default any number.
        image_size: Side in pixels, to which images are scaled and cropped; by default they keep their size and must be
            squares of one size.
        images: Name of the images in the file (key, column or ending); by default a usual one, such as ``images``.
        labels: Name of the labels in the file, or a file of labels beside tensors; by default a usual name.
        split: The split of a data set that has several, such as ``train``.
        mean: What was subtracted from tensors when they were normalised, for each channel or all.
        std: What they were divided by.
        clip: Cut off pixels outside of [0, 1], which learned images may have. By default they are an error.
        licence: Licence of the set, for its card; by default that of its own card, or what its classes tell.

    Returns:
        A summary of the images and of how labels became classes, in a few lines.

    Raises:
        InputError: If the set cannot be read, or has other classes, numbers or sizes of images.
    """
    place, origin = local_copy(path)
    source = read_source(place, format, Reading(images, labels, split, mean, std, clip))
    known = None if original is None else labels_of(original)
    own_labels, how = mapped(source, known, classes)
    counts = Counter(own_labels)
    _check_ipc(counts, ipc, path)
    size = _size_of(source, path, image_size, None if original is None else read_card(Path(original)))
    pictures = (source.picture(position) for position in range(len(own_labels)))
    channels = channels_of(picture.convert("RGB") for picture in pictures)
    records = _records(source, own_labels)
    positions = {record.file_name: position for position, record in enumerate(records)}

    def encode(record: ImageRecord) -> bytes:
        picture = source.picture(positions[record.file_name]).convert("L" if channels == 1 else "RGB")
        return encoded(picture if picture.size == (size, size) else adm_center_crop(picture, size))

    card = _card(source, counts, output, origin, licence)
    card["settings"] = {
        "format": format or format_of(source.path),
        "image_size": size,
        "channels": channels,
        "classes": how,
        **{name: value for name, value in (("mean", mean), ("std", std), ("clip", clip or None)) if value is not None},
    }
    write_set(place, records, Path(output), card, encode=encode)
    pixels = f"{size} x {size} pixels, {'grey' if channels == 1 else 'RGB'}"
    least, most = min(counts.values()), max(counts.values())
    return (
        f"{path}: {counted(len(counts), 'class')} ({listed(in_natural_order(counts), 10)}), {how}; {pixels}\n"
        f"{output}: {counted(len(records), 'image')}, {least if least == most else f'{least} to {most}'} of a class"
    )


def _check_ipc(counts: Counter[str], ipc: int | None, path: str) -> None:
    """Check that each class has the images that it is said to have."""
    if ipc is not None and (wrong := {label: count for label, count in counts.items() if count != ipc}):
        numbers = ", ".join(map(str, sorted(set(wrong.values()))[:10]))
        found = f"{numbers} images in {counted(len(wrong), 'class')}, such as {next(iter(wrong))}"
        raise InputError(path, found, f"{ipc} of each class", "Set ipc to what the set has; uneven sets have no IPC")


def _size_of(source: Source, path: str, wanted: int | None, original: dict[str, Any] | None) -> int:
    """Side of the images to write.

    Raises:
        InputError: If the images are no squares of one size, or not of the size of the originals, and no size is given.
    """
    if not source.labels:
        raise InputError(path, "no images", "a set of images", "Check the file")
    sizes = Counter(source.picture(position).size for position in range(len(source.labels)))
    if wanted is not None:
        return wanted
    remedy = "Set image_size, for example 32 or 224"
    if len(sizes) > 1:
        found = f"images of {len(sizes)} sizes ({listed((f'{w} x {h}' for w, h in sizes), 5)})"
        raise InputError(path, found, "squares of one size without image_size", remedy)
    [(width, height)] = sizes
    if width != height:
        raise InputError(path, f"{width} x {height} pixels", "squares without image_size", remedy)
    side = (original or {}).get("settings", {}).get("image_size")
    if side not in (None, width):
        remedy = f"Set image_size={side} to scale the images of the set"
        raise InputError(path, f"{width} x {width} pixels", f"{side} x {side}, as the originals have", remedy)
    return width


def _records(source: Source, labels: Sequence[str]) -> list[ImageRecord]:
    """A record for each image: named as in the set, or numbered within its class."""
    numbers = Counter[str]()
    records = []
    for position, label in enumerate(labels):
        name = source.names[position] if source.names is not None else f"{numbers[label]:05d}"
        records.append(ImageRecord(f"{label}/{name}.png", label, readable_name(label)))
        numbers[label] += 1
    return records


def _card(source: Source, counts: Counter[str], output: str, origin: str, licence: str | None) -> dict[str, Any]:
    """Card of the set, without its settings."""
    folder = source.path if source.path.is_dir() else source.path.parent
    files = [p.relative_to(folder).as_posix() for p in source.path.rglob("*") if p.is_file()] or [source.path.name]
    given = source.card.get("licences", [TERMS if is_imagenet(counts) else UNKNOWN])
    return {
        "name": Path(output).name,
        "kind": KIND,
        "labels": {label: readable_name(label) for label in sorted(counts)},
        "images_per_class": counts,
        "versions": versions(),
        "hashes": {"source": hash_json(hash_each(folder, files))},
        "provenance": [{"role": "source", "place": origin, "card": dict(source.card)}],
        "licences": given if licence is None else [licence],
    }
