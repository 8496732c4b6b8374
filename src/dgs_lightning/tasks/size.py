"""Length of a training by the size of its data. It never depends on the time that a machine takes."""

import math
from dataclasses import dataclass
from typing import Annotated

from dgs_lightning.bounds import AtLeast, Group

AtLeastOne = Annotated[int, AtLeast(1)]


@dataclass(frozen=True)
class DataSize(Group):
    """Size of a training set.

    Args:
        images: Number of images.
        classes: Number of classes.
        side: Side of the images in pixels. For a DiT it is that of the latents, which are the pixels without an
            autoencoder.
    """

    images: AtLeastOne
    classes: AtLeastOne
    side: AtLeastOne


def steps_by_size(steps: int, meant_for: DataSize, size: DataSize) -> int:
    r"""Steps on data of one size, from the steps that are meant for data of another size.

    .. math:: s \sqrt{\frac{N\, C\, P}{N_0\, C_0\, P_0}}

    N is the number of images, C of classes and P of pixels; the numbers with index 0 are those of ``meant_for``. With
    four times as many images, the training has twice as many steps, and sees each image half as often. The rule is
    this project's; the paper has none.

    Args:
        steps: Steps :math:`s` of a training on data of the size ``meant_for``.
        meant_for: The size that the steps are meant for.
        size: The size of the data.
    """
    ratio = size.images / meant_for.images * size.classes / meant_for.classes * (size.side / meant_for.side) ** 2
    return max(1, round(steps * math.sqrt(ratio)))
