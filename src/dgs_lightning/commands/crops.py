"""The command ``dgs crops``: the easiest of some random crops of each image, by a teacher (RDED)."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from dgs_lightning.bounds import Between
from dgs_lightning.data.augmentation import normalise
from dgs_lightning.data.cards import hash_files, read_card, versions
from dgs_lightning.data.classes import readable_name
from dgs_lightning.data.crops import cut, draw_squares, pad
from dgs_lightning.data.editions import licences_of
from dgs_lightning.data.folders import read_set
from dgs_lightning.data.images import channels_of, encoded, load_image, picture
from dgs_lightning.data.records import ImageRecord
from dgs_lightning.data.transforms import resize_and_crop, to_unit
from dgs_lightning.data.writing import write_set
from dgs_lightning.errors import InputError, listed
from dgs_lightning.models.classifier import ClassifierConfig
from dgs_lightning.models.estimator import Teacher
from dgs_lightning.seeding import generator
from dgs_lightning.selection.difficulty import confidence_difficulty
from dgs_lightning.tasks.protocol import channel_statistics

View = Literal["padded", "enlarged"]
AT_ONCE = 32  # images whose crops are scored together


class Best(NamedTuple):
    """The easiest crop of an image."""

    record: ImageRecord  # with the box of the crop and its scores
    pixels: Tensor  # uint8, (C, s, s)


class Scorer:
    """Scores crops and whole images by a teacher, as the downstream training shows images to it.

    Args:
        teacher: Name of the teacher, and its local weights if there are any.
        labels: Classes of the images.
        size: Side of the images that the teacher sees, in pixels.
        channels: Their channels.
        view: How it sees a crop.
    """

    def __init__(
        self, teacher: tuple[str, str | None], labels: Sequence[str], size: int, channels: int, view: View
    ) -> None:
        self.mean, self.std = channel_statistics(channels)
        self.config = ClassifierConfig("", tuple(labels), size, channels, self.mean, self.std)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.teacher, self.view, self.device = Teacher(*teacher, self.config).to(device), view, device

    def __call__(self, images: Tensor, label: str) -> tuple[Tensor, list[str]]:
        """Difficulties ``(B,)`` and predicted labels of images or crops ``(B, C, s, s)`` in [0, 1] of one class."""
        size, network = self.config.image_size, self.teacher.network
        if self.view == "enlarged":
            images = F.interpolate(images, (size, size), mode="bilinear", antialias=True)
        seen = pad(normalise(images, self.mean, self.std), size, size)
        logits = self.teacher.all_logits(seen.to(self.device)).cpu()
        classes = torch.full((len(images),), self.teacher.columns[self.config.labels.index(label)])
        return confidence_difficulty(logits, classes), [network.labels[k] for k in logits.argmax(dim=1).tolist()]


def crops(
    output: str,
    images: str,
    teacher: str,
    teacher_weights: str | None = None,
    image_size: Annotated[int | None, Between(1, 16384)] = None,
    factor: Annotated[int, Between(1, 64)] = 2,
    mipc: Annotated[int | None, Between(1, 1_000_000)] = 300,
    crops: Annotated[int, Between(1, 10_000)] = 5,
    scale: Annotated[tuple[float, float], Between(0, 1, open="left")] = (0.08, 1.0),
    view: View = "padded",
    seed: int = 0,
) -> Path:
    """Cut random squares from images, and keep the one of each image that a teacher finds easiest (RDED).

    Writes the kept crops as a scored image set: PNG files in class folders with ``metadata.jsonl``, which has the
    difficulty of each crop (1 - p(true class), Eq. 6), its box and its source, and a card ``dataset.json``. Sun et al.,
    "On the Diversity and Realism of Distilled Dataset" (RDED), CVPR 2024.

    Args:
        output: Folder of the crops, which is returned. An earlier set there is replaced.
        images: Image set to cut from.
        teacher: ``torchvision:NAME``, ``timm:NAME`` or a folder of trained weights.
        teacher_weights: Local file of a named teacher's weights.
        image_size: Side in pixels of the images that the teacher sees, and of the pictures that ``dgs stitch`` makes;
            by default that of a prepared set, else the shorter side of the first image.
        factor: The side of a crop is that of an image divided by this number, rounded down.
        mipc: Images that are drawn from each class; null for all.
        crops: Crops of each drawn image.
        scale: Smallest and largest share of an image's area that a crop has.
        view: How the teacher sees a crop: ``padded`` with the mean colour to the size of an image, as published, or
            ``enlarged`` to it. With ``enlarged``, ``metadata.jsonl`` has the difficulty of the whole image, too.
        seed: Seed of the draws. An image's crops depend on it and on the name of the image alone.

    Raises:
        InputError: If a class has fewer images than are drawn, an image is smaller than a crop, or the teacher does not
            know a class or takes images of another size.
    """
    folder, by_label = Path(images), defaultdict[str, list[ImageRecord]](list)
    for record in read_set(folder):
        by_label[record.label].append(record)
    if short := [f"{label}: {len(own)}" for label, own in sorted(by_label.items()) if len(own) < (mipc or 1)]:
        expected, remedy = f"at least mipc: {mipc} images of each class", "Lower mipc, or add images"
        raise InputError(images, f"{len(short)} classes with fewer images ({listed(short, 20)})", expected, remedy)
    prepared, labels = read_card(folder).get("settings", {}), sorted(by_label)
    first = load_image(folder / by_label[labels[0]][0].file_name)
    size = image_size or prepared.get("image_size") or min(first.size)
    channels = prepared.get("channels") or channels_of(
        load_image(folder / r.file_name) for own in by_label.values() for r in own
    )
    scorer = Scorer((teacher, teacher_weights), labels, size, channels, view)
    drawn = {label: _drawn(by_label[label], mipc, seed) for label in labels}
    cutting = {"side": size // factor, "count": crops, "scale": scale, "seed": seed}
    best = {b.record.file_name: b for label in labels for b in _best(folder, drawn[label], scorer, cutting)}
    card = {
        "name": Path(output).name,
        "kind": "pool",
        "labels": {label: readable_name(label) for label in labels},
        "settings": {"image_size": size, "channels": channels, "factor": factor, "mipc": mipc, "crops": crops}
        | {"scale": list(scale), "view": view, "seed": seed, "teacher": scorer.teacher.network.identity},
        "versions": versions(),
        "hashes": {"sources": hash_files(folder, [record for own in drawn.values() for record in own])},
        "provenance": [{"role": "original", "folder": folder.name, "card": read_card(folder)}],
        "licences": licences_of(folder, labels),
    }
    records, pixels = [b.record for b in best.values()], {name: b.pixels for name, b in best.items()}
    write_set(folder, records, Path(output), card, encode=lambda record: encoded(picture(pixels[record.file_name])))
    return Path(output)


def _drawn(records: Sequence[ImageRecord], count: int | None, seed: int) -> list[ImageRecord]:
    """So many images of a class, drawn without replacement, in the order of their names."""
    order = torch.randperm(len(records), generator=generator("crops", seed, records[0].label))
    return [records[k] for k in sorted(order[:count].tolist())]


def _best(folder: Path, records: Sequence[ImageRecord], scorer: Scorer, cutting: Mapping[str, Any]) -> Iterator[Best]:
    """The easiest crop of each image of a class."""
    side, count = cutting["side"], cutting["count"]
    for start in range(0, len(records), AT_ONCE):
        group = records[start : start + AT_ONCE]
        pictures = [load_image(folder / record.file_name, scorer.config.channels) for record in group]
        boxes = [_boxes(folder, record, image, cutting) for record, image in zip(group, pictures, strict=True)]
        patches = torch.cat([cut(to_unit(image), own, side) for image, own in zip(pictures, boxes, strict=True)])
        difficulty, predicted = scorer(patches, group[0].label)
        chosen = difficulty.reshape(-1, count).numpy().argmin(axis=1)  # the first of equals
        whole: list[float | None] = [None] * len(group)
        if scorer.view == "enlarged":
            size = scorer.config.image_size
            full = torch.stack([to_unit(resize_and_crop(image, size)) for image in pictures])
            whole = list(scorer(full, group[0].label)[0].tolist())
        for number, (record, own) in enumerate(zip(group, chosen.tolist(), strict=True)):
            place = number * count + own
            extra: dict[str, Any] = {"source": record.file_name, "box": boxes[number][own].tolist()}
            extra |= {} if whole[number] is None else {"whole": whole[number]}
            scores = {"difficulty": difficulty[place].item(), "predicted": predicted[place]}
            name = PurePosixPath(record.file_name).with_suffix(".png").as_posix()
            identity = scorer.teacher.network.identity
            kept = ImageRecord(
                name, record.label, readable_name(record.label), estimator=identity, **scores, extra=extra
            )
            yield Best(kept, to_pixels(patches[place]))


def _boxes(folder: Path, record: ImageRecord, image: Image.Image, cutting: Mapping[str, Any]) -> Tensor:
    """The boxes of an image's crops, which its name decides. An image that is smaller than a crop is refused."""
    side = cutting["side"]
    if side < 1 or min(image.size) < side:
        found, expected = f"{image.width} x {image.height} pixels", f"at least the {side} pixels of a crop's side"
        remedy = "Use larger images, a smaller image_size or a larger factor"
        raise InputError(folder / record.file_name, found, expected, remedy)
    random = generator("crop", cutting["seed"], record.file_name)
    return draw_squares(cutting["count"], image.height, image.width, cutting["scale"], random)


def to_pixels(image: Tensor) -> Tensor:
    """8-bit pixels of an image in [0, 1], rounded down as in the code of RDED."""
    return (image.clamp(0, 1) * 255).to(torch.uint8)


def check_combination(settings: Mapping[str, Any]) -> None:
    """Check that the smaller share of a crop comes first."""
    smallest, largest = settings["scale"]
    if smallest > largest:
        raise InputError.setting("scale", f"{smallest}, {largest}", "the smaller share first, such as 0.08, 1")
