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
from torch import nn
from torchvision.models import MobileNet_V3_Small_Weights, mobilenet_v3_small, squeezenet1_1

from dgs_lightning.errors import InputError
from dgs_lightning.models import features as module
from dgs_lightning.models.classifier import ClassifierConfig, save_classifier
from dgs_lightning.models.estimator import load_estimator
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
    assert np.array_equal(features, build_features("timm:test_resnet", str(weights))(images))
    transform = create_transform(**resolve_model_data_config(network))  # type: ignore[no-untyped-call]
    batch = torch.stack([transform(Image.open(path)) for path in images])
    headless = timm.create_model("test_resnet", num_classes=0).eval()
    headless.load_state_dict(network.state_dict(), strict=False)
    with torch.inference_mode():
        expected = headless(batch)
    np.testing.assert_allclose(features, expected.numpy(), atol=1e-5)


def test_features_of_torchvision_are_the_input_of_the_last_linear_layer(images: Sequence[Path], tmp_path: Path) -> None:
    network = mobilenet_v3_small().eval()
    weights = tmp_path / "mobilenet.safetensors"
    save_file(network.state_dict(), weights)
    features = build_features("torchvision:mobilenet_v3_small", str(weights))
    assert features.what.startswith("features of torchvision:mobilenet_v3_small@")
    transform = MobileNet_V3_Small_Weights.IMAGENET1K_V1.transforms()
    batch = torch.stack([transform(Image.open(path)) for path in images])
    network.classifier[-1] = nn.Identity()
    with torch.inference_mode():
        np.testing.assert_allclose(features(images), network(batch).numpy(), atol=1e-5)


OWN = ClassifierConfig("convnet2", ("a", "b"), 8, 1, mean=(0.5,), std=(0.25,), width=4, folds=5, fold=0)


def test_features_of_an_own_classifier_are_told_with_the_fold_that_it_has_not_seen(
    images: Sequence[Path], tmp_path: Path
) -> None:
    save_classifier(OWN.build(), OWN, tmp_path)
    features, estimator = build_features(str(tmp_path)), load_estimator(str(tmp_path))
    batch = torch.stack([estimator.preprocess(Image.open(path)) for path in images])
    with torch.inference_mode():
        torch.testing.assert_close(estimator.network.classifier(estimator.features(batch)), estimator(batch))  # type: ignore[operator]
        np.testing.assert_allclose(features(images), estimator.features(batch).numpy(), atol=1e-6)
    assert features.what == (
        f"features of {estimator.identity}, the network of fold 0 of 5 for all images, since the features of different "
        "networks cannot be compared"
    )


def test_features_depend_on_the_batch_by_no_more_than_rounding(
    images: Sequence[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_classifier(OWN.build(), OWN, tmp_path)
    together = build_features(str(tmp_path))(images)
    monkeypatch.setattr(module, "BATCH", 1)
    np.testing.assert_allclose(build_features(str(tmp_path))(images), together, rtol=1e-5, atol=1e-6)


def test_a_network_without_linear_layer_has_no_features(images: Sequence[Path], tmp_path: Path) -> None:
    save_file(squeezenet1_1().state_dict(), tmp_path / "weights.safetensors")
    features = build_features("torchvision:squeezenet1_1", str(tmp_path / "weights.safetensors"))
    with pytest.raises(InputError, match="features: found SqueezeNet without linear layer"):
        features(images)


def test_an_unknown_network_is_named() -> None:
    with pytest.raises(InputError, match=r"features: found 'pixel', expected 'pixels', torchvision:NAME"):
        build_features("pixel")


def test_an_unreadable_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"broken\.png"):
        pixel_features([tmp_path / "broken.png"])
