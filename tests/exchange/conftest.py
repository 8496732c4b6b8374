"""A tiny set of our own, and the same images in the forms in which others publish sets."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from dgs_lightning.data.cards import write_card

CLASSES = ("ant", "bee", "cow")


class Pictures(NamedTuple):
    """Images ``(N, H, W, 3)`` with 8 bits and their labels ``(N,)``, two of each of three classes, mixed."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]


@pytest.fixture(scope="session")
def pictures() -> Pictures:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 5, 5, 3), dtype=np.uint8)
    return Pictures(pixels, np.array([2, 0, 1, 1, 0, 2]))


@pytest.fixture
def original(tmp_path: Path) -> Path:
    """Original images of these classes, with their size on a card."""
    folder = tmp_path / "original"
    for label in CLASSES:
        (folder / label).mkdir(parents=True)
        Image.new("RGB", (5, 5), "red").save(folder / label / "0.png")
    write_card(folder, {"name": "animals/train", "settings": {"image_size": 5, "channels": 3}})
    return folder


@pytest.fixture
def same(pictures: Pictures) -> Callable[[Path], None]:
    """Checks that a folder has the pictures, in the order of the set, in the folders of their classes."""

    def check(folder: Path) -> None:
        for number, label in enumerate(CLASSES):
            files = sorted((folder / label).iterdir())
            expected = pictures.pixels[pictures.labels == number]
            assert len(files) == len(expected)
            for file, pixels in zip(files, expected, strict=True):
                with Image.open(file) as image:
                    assert file.suffix == ".png"
                    assert np.array_equal(np.asarray(image), pixels)

    return check
