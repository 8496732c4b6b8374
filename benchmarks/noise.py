"""Images to measure with."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image


def write_images(folder: Path, labels: Sequence[str], count: int, side: int, mode: str = "RGB") -> None:
    """Class folders of blurred noise as PNG, whose files are about as large as those of photographs.

    Args:
        folder: Where to write them.
        labels: The classes, which have as many images each, or one more.
        count: Images in all.
        side: Their side in pixels.
        mode: Pillow's name of their channels.
    """
    draw, coarse = np.random.default_rng(0), max(side // 8, 4)
    for k in range(count):
        path = folder / labels[k % len(labels)] / f"{k // len(labels):05}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = Image.fromarray(draw.integers(0, 256, (coarse, coarse, 3), dtype=np.uint8))
        pixels = np.asarray(noise.resize((side, side), Image.Resampling.BICUBIC), dtype=np.int16)
        grain = draw.integers(-4, 5, pixels.shape)
        Image.fromarray(np.clip(pixels + grain, 0, 255).astype(np.uint8)).convert(mode).save(path)
