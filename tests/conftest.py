"""What all tests share: golden values, small image sets, and which tests are run on request alone."""

import os

# One thread for each test process, before torch is imported: forked processes would miss the other threads and hang.
os.environ["OMP_NUM_THREADS"] = "1"

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

MakeSet = Callable[..., Path]

if TYPE_CHECKING:
    from torch import Tensor

    from dgs_lightning.models.dit.network import DiT


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what takes long and finds little, unless it was asked for."""
    for mark, asked_by in (("matrix", "fault"), ("sweep", "sweep")):
        if config.getoption("-m") != asked_by:
            left_out = [item for item in items if item.get_closest_marker(mark)]
            items[:] = [item for item in items if not item.get_closest_marker(mark)]
            config.hook.pytest_deselected(items=left_out)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Count in the last line the faults that were injected and overcome, by stage."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None:
        return
    faults: Counter[str] = Counter()
    for report in reporter.getreports("passed"):
        for name, value in report.user_properties:
            if name == "fault":
                stage, number = (value, 1) if isinstance(value, str) else value
                faults[stage] += number
    if faults:
        counts = ", ".join(f"{stage} {count}" for stage, count in sorted(faults.items()))
        reporter.write_line(f"faults injected: {counts}; {faults.total()} in all")


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder of the golden values: the environment variable ``DGS_GOLDEN``, or ``tests/golden``."""
    return Path(os.environ.get("DGS_GOLDEN", Path(__file__).parent / "golden"))


@pytest.fixture
def golden_diffusion(golden: Path) -> "dict[str, Tensor]":
    """Published values of the diffusion, by name."""
    import torch

    return {name: torch.from_numpy(array) for name, array in np.load(golden / "diffusion.npz").items()}


@pytest.fixture
def golden_dit(golden: Path) -> "DiT":
    """The model that gave them."""
    from dgs_lightning.models.dit.formats import load_dit

    return load_dit(str(golden / "dit_minimax_state.safetensors"), num_heads=2)


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
