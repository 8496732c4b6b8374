"""What the tests of the data layer share: small image sets."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

MakeSet = Callable[..., Path]


@pytest.fixture
def make_set(tmp_path: Path) -> MakeSet:
    """Writes a set of random images: ``make_set("name", {"cat": ["a.png", ...]}, size=8, mode="RGB")``."""

    def make(name: str, files: dict[str, Sequence[str]], size: int = 8, mode: str = "RGB") -> Path:
        rng = np.random.default_rng(0)
        shape = (size, size) if mode == "L" else (size, size, 3)
        for label, names in files.items():
            (tmp_path / name / label).mkdir(parents=True, exist_ok=True)
            for file in names:
                pixels = rng.integers(0, 256, shape, dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / name / label / file)
        return tmp_path / name

    return make
