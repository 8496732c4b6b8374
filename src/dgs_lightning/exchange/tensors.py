"""Sets as tensors: ``.pt`` files without code, ``.npz`` and ``.safetensors``."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dgs_lightning.data.images import picture
from dgs_lightning.documents.files import parse_line
from dgs_lightning.errors import InputError, listed
from dgs_lightning.exchange.source import IMAGES, LABELS, Label, Reading, Source, card_in, chosen_name, no_labels
from dgs_lightning.files import reading
from dgs_lightning.models.weights import read_file

EXPECTED = "images and their labels as tensors"
REMEDY = "Copy or download it again"
ROUNDED = 0.5 / 255  # so far outside of [0, 1] a value is still rounded to 0 or 255
Parts = Mapping[str, Any]  # tensors by name, and perhaps ``classes`` (names) and ``card`` (text)


def read_tensors(path: Path, settings: Reading) -> Source:
    """A set in a file of tensors: images ``(N, C, H, W)`` or ``(N, H, W, C)`` of 8 bits or floats, and labels ``(N,)``.

    A ``.pt`` file holds a dictionary, or images and labels one after the other, alone or in the list ``data`` as in the
    files of Dataset Condensation. A dictionary may have the names ``classes`` of the classes in their order.

    Raises:
        InputError: If the file is broken or holds code, or its images or labels are not such.
    """
    parts = _parts(path)
    names = [name for name, value in parts.items() if isinstance(value, Tensor) and value.ndim == 4]
    usual = names if len(names) == 1 else IMAGES
    images = _checked(parts[chosen_name(names, usual, settings.images, "images", path)], settings, path)
    labels = _labels(parts, settings, path)
    if len(labels) != len(images):
        found = f"{len(images)} images and {len(labels)} labels"
        raise InputError(path, found, "a label for each image", "Name the labels of these images (labels=NAME)")

    def read(position: int) -> Image.Image:
        return picture(_pixels(images[position], settings))

    return Source(path, labels, read, _classes(parts.get("classes"), path), card=card_in(parts.get("card"), path))


# ---- files -------------------------------------------------------------------------------------------------------


def _parts(path: Path) -> Parts:
    """What a file holds, by name."""
    if path.suffix == ".npz":
        with reading(path, EXPECTED, REMEDY), np.load(path, allow_pickle=False) as file:
            return {name: _array(file[name]) for name in file.files}
    content = read_file(path, expected=EXPECTED, remedy=REMEDY)
    if path.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(path, "pt") as file:
            notes = file.metadata() or {}
        with reading(path, EXPECTED, REMEDY):
            names = {"classes": parse_line(notes["classes"], list[str])} if "classes" in notes else {}
            return {**notes, **content, **names}
    return _named(content, path)


def _array(array: Any) -> Any:  # noqa: ANN401
    """An array of numbers as tensor, texts as list, one text as it is."""
    return torch.from_numpy(array) if array.dtype.kind in "bifu" else array.tolist()


def _named(content: object, path: Path) -> Parts:
    """The parts of the usual forms of ``.pt`` files by name."""
    if isinstance(content, Tensor):
        return {"images" if content.ndim == 4 else "labels": content}
    if isinstance(content, dict) and isinstance(sets := content.get("data"), list):  # Dataset Condensation
        if len(sets) != 1:
            remedy = "Save the one to use in a file of its own"
            raise InputError(path, f"{len(sets)} sets in the list 'data'", "one set", remedy)
        content = sets[0]
    if isinstance(content, list | tuple) and len(content) == 2:
        return dict(zip(("images", "labels"), content, strict=True))
    if not isinstance(content, dict):
        remedy = 'Save it as torch.save({"images": images, "labels": labels}, FILE)'
        raise InputError(path, f"a {type(content).__name__}", EXPECTED, remedy)
    return {str(name): value for name, value in content.items()}


def _classes(found: object, path: Path) -> Sequence[str] | None:
    """Names of the classes in a file."""
    if found is None:
        return None
    if not isinstance(found, list | tuple) or not all(isinstance(name, str) for name in found):
        raise InputError(path, f"classes of type {type(found).__name__}", "a list of texts", "Save them as names")
    return [*found]


# ---- labels ------------------------------------------------------------------------------------------------------


def _labels(parts: Parts, settings: Reading, path: Path) -> list[Label]:
    """The label of each image."""
    if settings.labels is not None and Path(settings.labels).is_file():
        file = Path(settings.labels)
        return _labels(_parts(file), replace(settings, labels=None), file)
    known = [name for name, value in parts.items() if name != "classes" and not _is_text_or_images(value)]
    if not known:
        raise no_labels(path, "Set labels=FILE to a file of labels, or save the labels with the images")
    found = parts[chosen_name(known, LABELS, settings.labels, "labels", path)]
    if isinstance(found, list) and all(isinstance(label, str) for label in found):
        return [*found]
    numbers = found if isinstance(found, Tensor) else _as_tensor(found, path)
    if numbers.ndim == 2 and numbers.shape[1] > 1:
        return _of_one_hot(numbers, path)
    numbers = numbers.flatten()
    if not len(numbers) or not torch.equal(numbers.double(), numbers.double().round()) or numbers.min() < 0:
        found = f"labels such as {listed(numbers.tolist(), 3) or 'nothing'}"
        raise InputError(path, found, "the number of a class, from 0, for each image", "Save hard labels")
    return [int(number) for number in numbers.tolist()]


def _is_text_or_images(value: object) -> bool:
    return isinstance(value, str) or (isinstance(value, Tensor) and value.ndim == 4)


def _as_tensor(found: object, path: Path) -> Tensor:
    with reading(path, "labels as numbers", REMEDY, "other labels"):
        return torch.as_tensor(found)


def _of_one_hot(labels: Tensor, path: Path) -> list[Label]:
    """Classes of labels ``(N, K)`` that have a one for the class and else zeros."""
    if not torch.equal(labels.sum(dim=1), torch.ones_like(labels[:, 0])) or not ((labels == 0) | (labels == 1)).all():
        found = f"soft labels of shape {tuple(labels.shape)}"
        remedy = "Save their argmax as hard labels. The protocol 'soft' makes soft labels with a teacher of its own"
        raise InputError(path, found, "the number of a class for each image", remedy)
    return [int(number) for number in labels.argmax(dim=1).tolist()]


# ---- pixels ------------------------------------------------------------------------------------------------------


def _checked(images: Tensor, settings: Reading, path: Path) -> Tensor:
    """Images ``(N, C, H, W)``, whose values are in range, or will be cut off."""
    first, last = images.shape[1] in (1, 3), images.shape[3] in (1, 3)
    if first == last or not images.numel():
        found = f"images of shape {tuple(images.shape)}"
        raise InputError(path, found, "(N, C, H, W) or (N, H, W, C) with 1 or 3 channels", "Save them in one of these")
    images = images if first else images.permute(0, 3, 1, 2)
    if not images.is_floating_point():
        if settings.mean is not None:
            raise InputError.setting(
                "mean", settings.mean, f"none, since {path} has whole numbers", "Remove mean and std"
            )
        _check_range(images.min().item(), images.max().item(), 255, settings, path)
        return images
    ends = torch.stack([images.amin((0, 2, 3)), images.amax((0, 2, 3))])  # (2, C); not a number where a pixel is not
    for name, numbers in (("mean", settings.mean), ("std", settings.std)):
        if numbers is not None and len(numbers) not in (1, images.shape[1]):
            expected = f"one number, or one for each of {images.shape[1]} channels"
            raise InputError.setting(name, numbers, expected)
    ends = _unnormalised(ends[:, :, None, None], settings)
    _check_range(ends.min().item(), ends.max().item(), 1, settings, path)
    return images


def _check_range(low: float, high: float, white: int, settings: Reading, path: Path) -> None:
    """Check the lowest and the highest value, where ``white`` is that of white."""
    if not (np.isfinite(low) and np.isfinite(high)):
        raise InputError.not_finite(str(path), "values that are no numbers", "Repair the images")
    room = ROUNDED if white == 1 else 0
    if (low < -room or high > white + room) and not (settings.clip and white == 1):
        found = f"values from {low:.4g} to {high:.4g}{' after mean and std' * (settings.mean is not None)}"
        remedy = "Say how they were normalised (mean, std), or set clip=true, which cuts off what is outside"
        if white == 255:
            remedy = "Save the images with 8 bits, from 0 to 255"
        elif settings.mean is None and -1 - room <= low < 0 and high <= 1 + room:
            remedy = f"If -1 is black, set mean=[0.5] and std=[0.5]. Otherwise: {remedy}"
        raise InputError(path, found, f"values from 0 to {white}", remedy)


def _unnormalised(values: Tensor, settings: Reading) -> Tensor:
    """Values ``(N, C, H, W)`` before mean and std of the channels, as float64."""
    if settings.mean is None or settings.std is None:
        return values.double()
    mean, std = (
        torch.tensor(numbers, dtype=torch.float64).view(1, -1, 1, 1) for numbers in (settings.mean, settings.std)
    )
    return values.double() * std + mean


def _pixels(image: Tensor, settings: Reading) -> Tensor:
    """An image ``(C, H, W)`` with 8 bits."""
    if image.is_floating_point():
        image = (_unnormalised(image[None], settings)[0] * 255).round()
    return image.clamp(0, 255).to(torch.uint8)
