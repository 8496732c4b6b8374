"""Data sets by name: their files, by the classes of ``torchvision.datasets``, and their images in class folders."""

import gzip
import inspect
import io
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import torch
from PIL import Image
from torchvision import datasets

from dgs_lightning.data.cards import write_card
from dgs_lightning.data.named import DIGITS, KNOWN, bare_name, check_name, known_set, letters
from dgs_lightning.data.transforms import adm_center_crop
from dgs_lightning.errors import InputError, is_out_of_memory, listed, short
from dgs_lightning.files import reading

PATIENCE = 60  # seconds that a server may be silent
Arguments = Mapping[str, object]  # of a class of torchvision

# Parts for training and validation, where they are not train=True and train=False, or split="train" and split="test".
_PARTS: Mapping[str, tuple[Arguments, Arguments | None]] = {
    "EMNIST": ({"split": "balanced", "train": True}, {"split": "balanced", "train": False}),
    **dict.fromkeys(("CLEVRClassification", "Imagenette", "ImageNet"), ({"split": "train"}, {"split": "val"})),
    **dict.fromkeys(("FGVCAircraft", "OxfordIIITPet"), ({"split": "trainval"}, {"split": "test"})),
    "LFWPeople": ({"split": "10fold"}, None),  # train and test have other people
    "Places365": ({"split": "train-standard"}, {"split": "val"}),
}
# Sets and modules of sets whose images have no single class.
_OTHERS = ("CelebA", "Cityscapes", "Kitti", "LFWPairs", "MovingMNIST", "SBDataset", "SBU", "VisionDataset", "WIDERFace")
_OTHER_MODULES = ("voc", "_optical_flow", "_stereo_matching")
_PACKED = (datasets.MNIST, datasets.FashionMNIST, datasets.KMNIST)  # four .gz files each
_FILES = ".files"  # folder for unpacked files; hidden, so that no image is looked for there
DEBIAN = {"FashionMNIST": Path("/usr/share/datasets/fashion-mnist")}  # folders of packages of Debian with these files


def write_named(data: str, root: str | None, folder: Path, size: int | None = None) -> None:
    """Write the images of a set as PNG, with a card: ``SPLIT/LABEL/NUMBER.png``, or ``LABEL/NUMBER.png`` without split.

    A label is the name of the class in torchvision, with ``-`` for ``/``, or the number of a class without a name.

    Args:
        data: Name of the set.
        root: Folder of its files, which are downloaded where they are not there; by default see :func:`files_of`.
        folder: An empty folder to write into.
        size: Side in pixels that images are cropped to; by default, they must be squares of one size.

    Raises:
        InputError: If there is no such set, its files are not there and cannot be downloaded, are broken, or are no
            images with whole numbers as labels.
    """
    check_name(data)
    if bare_name(data) == DIGITS:
        _write_digits(folder)
    else:
        kind = kind_of(data)
        place = _unpacked(kind, files_of(data, root), folder / _FILES)
        training, validation = _parts(kind)
        if validation is None:
            _write_part(data, _opened(data, kind, place, training), folder, size)
        else:
            _write_part(data, _opened(data, kind, place, training), folder / "train", size)
            _write_part(data, _opened(data, kind, place, validation), folder / "val", size)
    if known := known_set(data):
        write_card(folder, {"provenance": [known.origin], "licences": [known.licence]})
    else:
        write_card(folder, {"provenance": [f"torchvision.datasets.{kind_of(data).__name__}"]})


def files_of(data: str, root: str | None) -> Path:
    """Folder of a set's files: ``root``; or that of a package of Debian, if it is there; or one in torch's cache."""
    kind = kind_of(data)
    debian = DEBIAN.get(kind.__name__)
    if root is None and debian is not None and _packed(kind, debian):
        return debian
    return Path(torch.hub.get_dir()).parent / "datasets" if root is None else Path(root)


def missing_files(data: str, root: str | None) -> str:
    """The files of a set that are not in its folder, in words; empty if they are there, or their names not known."""
    place, kind = files_of(data, root), kind_of(data)
    names = _layout(kind)
    return "" if _packed(kind, place) or all((place / name).exists() for name in names) else listed(names)


def kind_of(data: str) -> Any:  # noqa: ANN401  (any class of torchvision)
    """The class of torchvision that a name means.

    Raises:
        InputError: If there is none, or it needs other settings than the folder of its files.
    """
    name = letters(data.rpartition(":")[2])
    kind = next((getattr(datasets, other) for other in datasets.__all__ if letters(other) == name), None)
    if kind is None or not inspect.isclass(kind):
        raise _refused(data, "no data set of torchvision")
    if kind.__name__ in _OTHERS or kind.__module__.rpartition(".")[2] in _OTHER_MODULES:
        raise _refused(data, "a data set without images that have one class each")
    needed = [p for p in _parameters(kind).values() if p.default is p.empty and p.name not in ("self", "split")]
    if [p.name for p in needed if p.kind is not p.VAR_KEYWORD] != ["root"]:
        raise _refused(data, "a data set of torchvision that needs other settings than its folder, or none")
    return kind


def _parameters(kind: Any) -> Mapping[str, inspect.Parameter]:  # noqa: ANN401
    return inspect.signature(kind.__init__).parameters


def _refused(data: str, found: str) -> InputError:
    expected = f"one of {', '.join(KNOWN)}, or torchvision:NAME with images and whole numbers as labels"
    return InputError("data", f"{data!r}, {found}", expected, "Name one of them, or give a folder with class folders")


def _parts(kind: Any) -> tuple[Arguments, Arguments | None]:  # noqa: ANN401
    """Arguments for the images for training and for validation; none for the second if there is no split."""
    if kind.__name__ in _PARTS:
        return _PARTS[kind.__name__]
    parameters = _parameters(kind)
    if "train" in parameters:
        return {"train": True}, {"train": False}
    return ({"split": "train"}, {"split": "test"}) if "split" in parameters else ({}, None)


def _layout(kind: Any) -> list[str]:  # noqa: ANN401
    """Files or folders below ``root`` that a class reads, where it names them."""
    if kind in _PACKED:
        return [f"{kind.__name__}/raw/{name.removesuffix('.gz')}" for name, _ in kind.resources]
    if issubclass(kind, datasets.MNIST):
        return [f"{kind.__name__}/raw"]
    if kind in (datasets.SVHN, datasets.USPS):
        return [kind.split_list[name][1] for name in ("train", "test")]
    return [kind.base_folder] if isinstance(getattr(kind, "base_folder", None), str) else []


def _packed(kind: Any, folder: Path) -> bool:  # noqa: ANN401
    """Whether a folder has the ``.gz`` files of a set themselves."""
    return kind in _PACKED and all((folder / name).is_file() for name, _ in kind.resources)


def _unpacked(kind: Any, folder: Path, output: Path) -> Path:  # noqa: ANN401
    """Folder with the files as torchvision wants them: ``output``, if they had to be unpacked, or the folder itself."""
    if not _packed(kind, folder):
        return folder
    for name, _ in kind.resources:
        file = output / kind.__name__ / "raw" / name.removesuffix(".gz")
        file.parent.mkdir(parents=True, exist_ok=True)
        with (
            reading(folder / name, "a whole .gz file", "Copy it there again"),
            gzip.open(folder / name) as packed,
            file.open("wb") as unpacked,
        ):
            shutil.copyfileobj(packed, unpacked)
    return output


def _opened(data: str, kind: Any, root: Path, arguments: Arguments) -> Any:  # noqa: ANN401
    """A part of a set, whose files are downloaded where they are not there."""
    downloads = {"download": True} if "download" in _parameters(kind) or issubclass(kind, datasets.MNIST) else {}
    wanted = listed(_layout(kind)) or f"the files that torchvision.datasets.{kind.__name__} describes"
    with redirect_stdout(io.StringIO()), reading(root, wanted, "Delete them, or copy them there again"):
        try:
            return kind(root, **arguments, **dict.fromkeys(downloads, False))
        except (RuntimeError, FileNotFoundError) as error:
            missing = _unless_memory(error)
        try:
            if downloads:
                with _patience():
                    return kind(root, **arguments, **downloads)
        except (RuntimeError, URLError, HTTPException, TimeoutError, ConnectionError, ImportError) as error:
            missing = _unless_memory(error)
    found = f"no files of {data}, and no way to download them ({short(missing)})"
    remedy = "Copy them there from a machine with a network, or set root to the folder that has them"
    raise InputError(root, found, wanted, remedy)


def _unless_memory(error: Exception) -> Exception:
    if is_out_of_memory(error):
        raise error
    return error


@contextmanager
def _patience() -> Iterator[None]:
    """Let no server be silent for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _write_part(data: str, images: Any, folder: Path, size: int | None) -> None:  # noqa: ANN401
    """Write the images of one part into class folders."""
    names = [str(name).replace("/", "-") for name in getattr(images, "classes", None) or []]
    side = size
    for index in range(len(images)):
        with reading(f"{data}, image {index}", "an image with its label", "Delete the files, and fetch them again"):
            image, label = images[index]
        if not isinstance(image, Image.Image) or not isinstance(label, int | np.integer):
            what = f"a data set of {type(image).__name__} and {type(label).__name__}"
            raise _refused(data, what)
        if size is not None:
            image = adm_center_crop(image if image.mode in ("L", "RGB") else image.convert("RGB"), size)
        side = side or image.width
        if image.size != (side, side):
            found = f"an image of {image.width} x {image.height} pixels (number {index})"
            expected = "squares of one size where image_size is not set"
            raise InputError(data, found, expected, "Set image_size, for example 32 or 128")
        path = folder / (names[label] if 0 <= label < len(names) else str(label)) / f"{index:06d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path, compress_level=1)


def _write_digits(folder: Path) -> None:
    from sklearn.datasets import load_digits  # slow to import, and needed only here

    digits = load_digits()
    for index, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        path = folder / str(label) / f"{index:05d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.round(pixels * (255 / 16)).astype(np.uint8)).save(path)
