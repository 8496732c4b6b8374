import pytest
import torch
import torch.nn.functional as F

from dgs_lightning.models.convnet import AveragePool, ConvNet, instance_norm


def test_instance_norm_centres_every_channel_of_every_image() -> None:
    x = torch.randn(3, 5, 6, 6, generator=torch.Generator().manual_seed(0)) * 4 + 7
    out = instance_norm(5)(x)
    torch.testing.assert_close(out.mean(dim=(2, 3)), torch.zeros(3, 5), atol=1e-5, rtol=0)
    torch.testing.assert_close(out, (x - x.mean((2, 3), True)) / (x.var((2, 3), False, True) + 1e-5).sqrt())


@pytest.mark.parametrize(("size", "side"), [(1, 5), (2, 8), (2, 9), (4, 15)])
def test_the_average_pool_is_torchs(size: int, side: int) -> None:
    x = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(AveragePool(size)(x), F.avg_pool2d(x, size))
    double = x.double().requires_grad_()
    assert torch.autograd.gradcheck(AveragePool(size), double)
    assert torch.autograd.gradgradcheck(AveragePool(size), double)


@pytest.mark.parametrize("side", [8, 9])
def test_gradients_of_gradients_through_the_average_pool_are_those_through_torchs(side: int) -> None:
    network = ConvNet(3, image_size=side, channels=1, depth=2, width=4)
    images = torch.randn(5, 1, side, side, generator=torch.Generator().manual_seed(0))
    found = []
    for pool in (network.pool, torch.nn.AvgPool2d(2)):
        network.register_module("pool", pool)
        stored = images.clone().requires_grad_()
        loss = F.cross_entropy(network(stored), torch.arange(5) % 3)
        gradients = torch.autograd.grad(loss, [*network.parameters()], create_graph=True)
        found.append(torch.autograd.grad(torch.stack([each.square().sum() for each in gradients]).sum(), stored)[0])
    torch.testing.assert_close(*found)


@pytest.mark.parametrize(("size", "depth", "channels"), [(8, 3, 1), (9, 3, 3), (32, 3, 3), (64, 6, 4), (50, 2, 2)])
def test_any_size_and_channels_that_the_depth_allows_give_a_logit_a_class(size: int, depth: int, channels: int) -> None:
    network = ConvNet(7, image_size=size, channels=channels, depth=depth, width=8)
    assert network(torch.rand(2, channels, size, size)).shape == (2, 7)


def test_an_input_smaller_than_its_poolings_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 64 px, not 63"):
        ConvNet(10, image_size=63, depth=6)
