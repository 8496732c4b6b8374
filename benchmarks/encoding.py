"""Images a second of the encoding into a latent cache, beside a plain reference with the same autoencoder.

    python benchmarks/encoding.py [--size imagewoof128|xl2] [--precision 32-true|bf16-mixed|bf16-true]
                                  [--images N] [--json]

Both read image files, resize and crop them, encode each image and its mirror image, and write the latents in 16-bit.
The reference is the loop that you would write with PIL, torchvision and diffusers: it opens an image, prepares it, asks
the autoencoder in float32, and keeps the latents; at the end it saves them in one file. The two take turns, and the
numbers are medians. In float32 both must find the same latents, to the rounding of the 16-bit numbers. In bfloat16, the
table has the difference of the latents: the root mean square, as a share of that of the latents. The autoencoders are a
TAESD for images of 128 pixels, and that of DiT-XL/2 for images of 256. Their weights are random.
"""

import math
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
from accelerator import DEVICE, quiet_trainer, timed
from models import STABLE_DIFFUSION_AUTOENCODER
from noise import write_images
from PIL import Image
from program import rate_parser, rates, show
from safetensors.torch import save_file
from torch import Tensor
from torchvision.transforms import v2

from dgs_lightning.callbacks.latent_writer import LatentWriter
from dgs_lightning.commands.process import keep_freed_memory
from dgs_lightning.data.latents import LatentCache
from dgs_lightning.datamodules.images import ImageDataModule, Loading
from dgs_lightning.models.codec import Codec, build_codec
from dgs_lightning.tasks.encoding import EncodingTask

GPU = DEVICE.type == "cuda"
LABELS = tuple(map(str, range(10)))
TOLERANCE = 2e-3  # 16-bit numbers have 11 bits


@dataclass(frozen=True)
class Size:
    """An autoencoder with the side of its images, and how many images each side encodes in a repetition."""

    autoencoder: str
    settings: dict[str, Any]
    side: int
    images: int
    reference_images: int


SIZES = {
    "imagewoof128": Size("AutoencoderTiny", {"scaling_factor": 1.0}, 128, 128, 16),
    "xl2": Size("AutoencoderKL", STABLE_DIFFUSION_AUTOENCODER, 256, 2000 if GPU else 8, 100 if GPU else 2),
}


def reference(codec: Codec, paths: Sequence[Path], side: int, output: Path) -> Tensor:
    """Mean latents of some images and of their mirror images, shape ``(N, 2, C, h, w)``, written out plainly."""
    prepare = v2.Compose(
        [
            v2.Resize(side),
            v2.CenterCrop(side),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([0.5], [0.5]),
        ]
    )
    latents = []
    for path in paths:
        with Image.open(path) as image:
            x = prepare(image.convert("RGB")).to(DEVICE)
        latents.append(torch.stack([codec.encode(seen[None]).mean[0].half().cpu() for seen in (x, x.flip(-1))]))
    save_file({"latents": torch.stack(latents)}, output)
    return torch.stack(latents).float()


def measure(size: Size, images: int, batch_size: int, repetitions: int, precision: str) -> dict[str, float]:
    """Images a second of both, alternating, and the difference of their latents.

    Raises:
        RuntimeError: If they find different latents in float32.
    """
    keep_freed_memory()  # as `dgs predict` does
    seconds: dict[str, list[float]] = {"own": [], "reference": []}
    squares: list[float] = []
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        write_images(root / "images", LABELS, images, 2 * size.side)
        paths = sorted((root / "images").rglob("*.png"))[: size.reference_images]
        torch.manual_seed(0)
        getattr(diffusers, size.autoencoder)(**size.settings).save_pretrained(root / "autoencoder")
        plain = build_codec(str(root / "autoencoder")).eval().to(DEVICE)
        own = EncodingTask(str(root / "autoencoder"))
        for repetition in range(repetitions + 1):
            cache = root / f"latents{repetition}"
            data = ImageDataModule(
                predict=str(root / "images"),
                image_size=size.side,
                val_batch_size=batch_size,
                loading=Loading(num_workers=8 if GPU else 0),
            )
            trainer = quiet_trainer(precision=precision, callbacks=[LatentWriter(str(cache))])
            with timed(seconds["own"]):
                trainer.predict(own, datamodule=data)
            with timed(seconds["reference"]), torch.inference_mode():
                expected = reference(plain, paths, size.side, root / "reference.safetensors")
            squares.append(relative_square(LatentCache(cache), expected))
            if precision == "32-true" and squares[-1] > TOLERANCE**2:
                raise RuntimeError(f"the latents differ by {squares[-1] ** 0.5:.1e} from those of the reference")
    own_seconds, reference_seconds = (statistics.median(times[1:]) for times in seconds.values())  # the first warms up
    figures = rates(images / own_seconds, len(paths) / reference_seconds)
    return {**figures, "difference": math.sqrt(statistics.mean(squares))}


def relative_square(cache: LatentCache, expected: Tensor) -> float:
    """Mean square of the difference of the first latents of a cache, over that of the latents; no mirror images."""
    found = cache.read(torch.arange(len(expected))).mean.float()
    return float(((found - expected[:, 0]) ** 2).mean() / (expected[:, 0] ** 2).mean())


def main(argv: Sequence[str] | None = None) -> None:
    args = rate_parser(__doc__, SIZES, "imagewoof128", ["32-true", "bf16-mixed", "bf16-true"], 32).parse_args(argv)
    size = SIZES[args.size]
    show(measure(size, args.images or size.images, args.batch_size, args.repetitions, args.precision), args.json)


if __name__ == "__main__":
    main()
