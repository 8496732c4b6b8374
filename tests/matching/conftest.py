from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from dgs_lightning.models.convnet import ConvNet

Values = dict[str, Tensor]
Load = Callable[[str], Values]


@pytest.fixture
def values(golden: Path) -> Load:
    """Reads the arrays of a file of golden values of matching methods."""

    def load(name: str) -> Values:
        path = golden / "matching" / f"{name}.npz"
        if not path.is_file():
            pytest.skip(f"{path} is not there")
        return {key: torch.from_numpy(array) for key, array in np.load(path).items()}

    return load


def part(values: Values, prefix: str) -> Values:
    """The values below a prefix, by the rest of their names."""
    return {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}


def project_name(neutral: str) -> str:
    """Name of a parameter of a ConvNet in this project, from its name in the golden values."""
    layer, kind = neutral.split(".")
    return f"classifier.{kind}" if layer == "linear" else f"layers.{layer[:4]}.{layer[4:]}.{kind}"


def network_of(values: Values, side: int, prefix: str = "net/") -> ConvNet:
    """A ConvNet with the golden weights below a prefix."""
    state = {project_name(name): value for name, value in part(values, prefix).items()}
    first = state["layers.conv.0.weight"]
    depth = sum(name.startswith("layers.conv") for name in state) // 2
    padded = state["classifier.weight"].shape[1] > len(first) * (side // 2**depth) ** 2
    network = ConvNet(len(state["classifier.bias"]), side, first.shape[1], depth, len(first), padded)
    network.load_state_dict(state)
    return network


def assert_golden(found: Tensor, expected: Tensor, scale: Tensor | None = None) -> None:
    """Compare to 1e-5 of the largest value, of these values or of others that give the scale."""
    largest = float((expected if scale is None else scale).abs().max())
    torch.testing.assert_close(found, expected.to(found), rtol=0, atol=1e-5 * max(largest, 1e-12))
