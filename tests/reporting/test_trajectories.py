from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from dgs_lightning.reporting.trajectories import class_latents, read_trajectories
from dgs_lightning.runs.layout import TRAJECTORIES


def test_recorded_trajectories_are_flattened(tmp_path: Path) -> None:
    tensors = {"predictions": torch.rand(3, 5, 1, 8, 8), "centers": torch.rand(3, 1, 8, 8)}
    save_file(tensors, tmp_path / TRAJECTORIES, {"label": "zero"})
    found = read_trajectories(tmp_path)
    assert found is not None
    assert found.label == "zero"
    assert found.centers is not None
    np.testing.assert_array_equal(found.predictions, tensors["predictions"].flatten(2).numpy())
    np.testing.assert_array_equal(found.centers, tensors["centers"].flatten(1).numpy())


def test_unguided_images_have_no_centres_and_unrecorded_ones_no_trajectories(tmp_path: Path) -> None:
    assert read_trajectories(tmp_path) is None
    assert read_trajectories(None) is None
    save_file({"predictions": torch.rand(3, 5, 1, 8, 8)}, tmp_path / TRAJECTORIES, {"label": "zero"})
    found = read_trajectories(tmp_path)
    assert found is not None
    assert found.centers is None


def test_a_run_without_latents_has_none(tmp_path: Path) -> None:
    assert class_latents(tmp_path / "latents", "zero") is None
