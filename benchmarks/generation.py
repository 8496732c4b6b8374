"""Images a second of the generation, beside a plain reference with the same model in the same run.

    python benchmarks/generation.py [--size digits|imagewoof128|xl2] [--precision 32-true|bf16-true] [--compile]
                                    [--batch-size N] [--images N] [--json]

Both start from requests and write PNG files. The reference is the loop that you would write with a DiT and a scheduler
of diffusers: for one image after the other, from noise of the image's own seed, it asks the network in float32 at each
step with the class and without it, mixes both, takes a step, and at the end decodes the latent and saves the PNG. The
network runs its embedder in every block. The two take turns, and the numbers are medians. In float32 both must make the
same images. In bfloat16, the table has the difference of the images: the root mean square of all pixels, where pixels
go from 0 to 255. The weights are random, so the images are noise; the images of a trained network differ less. The
network is compiled before the clock starts. On a GPU, the generation runs compiled in bfloat16. The table then also has
the rate of the network's operations, as a share of the card's measured rate of bfloat16 matrix products.
"""

import argparse
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from accelerator import DEVICE, matrix_rate, quiet_trainer, timed
from models import DIGITS_DIT, STABLE_DIFFUSION_AUTOENCODER
from PIL import Image
from program import rate_parser, rates, show
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from dgs_lightning.callbacks.image_writer import ImageWriter
from dgs_lightning.data.records import ImageRecord
from dgs_lightning.datamodules.requests import RequestDataModule
from dgs_lightning.diffusion.sampler import build_scheduler
from dgs_lightning.models.dit.formats import save_dit
from dgs_lightning.models.dit.network import DiT, DiTConfig
from dgs_lightning.selection.distribution import Floats
from dgs_lightning.tasks.generation import GenerationTask

GPU = DEVICE.type == "cuda"
STEPS, SCALE = 50, 4.0


@dataclass(frozen=True)
class Size:
    """A model with its autoencoder, and how many images each side makes in a repetition."""

    config: DiTConfig
    autoencoder: tuple[str, dict[str, Any]] | None
    images: int
    reference_images: int


SIZES = {
    "digits": Size(DiTConfig(num_classes=10, **DIGITS_DIT), None, 250, 5),
    "imagewoof128": Size(
        DiTConfig.named("DiT-S/2", input_size=16, num_classes=10), ("AutoencoderTiny", {"scaling_factor": 1.0}), 20, 1
    ),
    "xl2": Size(
        DiTConfig.named("DiT-XL/2", input_size=32, num_classes=1000),
        ("AutoencoderKL", STABLE_DIFFUSION_AUTOENCODER),
        128,
        2,
    ),
}


def random_models(size: Size, folder: Path) -> tuple[str, str]:
    """Folder of a DiT with random weights, and of its autoencoder or ``pixels``."""
    torch.manual_seed(0)
    model = DiT(size.config)
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.02)
    save_dit(model, folder / "dit")
    if size.autoencoder is None:
        return str(folder / "dit"), "pixels"
    name, settings = size.autoencoder
    getattr(diffusers, name)(**settings).save_pretrained(folder / "autoencoder")
    return str(folder / "dit"), str(folder / "autoencoder")


def reference(task: GenerationTask, records: Sequence[ImageRecord], output: Path) -> None:
    """The images of some requests, written out plainly."""
    device, model = task.device, task.model
    channels = task.guided_channels
    for record in records:
        random = torch.Generator().manual_seed(record.seed or 0)
        latent = torch.randn(1, *task.latent_shape, generator=random).to(device)
        scheduler = build_scheduler("ancestral", STEPS)
        y = torch.tensor([model.labels.index(record.label), model.null_label], device=device)
        for timestep in scheduler.timesteps.tolist():
            t = torch.full((2,), timestep, device=device)
            output_pair = plain_forward(model, torch.cat([latent, latent]), t, y)
            conditional, free = output_pair.chunk(2)
            guided = free[:, :channels] + SCALE * (conditional[:, :channels] - free[:, :channels])
            moved = torch.cat([guided, conditional[:, channels:]], 1)
            latent = scheduler.step(moved, timestep, latent, generator=random).prev_sample
        pixels = ((task.codec.decode(latent)[0] + 1) * 127.5).round().clamp(0, 255).byte().cpu()
        path = output / record.file_name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels[0] if len(pixels) == 1 else pixels.permute(1, 2, 0)).numpy()).save(path)


def plain_forward(model: DiT, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
    """Forward of a DiT whose embedder runs in every block."""
    tokens = model.x_embedder(x).flatten(2).transpose(1, 2) + model.pos_embed
    for block in model.blocks:
        tokens = block(tokens, model.t_embedder(t) + model.y_embedder(y))
    return model.unpatchify(model.final_layer(tokens, model.t_embedder(t) + model.y_embedder(y)))


def measure(size: Size, repetitions: int, batch_size: int, precision: str, compile: bool) -> dict[str, float]:
    """Images a second of both, alternating, and the difference of their images.

    Raises:
        RuntimeError: If they make different images in float32.
    """
    seconds: dict[str, list[float]] = {"own": [], "reference": []}
    squares: list[float] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        dit, codec = random_models(size, folder)
        own = GenerationTask(dit, codec, steps=STEPS, guidance_scale=SCALE, compile=compile)
        plain = GenerationTask(dit, codec, steps=STEPS).eval().to(DEVICE)
        each = -(-size.images // size.config.num_classes)
        labels = list(own.labels[: -(-size.images // each)])
        for repetition in range(repetitions + 1):
            data = RequestDataModule(labels, each, seed=repetition, batch_size=batch_size)
            trainer = quiet_trainer(precision=precision, callbacks=[ImageWriter(str(folder / f"own{repetition}"))])
            with timed(seconds["own"]):
                trainer.predict(own, datamodule=data)
            records = data.requests()[: size.reference_images]
            with timed(seconds["reference"]), torch.inference_mode():
                reference(plain, records, folder / f"reference{repetition}")
            differences = [
                image_difference(record, folder / f"own{repetition}", folder / f"reference{repetition}")
                for record in records
            ]
            if precision == "32-true" and max(abs(difference).max() for difference in differences) > 1:
                raise RuntimeError("the reference makes other images")
            squares += [float((difference**2).mean()) for difference in differences]
        utilisation = flops_per_image(plain) / matrix_rate() if GPU else None
    own_seconds, reference_seconds = (statistics.median(times[1:]) for times in seconds.values())  # the first warms up
    images_per_second = each * len(labels) / own_seconds
    figures = rates(images_per_second, size.reference_images / reference_seconds)
    figures["difference"] = statistics.mean(squares) ** 0.5
    return figures if utilisation is None else figures | {"model_flop_utilisation": utilisation * images_per_second}


def image_difference(record: ImageRecord, own: Path, plain: Path) -> Floats:
    """Difference of the grey levels of an image in two folders."""
    first, second = (np.asarray(Image.open(folder / record.file_name), np.float64) for folder in (own, plain))
    return np.subtract(first, second)


def flops_per_image(task: GenerationTask) -> float:
    """Floating-point operations of the network for an image: both branches, all steps."""
    x, t = torch.zeros(2, *task.latent_shape, device=task.device), torch.zeros(2, dtype=torch.long, device=task.device)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        task.model(x, t, t)
    return STEPS * float(counter.get_total_flops())


def main(argv: Sequence[str] | None = None) -> None:
    precisions = ["bf16-true", "32-true"] if GPU else ["32-true", "bf16-true"]
    options = rate_parser(__doc__, SIZES, "digits", precisions, 64)
    options.add_argument("--compile", action=argparse.BooleanOptionalAction, default=GPU, help="compile our network")
    args = options.parse_args(argv)
    size = SIZES[args.size]
    size = replace(size, images=args.images or size.images)
    show(measure(size, args.repetitions, args.batch_size, args.precision, args.compile), args.json)


if __name__ == "__main__":
    main()
