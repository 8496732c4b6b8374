import pytest
import torch
from torch import nn

from dgs_lightning.models.resnet import ResidualNetwork, ResNet18, ResNetAP10


def last_stage_pixels(network: ResidualNetwork, size: int) -> int:
    """Side of the last stage's features."""
    x = torch.rand(1, 3, size, size)
    for stage in (network.layer0, network.layer1, network.layer2, network.layer3, network.layer4):
        x = stage(x)
    return x.shape[-1]


@pytest.mark.parametrize(("network", "sizes"), [(ResNet18, (9, 16, 17, 32, 33)), (ResNetAP10, (16, 32, 64))])
def test_small_images_shrink_less_in_the_stem_so_that_the_last_norm_sees_several_pixels(
    network: type[ResNet18 | ResNetAP10], sizes: tuple[int, ...]
) -> None:
    assert [last_stage_pixels(network(10, image_size=size), size) for size in sizes] == [2] * len(sizes)


@pytest.mark.parametrize(("network", "too_small"), [(ResNet18, 8), (ResNetAP10, 15)])
def test_images_that_would_end_in_a_single_pixel_are_refused(
    network: type[ResNet18 | ResNetAP10], too_small: int
) -> None:
    with pytest.raises(ValueError, match=f"at least {too_small + 1} px, not {too_small}"):
        network(10, image_size=too_small)


def test_resnet_ap_shrinks_by_average_pools_alone() -> None:
    convolutions = [module for module in ResNetAP10(10).modules() if isinstance(module, nn.Conv2d)]
    assert {module.stride for module in convolutions} == {(1, 1)}


@pytest.mark.parametrize("network", [ResNet18, ResNetAP10])
def test_convolutions_start_at_kaimings_fan_out_variance(network: type[ResNet18 | ResNetAP10]) -> None:
    weight = network(10, channels=1).state_dict()["layer4.0.conv1.weight"]
    torch.testing.assert_close(weight.std().item(), (2 / (512 * 9)) ** 0.5, rtol=0.02, atol=0)
