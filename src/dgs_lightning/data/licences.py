"""Under which terms the images of a set may be used."""

from collections.abc import Iterable
from pathlib import Path

from dgs_lightning.data.classes import imagenet_index
from dgs_lightning.data.manifest import read_card

IMAGENET = "ImageNet terms of access: non-commercial research and education"
UNKNOWN = "as the source's"


def licences_of(folder: Path, labels: Iterable[str]) -> list[str]:
    """Licences on a set's card; without a card ImageNet's terms where all its labels are WordNet ids of ImageNet.

    Args:
        folder: The image set.
        labels: Labels of its images.
    """
    of_imagenet = all(imagenet_index(label) is not None for label in labels)
    found: list[str] = read_card(folder).get("licences", [IMAGENET if of_imagenet else UNKNOWN])
    return found
