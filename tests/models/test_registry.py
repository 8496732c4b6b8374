import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dgs_lightning.errors import InputError
from dgs_lightning.models.convnet import ConvNet
from dgs_lightning.models.registry import build_network, check_name
from dgs_lightning.models.resnet import ResNet18


def fill_deterministically(network: torch.nn.Module) -> None:
    """`networks_fill` of the golden values."""
    for i, (name, parameter) in enumerate(network.named_parameters()):
        count = torch.arange(parameter.numel(), dtype=torch.float64)
        value = torch.sin(count * (1 + 0.01 * i)).float().reshape(parameter.shape)
        if parameter.ndim > 1:
            value = value * math.sqrt(2 / parameter[0].numel())
        else:
            value = 1 + 0.1 * value if name.endswith(".weight") else 0.1 * value
        parameter.data.copy_(value)


@pytest.mark.golden
@pytest.mark.parametrize("name", ["ConvNet-6", "ResNet-18", "ResNetAP-10"])
def test_the_published_networks_have_the_published_parameters_and_logits(name: str, golden: Path) -> None:
    expected = json.loads((golden / "models.json").read_text())["networks"][name]
    network = build_network(name, num_classes=len(expected["logits"][0]), image_size=224).eval()
    assert [[key, list(value.shape)] for key, value in network.state_dict().items()] == expected["state"]
    assert sum(parameter.numel() for parameter in network.parameters()) == expected["parameters"]
    fill_deterministically(network)
    with torch.inference_mode():
        logits = network(torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(1)))
    torch.testing.assert_close(logits, torch.tensor(expected["logits"]), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("name", "size", "channels"),
    [("convnet2", 8, 1), ("resnet_ap10", 16, 1), ("timm:resnet10t", 64, 1), ("torchvision:squeezenet1_1", 64, 3)],
)
def test_any_source_gives_a_logit_a_class(name: str, size: int, channels: int) -> None:
    network = build_network(name, num_classes=4, image_size=size, channels=channels).eval()
    assert network(torch.rand(2, channels, size, size)).shape == (2, 4)


def test_a_network_of_fixed_size_is_made_for_the_images_at_hand() -> None:
    network = build_network("timm:vit_tiny_patch16_224", num_classes=3, image_size=32).eval()
    assert network(torch.rand(1, 3, 32, 32)).shape == (1, 3)


def test_bare_names_mean_the_published_network_first_then_timm_then_torchvision() -> None:
    assert isinstance(build_network("resnet18", 10, 32), ResNet18)
    assert type(build_network("resnet10t", 10, 32)).__module__.startswith("timm")
    assert type(build_network("shufflenet_v2_x0_5", 10, 32)).__module__.startswith("torchvision")


@pytest.mark.parametrize(
    ("name", "size", "channels", "says"),
    [
        ("convnet6", 32, 3, "at least 64 px, not 32"),
        ("no_such_network", 32, 3, "no_such_network"),
        ("hub:resnet18", 32, 3, "source 'hub'"),
        ("torchvision:resnet18", 32, 1, "1 channels"),
        ("convnet0", 32, 3, "0 layers, where a ConvNet has 1 to 16"),
    ],
)
def test_what_cannot_be_built_is_named(name: str, size: int, channels: int, says: str) -> None:
    with pytest.raises(InputError, match=says):
        build_network(name, 10, size, channels)


def test_weights_of_torchvision_are_not_taken_for_timms() -> None:
    with pytest.raises(InputError, match="weights IMAGENET1K_V1, which are torchvision's"):
        build_network("resnet50", 1000, 224, pretrained="IMAGENET1K_V1")


def test_local_weights_fill_all_but_a_head_for_other_classes(tmp_path: Path) -> None:
    saved = ConvNet(5, image_size=8, depth=2, width=4)
    save_file(saved.state_dict(), tmp_path / "weights.safetensors")
    torch.save(saved.state_dict(), tmp_path / "weights.pt")
    for file in ("weights.safetensors", "weights.pt"):
        same = build_network("convnet2", 5, 8, pretrained=str(tmp_path / file), width=4)
        with pytest.warns(UserWarning, match=r"for 5 classes\. The last layer for 3 classes starts at random"):
            other = build_network("convnet2", 3, 8, pretrained=str(tmp_path / file), width=4)
        torch.testing.assert_close(dict(same.state_dict()), dict(saved.state_dict()))
        first = "layers.conv.0.weight"
        torch.testing.assert_close(other.state_dict()[first], saved.state_dict()[first])
        assert other.state_dict()["classifier.weight"].shape == (3, 16)


def test_a_last_layer_that_timm_draws_for_other_classes_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("timm.create_model", lambda *_, **__: torch.nn.Identity())
    with pytest.warns(UserWarning, match=r"timm:resnet10t has a last layer for 1000 classes\. The last layer for 3"):
        build_network("timm:resnet10t", 3, 32, pretrained=True)


@pytest.mark.parametrize("name", ["timm:resnet10t.c3_in1k_of_mine", "resnet10t.C3_in1k"])
def test_a_tag_that_timm_lacks_is_told_with_those_that_it_has(name: str) -> None:
    for refuse in (check_name, lambda name: build_network(name, 10, 64)):
        with pytest.raises(
            InputError, match=r"found resnet10t with weights '\w+', of which timm has c3_in1k, expected"
        ):
            refuse(name)
