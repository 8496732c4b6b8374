"""ConvNet-d, the plain convolutional network of dataset distillation."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn.grad import conv2d_input


def instance_norm(channels: int) -> nn.GroupNorm:
    """Affine instance norm as published: group norm with as many groups as channels."""
    return nn.GroupNorm(channels, channels)


class AveragePool(nn.Module):
    """Average pool of side and stride ``size``; on a CPU as a depthwise convolution, which is twice as fast there."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        """Averages ``(B, C, H // size, W // size)`` of images ``(B, C, H, W)``."""
        if x.device.type != "cpu":
            return F.avg_pool2d(x, self.size)
        averages: Tensor = _Average.apply(x, self.size)
        return averages


def _weight(like: Tensor, size: int) -> Tensor:
    return like.new_full((like.shape[1], 1, size, size), 1 / size**2)


class _Average(Function):
    """Averages of squares.

    Gradients of its gradient are averages again. Torch, which does not know this of a convolution, takes much longer.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, size: int) -> Tensor:  # noqa: ANN401
        """Averages ``(B, C, H // size, W // size)``."""
        ctx.shape, ctx.size = x.shape, size
        return F.conv2d(x, _weight(x, size), stride=size, groups=x.shape[1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401
        """Gradient with respect to the images."""
        return _Spread.apply(gradients[0], ctx.shape, ctx.size), None


class _Spread(Function):
    """The gradient of :class:`_Average`: each number is spread over its square, divided by the pixels there."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, shape: torch.Size, size: int) -> Tensor:  # noqa: ANN401
        """Gradient with respect to the images, of this shape."""
        ctx.size = size
        spread: Tensor = conv2d_input(shape, _weight(gradient, size), gradient, size, groups=shape[1])  # type: ignore[no-untyped-call]
        return spread

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        """Gradient of a loss that depends on the gradient."""
        return _Average.apply(gradients[0], ctx.size), None, None


class ConvNet(nn.Module):
    """ConvNet-d: ``depth`` times [3x3 convolution, instance norm, ReLU, 2x2 average pool], then a linear layer.

    Gidaris and Komodakis, CVPR 2018; the form used by Zhao et al., "Dataset Condensation with Gradient Matching",
    ICLR 2021. Published: depth 6 and width (channels) 128 at 224 px; depth 3 is usual at 32 px.

    With ``padded``, the first convolution has padding 3, as published for grey images of 28 px: 32 px come out of it.
    Square images of less than ``2**depth`` px, of which the poolings leave nothing, raise a ValueError.
    """

    def __init__(
        self,
        num_classes: int,
        image_size: int = 224,
        channels: int = 3,
        depth: int = 6,
        width: int = 128,
        padded: bool = False,
    ) -> None:
        super().__init__()
        side = image_size + (4 if padded else 0)  # after the first convolution
        if side < 2**depth:
            raise ValueError(
                f"ConvNet-{depth} halves its input {depth} times, so it needs images of at least {2**depth} px, "
                f"not {image_size}. Take fewer layers or larger images."
            )
        inputs = (channels, *[width] * (depth - 1))
        paddings = (3 if padded else 1, *[1] * (depth - 1))
        convolutions = nn.ModuleList(
            nn.Conv2d(before, width, 3, padding=padding) for before, padding in zip(inputs, paddings, strict=True)
        )
        norms = nn.ModuleList(instance_norm(width) for _ in inputs)
        self.layers = nn.ModuleDict({"conv": convolutions, "norm": norms})
        self.pool = AveragePool(2)
        self.classifier = nn.Linear(width * (side // 2**depth) ** 2, num_classes)

    def feature_map(self, x: Tensor) -> Tensor:
        """Output of the last block, ``(B, width, h, h)``, of images ``(B, channels, image_size, image_size)``."""
        for conv, norm in zip(*self.layers.values(), strict=True):
            x = self.pool(torch.relu(norm(conv(x))))
        return x

    def features(self, x: Tensor) -> Tensor:
        """Input of the linear layer, ``(B, width * h * h)``."""
        return self.feature_map(x).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(B, num_classes)``."""
        logits: Tensor = self.classifier(self.features(x))
        return logits
