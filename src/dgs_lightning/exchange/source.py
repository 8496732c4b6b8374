"""What every reader of other people's sets gives, and what its files do not say themselves."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from PIL import Image

from dgs_lightning.bounds import FINITE, Above, Group
from dgs_lightning.data.cards import Card
from dgs_lightning.documents.files import parse_line
from dgs_lightning.errors import InputError, listed
from dgs_lightning.files import reading

Label = int | str
KIND = "imported"  # on the card of a set of other people
IMAGES = ("images", "image", "img", "image_syn", "pixel_values", "data", "x")  # usual names of images
LABELS = ("labels", "label", "label_syn", "targets", "target", "class", "y")  # and of their labels


@dataclass(frozen=True)
class Source:
    """The images of a set in another format, one after another.

    Args:
        path: File or folder of the set.
        labels: Label of each image: the number of its class, or its name.
        picture: Reads an image by its position: 8 bits, grey or RGB.
        classes: Names of the classes in the order of their numbers, if the set has them.
        names: Name of each image without its ending, if it has one.
        card: The card of a set that this package made; empty for others.
    """

    path: Path
    labels: Sequence[Label]
    picture: Callable[[int], Image.Image]
    classes: Sequence[str] | None = None
    names: Sequence[str] | None = None
    card: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Reading(Group):
    """What the files of a set do not say themselves.

    Args:
        images: Name of the images in the file (key, column or ending); by default a usual name, such as ``images``.
        labels: Name of the labels in the file, likewise. For tensors it may be a file of labels alone.
        split: The split to read of a data set with several, such as ``train``.
        mean: What was subtracted from tensors, for each channel or all; pixels are ``std`` x value + ``mean``, which
            must lie in [0, 1]. Without ``mean`` and ``std`` the values themselves must.
        std: What they were divided by afterwards.
        clip: Cut off values outside of [0, 1], which learned images often have, instead of stopping.
    """

    images: str | None = None
    labels: str | None = None
    split: str | None = None
    mean: Annotated[list[float] | None, FINITE] = None
    std: Annotated[list[float] | None, Above(0)] = None
    clip: bool = False

    @classmethod
    def check_combination(cls, settings: Mapping[str, Any]) -> None:
        """Refuse one of ``mean`` and ``std`` without the other, and channels that no image has."""
        mean, std = settings["mean"], settings["std"]
        if (mean is None) != (std is None):
            raise InputError.unset("std" if std is None else "mean", "both mean and std, or none", "[0.5]")
        for name in ("mean", "std"):
            if settings[name] is not None and len(settings[name]) not in (1, 3):
                raise InputError.setting(name, settings[name], "one number, or one for each of 3 channels")


def chosen_name(known: Iterable[str], usual: Sequence[str], given: str | None, what: str, path: Path) -> str:
    """Name of the images or labels in a file: the given one, or the only one that is usual.

    Args:
        known: All names in the file.
        usual: Usual ones. Where a file has several, the user must choose.
        given: The user's setting.
        what: Name of that setting, ``images`` or ``labels``.
        path: The file.

    Raises:
        InputError: If there is no such name, or no usual one, or several.
    """
    names = [*known]
    if given is not None:
        if given not in names:
            raise InputError(what, repr(given), f"one of the names in {path}: {listed(names, 20)}", "Name one of them")
        return given
    found = [name for name in names if name.lower() in usual]
    if len(found) == 1:
        return found[0]
    problem = f"several that may be {what} ({listed(found)})" if found else f"no {what}"
    in_file = f"{problem}; the file has {listed(names, 20) or 'nothing'}"
    raise InputError(path, in_file, f"one of a usual name ({listed(usual, 20)})", f"Set {what}=NAME to the right one")


def no_labels(path: Path, remedy: str) -> InputError:
    """The error of a set without labels."""
    return InputError(path, "images without labels", "a label for each image", remedy)


def card_in(text: object, path: Path) -> Mapping[str, Any]:
    """The card that a file carries as JSON text; empty for a file without one.

    Raises:
        InputError: If it is no card.
    """
    if not isinstance(text, str) or not text:
        return {}
    with reading(path, "the card of an image set in it"):
        return {**parse_line(text, Card)}
