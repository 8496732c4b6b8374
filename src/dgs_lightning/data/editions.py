"""ImageNet and its subsets: their terms of access, and their editions, ImageNet's own images or another split."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from dgs_lightning.data.cards import read_card
from dgs_lightning.data.classes import imagenet_index, list_with

FASTAI = {"imagewoof": (9_025, 3_929), "imagenette": (9_469, 3_925)}  # images for training and validation
TERMS = "ImageNet terms of access: non-commercial research and education"
UNKNOWN = "as the source's"
IMAGENET_TRAIN, IMAGENET_VAL = range(732, 1_301), 50  # images of one class
PUBLISHED = f"ImageNet's own images, with {IMAGENET_VAL} for validation of each class"


def is_imagenet(labels: Iterable[str]) -> bool:
    """Whether all labels are WordNet ids of ImageNet's 1,000 classes."""
    return all(imagenet_index(label) is not None for label in labels)


def licences_of(folder: Path, labels: Iterable[str]) -> list[str]:
    """Licences on the card of an image set with these labels.

    A set without licences on a card has ImageNet's terms if all its labels are WordNet ids of ImageNet.
    """
    found: list[str] = read_card(folder).get("licences", [TERMS if is_imagenet(labels) else UNKNOWN])
    return found


class Edition(NamedTuple):
    """Edition of an image set that has ImageNet's classes.

    Attributes:
        name: The edition in words, with its numbers of images.
        advice: What to do; empty if accuracies can be compared with published ones.
    """

    name: str
    advice: str = ""

    def __str__(self) -> str:
        """The edition, beside that of published accuracies if it is another one."""
        return f"{self.name}; published numbers are on {PUBLISHED}" if self.advice else self.name


def edition_of(train: Mapping[str, int], val: Mapping[str, int]) -> Edition | None:
    """Edition of an image set, from the number of images of each class; ``None`` if a class is not ImageNet's."""
    if train.keys() != val.keys() or not is_imagenet(train):
        return None
    known, sizes = list_with(set(train)), (sum(train.values()), sum(val.values()))
    name, fastai = known or "this part of ImageNet", FASTAI.get(known or "")
    numbers = f"{sizes[0]:,} training and {sizes[1]:,} validation images"
    if all(count in IMAGENET_TRAIN for count in train.values()) and set(val.values()) == {IMAGENET_VAL}:
        return Edition(f"{name} with ImageNet's own images: {numbers}")
    if sizes == fastai:
        advice = "Do not compare accuracies with published ones; for that, take the class folders from ILSVRC 2012"
        return Edition(f"{name} as fastai split it ({numbers})", advice)
    other = f", nor fastai's {fastai[0]:,} and {fastai[1]:,}" if fastai else ""
    return Edition(
        f"{name} with {numbers}, not ImageNet's about 1,300 and {IMAGENET_VAL} of each class{other}",
        "Check that all images were copied or unpacked; do not compare accuracies with published ones",
    )
