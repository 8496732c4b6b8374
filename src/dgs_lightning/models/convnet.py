"""ConvNet-d, the plain convolutional network of dataset distillation."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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
        weight = x.new_full((x.shape[1], 1, self.size, self.size), 1 / self.size**2)
        return F.conv2d(x, weight, stride=self.size, groups=x.shape[1])


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
