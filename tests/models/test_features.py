from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from numpy.random import default_rng
from PIL import Image
from safetensors.torch import save_file
from timm.data.config import resolve_model_data_config
from timm.data.transforms_factory import create_transform

from dgs_lightning.errors import InputError
from dgs_lightning.models.features import build_features, pixel_features


@pytest.fixture
def images(tmp_path: Path) -> Sequence[Path]:
    rng = default_rng(0)
    paths = [tmp_path / f"{k}.png" for k in range(3)]
    for path, size in zip(paths, (8, 32, 50), strict=True):
        Image.fromarray(rng.integers(0, 256, (size, size + 3, 3), dtype=np.uint8)).save(path)
    return paths


def test_pixels_of_images_of_any_size_have_equal_length(images: Sequence[Path]) -> None:
    features = pixel_features(images)
    assert features.shape == (3, 32 * 32 * 3)
    assert features.min() >= 0
    assert features.max() <= 1


def test_a_networks_features_are_those_before_its_classifier(images: Sequence[Path], tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = timm.create_model("test_resnet", pretrained=False).eval()
    weights = tmp_path / "test_resnet.safetensors"
    save_file(network.state_dict(), weights)
    features = build_features("test_resnet", str(weights))(images)
    transform = create_transform(**resolve_model_data_config(network))  # type: ignore[no-untyped-call]
    batch = torch.stack([transform(Image.open(path)) for path in images])
    headless = timm.create_model("test_resnet", num_classes=0).eval()
    headless.load_state_dict(network.state_dict(), strict=False)
    with torch.inference_mode():
        expected = headless(batch)
    np.testing.assert_allclose(features, expected.numpy(), atol=1e-5)


def test_an_unknown_network_is_named() -> None:
    with pytest.raises(InputError, match=r"'pixel'.*name of a timm network"):
        build_features("pixel")


def test_an_unreadable_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"broken\.png"):
        pixel_features([tmp_path / "broken.png"])
