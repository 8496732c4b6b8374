"""ResNetAP-10: a ResNet whose every stride is an average pool."""

from functools import partial

from torch import nn

from dgs_lightning.models.convnet import AveragePool
from dgs_lightning.models.resnet import WIDTHS, BasicBlock, ResidualNetwork, stem_reduction


class ResNetAP10(ResidualNetwork):
    """ResNetAP-10 with instance norm: a 7x7 stride-1 stem and a 4x4 average pool, blocks 1, 1, 1, 1.

    Kim et al., "Dataset Condensation via Efficient Synthetic-Data Parameterization", ICML 2022. Below 64 px the
    stem pools by 2, below 32 px not at all, so that the last stage sees 2x2 pixels.

    Args:
        num_classes: Number of classes.
        image_size: Side of the square input in pixels, at least 16.
        channels: Channels of the input.

    Raises:
        ValueError: If the images are too small.
    """

    def __init__(self, num_classes: int, image_size: int = 224, channels: int = 3) -> None:
        reduction = stem_reduction("ResNetAP-10", image_size, {4: 64, 2: 32, 1: 16})
        stem = nn.Conv2d(channels, WIDTHS[0], 7, padding=3, bias=False)
        super().__init__(stem, AveragePool(reduction), partial(BasicBlock, pooled=True), (1, 1, 1, 1), num_classes)
