import pytest
import torch
from tests.matching.conftest import Load, assert_golden, network_of
from torch import nn

from dgs_lightning.errors import InputError
from dgs_lightning.models.embedding import feature_map, pooled_features
from dgs_lightning.models.registry import build_network


@pytest.mark.golden
@pytest.mark.parametrize("name", ["dm_objective_rgb8", "dm_objective_gray28"])
def test_features_and_logits_of_a_convnet_are_the_published_ones(name: str, values: Load) -> None:
    given = values(name)
    network = network_of(given, given["syn"].shape[-1])
    assert_golden(network(given["syn"]), given["logits_syn"])
    assert_golden(pooled_features(network, given["syn"]), given["embed_syn"])
    for images, expected in zip(given["real"], given["embed_real"], strict=True):
        assert_golden(pooled_features(network, images), expected)


@pytest.mark.parametrize(
    ("name", "side", "channels", "linear"),
    [
        ("convnet2", 8, 1, "classifier"),
        ("convnet3_padded", 28, 1, "classifier"),
        ("resnet18", 32, 3, "fc"),
        ("resnet_ap10", 16, 3, "fc"),
        ("timm:resnet10t", 64, 1, "fc"),
        ("torchvision:resnet18", 64, 3, "fc"),
    ],
)
def test_the_linear_layer_makes_the_logits_of_the_features(name: str, side: int, channels: int, linear: str) -> None:
    network = build_network(name, 4, side, channels, width=8).eval()
    images = torch.rand(2, channels, side, side)
    features, last = pooled_features(network, images), network.get_submodule(linear)
    torch.testing.assert_close(last(features), network(images))
    found = feature_map(network, images)
    assert found.dim() == 4
    pooled = found.flatten(1) if name.startswith("convnet") else found.mean(dim=(2, 3))
    torch.testing.assert_close(pooled, features)


def test_a_padded_convnet_takes_28_px_as_32() -> None:
    padded, plain = (build_network(name, 10, 28, 1, width=8) for name in ("convnet3_padded", "convnet3"))
    assert padded.get_parameter("classifier.weight").shape == (10, 8 * 4 * 4)
    assert plain.get_parameter("classifier.weight").shape == (10, 8 * 3 * 3)


def test_a_network_without_linear_layer_has_no_features() -> None:
    with pytest.raises(InputError, match="Sequential without linear layer, expected a classifier that ends in a lin"):
        pooled_features(nn.Sequential(nn.Conv2d(3, 4, 3)), torch.rand(1, 3, 8, 8))
