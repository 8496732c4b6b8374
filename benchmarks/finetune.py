"""Time of an optimiser step of Minimax fine-tuning, or of pre-training, beside a plain reference loop in the same run.

    python benchmarks/finetune.py [--size digits|imagewoof128|xl2] [--pretrain] [--batch N] [--memory N] [--steps N]
                                  [--precision P] [--compile] [--json]

Three loops take turns, step by step: ``MinimaxTask`` under Lightning, the same task in a plain loop, and the
reference. The times are medians. The reference is what you would write to add the Minimax criteria to a script that
trains a DiT. At each step, it encodes the images with the autoencoder, concatenates its memories, which are lists for
each class, takes the losses, steps AdamW, and averages all parameters one by one. Model, images and batch are the same.
The weights are random. With ``--pretrain``, the task is ``DiffusionTask``: it trains all parameters, and no loop has
criteria.
"""

import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from accelerator import DEVICE, matrix_rate, now, quiet_trainer
from models import DIGITS_DIT, STABLE_DIFFUSION_AUTOENCODER
from program import parser, show
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from dgs_lightning.data.latents import CacheSettings, finish_cache, write_shard
from dgs_lightning.data.records import ImageRecord
from dgs_lightning.datamodules.latents import LatentDataModule
from dgs_lightning.diffusion.objective import add_noise, linear_alphas_cumprod, training_terms
from dgs_lightning.models.codec import AutoencoderCodec, Codec, PixelCodec
from dgs_lightning.models.dit.difffit import add_difffit, mark_trainable
from dgs_lightning.models.dit.formats import save_dit
from dgs_lightning.models.dit.network import DiT, DiTConfig, initialise
from dgs_lightning.tasks.diffusion import DiffusionTask
from dgs_lightning.tasks.minimax import CriteriaSettings, MinimaxTask

CLASSES, WARM_UP = 10, 3
WEIGHTS, DECAY, LEARNING_RATE = (0.002, 0.008), 0.9999, 1e-3


@dataclass(frozen=True)
class Size:
    """One of the sizes measured."""

    dit: dict[str, Any]
    image_size: int
    channels: int
    batch: int
    steps: int
    codec: Callable[[], Codec]


def tiny_autoencoder() -> AutoencoderCodec:
    from diffusers import AutoencoderTiny

    return AutoencoderCodec(AutoencoderTiny())  # type: ignore[no-untyped-call]


def stable_diffusion_autoencoder() -> AutoencoderCodec:
    from diffusers import AutoencoderKL

    return AutoencoderCodec(AutoencoderKL(**STABLE_DIFFUSION_AUTOENCODER))  # type: ignore[no-untyped-call]


SIZES = {
    "digits": Size(DIGITS_DIT, 8, 1, 64, 200, lambda: PixelCodec(1)),
    "imagewoof128": Size(
        {"input_size": 16, "hidden_size": 384, "depth": 12, "num_heads": 6}, 128, 3, 8, 20, tiny_autoencoder
    ),
    "xl2": Size({"input_size": 32}, 256, 3, 8, 20, stable_diffusion_autoencoder),
}


def plain_loop(model: DiT, codec: Codec, images: Tensor, labels: Tensor, batch: int, memory: int) -> Iterator[None]:
    """The reference: one step each time that it is asked for the next."""
    trained = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=LEARNING_RATE, weight_decay=0.0)
    average = {name: p.detach().clone() for name, p in model.named_parameters()}
    alphas = linear_alphas_cumprod().to(DEVICE)
    real: list[list[Tensor]] = [[] for _ in range(CLASSES)]
    generated: list[list[Tensor]] = [[] for _ in range(CLASSES)]
    for chosen in chain.from_iterable(torch.split(torch.randperm(len(images)), batch) for _ in repeat(None)):
        y = labels[chosen]
        mean, logvar = codec.encode(images[chosen])
        latents = mean if logvar is None else mean + (logvar / 2).exp() * torch.randn_like(mean)
        t, noise = torch.randint(0, 1000, (batch,), device=DEVICE), torch.randn_like(latents)
        terms = training_terms(model(add_noise(latents, noise, alphas[t]), t, y), latents, noise, t, alphas)
        loss = terms.mse.mean() + terms.bound.mean()
        present = set(y.tolist()) if memory else set()
        for c in present:
            if real[c]:
                pred = terms.pred_x0[y == c].flatten(1)[:, None]
                loss = loss + WEIGHTS[0] / len(present) * (1 - cosines(pred, real[c]).min())
                loss = loss + WEIGHTS[1] / len(present) * cosines(pred, generated[c]).max()
        for c, latent, prediction in zip(y.tolist(), latents, terms.pred_x0.detach(), strict=True) if memory else ():
            real[c] = [*real[c], latent.flatten()[None]][-memory:]
            generated[c] = [*generated[c], prediction.flatten()[None]][-memory:]
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        for name, parameter in model.named_parameters():
            average[name].mul_(DECAY).add_(parameter.detach(), alpha=1 - DECAY)
        yield


def cosines(pred: Tensor, remembered: list[Tensor]) -> Tensor:
    return torch.cosine_similarity(pred, torch.cat(remembered)[None], dim=2)


def bare_loop(task: DiffusionTask, data: LatentDataModule) -> Iterator[None]:
    """The steps of a task without Lightning around them."""
    optimiser = task.configure_optimizers()
    precision = task.trainer.precision_plugin
    for batch in chain.from_iterable(data.train_dataloader() for _ in repeat(None)):
        with precision.forward_context():
            loss = task.training_step(type(batch)(batch[0].to(task.device), batch[1].to(task.device), batch[2]), 0)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        task.ema.update(task.decay)
        yield


class TakeTurns(pl.Callback):
    """Times the steps of a fit, and after each of them one step of each other loop."""

    def __init__(self, reference: Iterator[None], data: LatentDataModule) -> None:
        self.reference = reference
        self.data = data
        self.seconds: dict[str, list[float]] = {"lightning": [], "bare": [], "reference": []}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the other loops and the clock."""
        assert isinstance(pl_module, DiffusionTask)
        self.others = {"bare": bare_loop(pl_module, self.data), "reference": self.reference}
        self.start = now()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: object) -> None:
        """Stop the clock, let the others take a step each, and start it again."""
        self.seconds["lightning"].append(now() - self.start)
        # In turns the one and the other first, so that each follows each of the others as often.
        for name, loop in sorted(self.others.items(), reverse=bool(trainer.global_step % 2)):
            start = now()
            next(loop)
            self.seconds[name].append(now() - start)
        self.start = now()

    def median_ms(self, name: str) -> float:
        """Milliseconds of a step of one of the loops."""
        return 1000 * statistics.median(self.seconds[name][WARM_UP:])


def write_cache(folder: Path, codec: Codec, images: Tensor, labels: Tensor) -> None:
    """The images' latents, as ``dgs predict`` writes them."""
    mean, logvar = (None if t is None else t.cpu().half() for t in encode_all(codec, images))
    assert mean is not None
    channels, height, width = mean.shape[1:]
    settings = CacheSettings("random", "none", (channels, height, width), logvar is not None, 1, "float16")
    records = [ImageRecord(f"{label}/{i:05d}.png", str(label)) for i, label in enumerate(labels.tolist())]
    write_shard(
        folder, settings.key(""), torch.arange(len(images)), mean[:, None], None if logvar is None else logvar[:, None]
    )
    finish_cache(folder, settings, records, "")


def encode_all(codec: Codec, images: Tensor) -> tuple[Tensor, Tensor | None]:
    posteriors = [codec.encode(some) for some in torch.split(images, 8)]
    logvars = [p.logvar for p in posteriors if p.logvar is not None]
    return torch.cat([p.mean for p in posteriors]), torch.cat(logvars) if logvars else None


def measure(
    size: Size,
    batch: int,
    memory: int,
    steps: int,
    precision: str | None,
    compile: bool = False,
    pretrain: bool = False,
) -> dict[str, float]:
    """Let the loops take turns."""
    gpu = DEVICE.type == "cuda"
    torch.manual_seed(0)
    labels = torch.arange(8 * batch) % CLASSES
    images = torch.rand(len(labels), size.channels, size.image_size, size.image_size) * 2 - 1
    images, labels, codec = images.to(DEVICE), labels.to(DEVICE), size.codec().to(DEVICE)
    base = DiT(DiTConfig(num_classes=CLASSES, **size.dit), [str(c) for c in range(CLASSES)])
    initialise(base, 0)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        write_cache(root / "cache", codec, images, labels)
        save_dit(base, root / "base")
        how: dict[str, Any] = {"dit": str(root / "base"), "compile": compile}
        task: DiffusionTask
        if pretrain:
            task, memory = DiffusionTask(train="full", **how), 0
        else:
            task = MinimaxTask(CriteriaSettings(memory_size=memory), **how)
            add_difffit(base)
            mark_trainable(base, "difffit")
        reference = plain_loop(base.to(DEVICE).train(), codec, images, labels, batch, memory)
        data = LatentDataModule(str(root / "cache"), batch_size=batch)
        turns = TakeTurns(reference, data)
        trainer = quiet_trainer(
            max_steps=WARM_UP + steps,
            default_root_dir=root,
            precision=precision or ("bf16-mixed" if gpu else "32-true"),
            callbacks=[turns],
            log_every_n_steps=10**9,
        )
        trainer.fit(task, data)
    own, bare, plain = (turns.median_ms(name) for name in ("lightning", "bare", "reference"))
    figures = {
        "ms_per_step": own,
        "reference_ms_per_step": plain,
        "ratio": plain / own,
        "lightning_overhead": own / bare - 1,
    }
    if gpu:
        figures["model_flop_utilisation"] = step_flops(task, batch) / (own / 1000) / matrix_rate()
    return figures


def step_flops(task: DiffusionTask, batch: int) -> float:
    """Floating-point operations of the model in one step, forward and backward."""
    config, device = task.dit.config, task.device
    x = torch.randn(batch, config.in_channels, config.input_size, config.input_size, device=device)
    t = torch.zeros(batch, dtype=torch.long, device=device)
    with FlopCounterMode(display=False) as counter:
        task.dit(x, t, t).sum().backward()
    return float(counter.get_total_flops())


def main(argv: Sequence[str] | None = None) -> None:
    options = parser(__doc__)
    options.add_argument("--size", choices=list(SIZES), default="imagewoof128")
    options.add_argument("--batch", type=int, help="latents of a batch (default: 8, digits: 64)")
    options.add_argument("--memory", type=int, default=64, help="latents that are remembered of each class")
    options.add_argument("--steps", type=int, help="steps that are timed")
    options.add_argument("--precision", help="of the first two loops (default: bf16-mixed on a GPU, else 32-true)")
    options.add_argument("--pretrain", action="store_true", help="train all parameters, without criteria")
    options.add_argument("--compile", action="store_true", help="compile the model of the first two loops")
    args = options.parse_args(argv)
    size = SIZES[args.size]
    batch, steps = args.batch or size.batch, args.steps or size.steps
    show(measure(size, batch, args.memory, steps, args.precision, args.compile, args.pretrain), args.json)


if __name__ == "__main__":
    main()
