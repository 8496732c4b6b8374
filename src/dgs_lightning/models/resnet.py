"""ResNet-18 and ResNetAP-10 with instance norm, and the structure that they share."""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from dgs_lightning.models.convnet import AveragePool, instance_norm

WIDTHS = (64, 128, 256, 512)
Block = Callable[[int, int, int], nn.Module]  # from input channels, output channels and stride


def stem_reduction(name: str, image_size: int, smallest: Mapping[int, int]) -> int:
    """Factor by which the stem shrinks the image: the published 4, or less for images that are too small for it.

    Instance norm of a single pixel is constant, so the last stage needs at least 2x2 pixels. ``smallest`` gives for
    each factor, largest first, the smallest input that leaves them. Even smaller images raise a ValueError.
    """
    if fitting := [reduction for reduction, pixels in smallest.items() if image_size >= pixels]:
        return fitting[0]
    raise ValueError(
        f"{name} needs images of at least {min(smallest.values())} px, not {image_size}: its last instance norm "
        "would see one pixel and return a constant. Take a ConvNet of less depth or larger images."
    )


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with instance norm beside a shortcut (He et al., CVPR 2016).

    The first convolution and the shortcut shrink the image by ``stride``; if ``pooled``, average pools after them do.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, pooled: bool = False) -> None:
        super().__init__()
        step, shrink = (1, [AveragePool(stride)]) if pooled else (stride, [])
        self.conv1 = nn.Conv2d(inputs, outputs, 3, step, padding=1, bias=False)
        self.bn1 = instance_norm(outputs)
        self.shrink = nn.Sequential(*shrink)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = instance_norm(outputs)
        self.downsample = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.downsample.extend([nn.Conv2d(inputs, outputs, 1, step, bias=False), *shrink, instance_norm(outputs)])

    def forward(self, x: Tensor) -> Tensor:
        """Features ``(B, outputs, H / stride, W / stride)``, rounded down after pools and up after strides."""
        out = self.shrink(torch.relu(self.bn1(self.conv1(x))))
        return torch.relu(self.bn2(self.conv2(out)) + self.downsample(x))


class ResidualNetwork(nn.Module):
    """Stem, four stages of ``depths`` residual blocks, global average pool, linear layer.

    The stem is a convolution to 64 channels with a pooling at its end. Initial weights of convolutions are Kaiming
    normal (fan-out).
    """

    def __init__(self, stem: nn.Conv2d, pool: nn.Module, block: Block, depths: Sequence[int], num_classes: int) -> None:
        super().__init__()
        self.layer0 = nn.Sequential(
            OrderedDict(conv1=stem, bn1=instance_norm(WIDTHS[0]), relu=nn.ReLU(inplace=True), pool=pool)
        )
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            nn.Sequential(block(before, width, stride), *(block(width, width, 1) for _ in range(depth - 1)))
            for before, width, stride, depth in zip(WIDTHS[:1] + WIDTHS[:3], WIDTHS, (1, 2, 2, 2), depths, strict=True)
        )
        self.fc = nn.Linear(WIDTHS[-1], num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def feature_map(self, x: Tensor) -> Tensor:
        """Output of the last stage, ``(B, 512, h, w)``, of images ``(B, C, H, W)``."""
        for stage in (self.layer0, self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
        return x

    def features(self, x: Tensor) -> Tensor:
        """Input of the linear layer, ``(B, 512)``."""
        return self.feature_map(x).mean(dim=(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(B, num_classes)``."""
        logits: Tensor = self.fc(self.features(x))
        return logits


class ResNet18(ResidualNetwork):
    """ResNet-18 with instance norm: a 7x7 stride-2 stem and a max pool, blocks 2, 2, 2, 2.

    The stem has no max pool below 33 px and no stride below 17 px. Square images of less than 9 px raise a ValueError.
    """

    def __init__(self, num_classes: int, image_size: int = 224, channels: int = 3) -> None:
        reduction = stem_reduction("ResNet-18", image_size, {4: 33, 2: 17, 1: 9})
        stem = nn.Conv2d(channels, WIDTHS[0], 7, min(reduction, 2), padding=3, bias=False)
        pool = nn.MaxPool2d(3, 2, padding=1) if reduction == 4 else nn.Identity()
        super().__init__(stem, pool, BasicBlock, (2, 2, 2, 2), num_classes)


class ResNetAP10(ResidualNetwork):
    """ResNetAP-10 with instance norm: a 7x7 stride-1 stem and a 4x4 average pool, blocks 1, 1, 1, 1.

    Kim et al., "Dataset Condensation via Efficient Synthetic-Data Parameterization", ICML 2022. The stem pools by 2
    below 64 px and not at all below 32 px. Square images of less than 16 px raise a ValueError.
    """

    def __init__(self, num_classes: int, image_size: int = 224, channels: int = 3) -> None:
        reduction = stem_reduction("ResNetAP-10", image_size, {4: 64, 2: 32, 1: 16})
        stem = nn.Conv2d(channels, WIDTHS[0], 7, padding=3, bias=False)
        super().__init__(stem, AveragePool(reduction), partial(BasicBlock, pooled=True), (1, 1, 1, 1), num_classes)
