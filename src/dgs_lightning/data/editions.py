"""ImageNet and its subsets: their terms of access, and their editions, ImageNet's own images or another split."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from dgs_lightning.data.cards import read_card
from dgs_lightning.data.classes import imagenet_index, list_with

FASTAI = {"imagewoof": (9_025, 3_929), "imagenette": (9_469, 3_925)}  # images for training and validation
TERMS = "ImageNet terms of access: non-commercial research and education"
UNKNOWN = "as the source's"
IMAGENET_TRAIN, IMAGENET_VAL = range(732, 1_301), 50  # images of one class


def is_imagenet(labels: Iterable[str]) -> bool:
    """Whether all labels are WordNet ids of ImageNet's 1,000 classes."""
    return all(imagenet_index(label) is not None for label in labels)


def licences_of(folder: Path, labels: Iterable[str]) -> list[str]:
    """Licences on the card of an image set with these labels.

    A set without licences on a card has ImageNet's terms if all its labels are WordNet ids of ImageNet.
    """
    found: list[str] = read_card(folder).get("licences", [TERMS if is_imagenet(labels) else UNKNOWN])
    return found


def edition_of(train: Mapping[str, int], val: Mapping[str, int]) -> tuple[str, str] | None:
    """Edition of an image set in words, from the number of images of each class, and advice on the accuracies.

    The advice is empty if they can be compared with published ones. If a class is not ImageNet's, the result is None.
    """
    if train.keys() != val.keys() or not is_imagenet(train):
        return None
    known, sizes = list_with(set(train)), (sum(train.values()), sum(val.values()))
    name, fastai = known or "this part of ImageNet", FASTAI.get(known or "")
    numbers = f"{sizes[0]:,} training and {sizes[1]:,} validation images"
    if all(count in IMAGENET_TRAIN for count in train.values()) and set(val.values()) == {IMAGENET_VAL}:
        return f"{name} with ImageNet's own images, as the published numbers: {numbers}", ""
    if sizes == fastai:
        return (
            f"{name} as fastai split it ({numbers}); published numbers are on ImageNet's own, with {IMAGENET_VAL} "
            "validation images a class",
            "Do not compare accuracies with published ones; for that, take the class folders from ILSVRC 2012",
        )
    other = f" nor fastai's {fastai[0]:,} and {fastai[1]:,}" if fastai else ""
    return (
        f"{name}: {numbers}, neither ImageNet's about 1,300 and {IMAGENET_VAL} a class{other}",
        "Check that all images were copied or unpacked; do not compare accuracies with published ones",
    )
