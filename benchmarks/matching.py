"""Time of a step of DM, or of a round of IDC-1, beside a plain reference loop in the same run.

    python benchmarks/matching.py [--method dm|idc1] [--size digits|32px|imagenet] [--steps N] [--peak] [--json]

The task under Lightning and the reference take turns, step by step. The times are medians. The reference is the loop
that you would write from the papers with autograd. DM builds a new network, adds the distances of the mean features of
all classes, and goes back through all at once. IDC-1 goes from class to class, takes the gradients of all weights for
real and for learned images, and moves the images; then it trains the network. Images, networks and draws are the same,
and the program stops if both do not move the images by the same first step. ``--peak`` measures the
peak memory of a step instead. The images are random.
"""

import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
import torch.nn.functional as F
from accelerator import DEVICE, now, quiet_trainer
from PIL import Image
from program import parser, peak_mb, show
from torch import Tensor, nn

from dgs_lightning.commands.process import keep_freed_memory
from dgs_lightning.data.augmentation import cutmix, normalise
from dgs_lightning.datamodules.real_images import RealImageDataModule
from dgs_lightning.matching.siamese import apply
from dgs_lightning.tasks.distribution_matching import DistributionMatchingTask
from dgs_lightning.tasks.gradient_matching import GradientMatchingTask
from dgs_lightning.tasks.learned_images import ImageSettings, LearnedImages

CLASSES, WARM_UP = 10, 1
SAME = 0.01  # most difference of two first steps, as a share of a step


@dataclass(frozen=True)
class Size:
    """One of the sizes measured."""

    side: int
    channels: int
    depth: int  # of the ConvNet
    width: int
    images: int  # of a class
    batch_real: int  # of a step of DM
    ipc: int
    steps: int


SIZES = {
    "digits": Size(8, 1, depth=2, width=64, images=140, batch_real=64, ipc=10, steps=30),
    "32px": Size(32, 3, depth=3, width=128, images=256, batch_real=256, ipc=10, steps=3),
    "imagenet": Size(224, 3, depth=6, width=128, images=8, batch_real=4, ipc=4, steps=3),
}


# ---- the references ----------------------------------------------------------------------------------------------


class PlainConvNet(nn.Module):
    """ConvNet-d as published."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        for channels in (size.channels, *[size.width] * (size.depth - 1)):
            norm = nn.GroupNorm(size.width, size.width)
            blocks += [nn.Conv2d(channels, size.width, 3, padding=1), norm, nn.ReLU(), nn.AvgPool2d(2)]
        self.embed = nn.Sequential(*blocks, nn.Flatten())
        self.classifier = nn.Linear(size.width * (size.side // 2**size.depth) ** 2, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.classifier(self.embed(x))
        return logits


@dataclass
class Reference:
    """What a reference starts from: everything that it computes with is on the device.

    Args:
        task: Task whose settings and draws it has.
        size: Size of images and network.
    """

    task: LearnedImages
    size: Size

    def __post_init__(self) -> None:
        task = self.task
        pixels, self.classes = task.data.real(torch.arange(task.data.train_images))
        self.real = normalise(pixels, task.mean, task.std).to(DEVICE)
        self.images = task.images.detach().clone().requires_grad_()
        self.optimizer = torch.optim.SGD([self.images], task.lr, task.learned.momentum)

    def network(self, number: int) -> PlainConvNet:
        """A new network, with the initial weights of the task's."""
        torch.manual_seed(self.task.draws.network(number))
        return PlainConvNet(self.size).to(DEVICE)

    def dm(self) -> Iterator[None]:
        """Distribution matching: one step each time that it is asked for the next."""
        task = self.task
        for step in count():
            network = self.network(step).requires_grad_(False)
            loss = torch.zeros((), device=DEVICE)
            for number, label in enumerate(task.labels):
                positions = task.data.positions[number]
                draws = task.draws.augmentation(task.strategy, task.side, label, step)
                real = self.real[positions[task.draws.real(label, len(positions), task.batch_real, step)]]
                target = network.embed(apply(real, draws)).detach()
                own = network.embed(apply(self.images[task.rows(number)], draws))
                loss = loss + (target.mean(0) - own.mean(0)).square().sum()
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            yield

    def idc1(self) -> Iterator[None]:
        """IDC-1: one round each time that it is asked for the next."""
        task = self.task
        assert isinstance(task, GradientMatchingTask)
        for step in count():
            if step % task.fitting.rounds == 0:
                network = self.network(step // task.fitting.rounds)
                trained = task.fitting.optimizer(network)
                self.images.data.clamp_(0, 1)
            for number, label in enumerate(task.labels):
                positions = task.data.positions[number]
                draws = task.draws.augmentation(task.strategy, task.side, label, step)
                real = self.real[positions[task.draws.in_passes(label, len(positions), task.batch_real, step)]]
                own = normalise(self.images[task.rows(number)], task.mean, task.std)
                augmented = torch.split(apply(torch.cat([real, own]), draws), [len(real), len(own)])
                target, found = (gradients(network, part, number) for part in augmented)
                pairs = [(t.detach(), f) for t, f in zip(target, found, strict=True) if t.dim() == 4]
                distance = torch.stack([(t - f).abs().sum() for t, f in pairs]).sum()
                self.optimizer.zero_grad()
                distance.backward()  # type: ignore[no-untyped-call]
                self.optimizer.step()
            self._train(task, network, trained, step)
            yield

    def _train(self, task: GradientMatchingTask, network: nn.Module, trained: torch.optim.SGD, step: int) -> None:
        """Train the network on real images after a round."""
        fitting, images = task.fitting, len(self.real)
        batches = min(fitting.batches(fitting.seen), fitting.batches(images))
        strategy = [entry for entry in task.strategy if entry != "cutout"]
        for place in range(step * batches, (step + 1) * batches):
            chosen = task.draws.in_passes("network", images, fitting.batch_size, place, whole=False)
            classes = self.classes[chosen].to(DEVICE)
            draws = task.draws.augmentation(strategy, task.side, "network", place, count=len(chosen))
            batch, partners, own = apply(self.real[chosen], draws), classes, 1.0
            if draw := task.draws.cutmix(fitting.cutmix, len(chosen), task.side, "network", place):
                batch, own = cutmix(batch, draw)
                partners = classes[draw.partners.to(DEVICE)]
            logits = network(batch)
            loss = own * F.cross_entropy(logits, classes) + (1 - own) * F.cross_entropy(logits, partners)
            trained.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            trained.step()


def gradients(network: nn.Module, images: Tensor, number: int) -> tuple[Tensor, ...]:
    """Gradients of all weights on images of one class; their own gradients can be taken."""
    loss = F.cross_entropy(network(images), torch.full((len(images),), number, device=DEVICE))
    return torch.autograd.grad(loss, list(network.parameters()), create_graph=images.requires_grad)


# ---- measuring ---------------------------------------------------------------------------------------------------


class TakeTurns(L.Callback):
    """Times the steps of a fit, and after each of them one step of the reference."""

    def __init__(self, size: Size, method: str) -> None:
        self.size, self.method = size, method
        self.seconds: dict[str, list[float]] = {"own": [], "reference": []}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the reference and the clock."""
        assert isinstance(pl_module, LearnedImages)
        self.reference, self.begun = Reference(pl_module, self.size), pl_module.images.detach().clone()
        self.loop: Iterator[None] = getattr(self.reference, self.method)()
        self.start = now()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: object) -> None:
        """Stop the clock, let the reference take a step, and start it again."""
        assert isinstance(pl_module, LearnedImages)
        self.seconds["own"].append(now() - self.start)
        start = now()
        next(self.loop)
        self.seconds["reference"].append(now() - start)
        if trainer.global_step == 1:
            check_same(pl_module.images.detach() - self.begun, self.reference.images.detach() - self.begun)
        self.start = now()

    def median_ms(self, name: str) -> float:
        """Milliseconds of a step of one of the two."""
        return 1000 * statistics.median(self.seconds[name][WARM_UP:])


class Peaks(L.Callback):
    """Measures the peak memory of a step of a fit, and then that of a step of the reference, which needs more."""

    def __init__(self, size: Size, method: str) -> None:
        self.size, self.method = size, method
        self.mb: dict[str, float] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Note what is in memory before the step."""
        assert isinstance(pl_module, LearnedImages)
        self.reference, self.before = Reference(pl_module, self.size), most_mb()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: object) -> None:
        """Note the two peaks."""
        self.mb["peak_mb"] = most_mb() - self.before
        next(getattr(self.reference, self.method)())
        self.mb["reference_peak_mb"] = most_mb() - self.before


def most_mb() -> float:
    """Most memory so far, in megabytes: of the GPU, or of this process."""
    return torch.cuda.max_memory_allocated() / 1e6 if DEVICE.type == "cuda" else peak_mb()


def check_same(own: Tensor, reference: Tensor) -> None:
    """Stop if two first steps are not the same but for rounding."""
    apart = float((own - reference).norm() / reference.norm())
    if not apart < SAME:
        sys.exit(f"the first steps differ by {apart:.1%}")


def write_images(folder: Path, size: Size) -> None:
    """Random images in class folders."""
    random = np.random.default_rng(0)
    shape = (size.side, size.side) if size.channels == 1 else (size.side, size.side, size.channels)
    for label in range(CLASSES):
        (folder / str(label)).mkdir(parents=True)
        for number in range(size.images):
            pixels = random.integers(0, 256, shape, dtype=np.uint8)
            Image.fromarray(pixels).save(folder / str(label) / f"{number:05d}.png")


def task_of(method: str, size: Size, ipc: int) -> LearnedImages:
    """The task of a method, with published settings."""
    network: dict[str, Any] = {"network": f"convnet{size.depth}", "width": size.width}
    if method == "idc1":
        return GradientMatchingTask("idc", images=ImageSettings(ipc, lr=1e-4), **network)
    images = ImageSettings(ipc, lr=1.0, range="free")
    return DistributionMatchingTask(images=images, batch_real=size.batch_real, **network)


def measure(method: str, size: Size, ipc: int, steps: int, peak: bool) -> dict[str, float]:
    """Let the two take turns, or measure their memory."""
    make: Callable[[Size, str], TakeTurns | Peaks] = Peaks if peak else TakeTurns
    measuring = make(size, method)
    with tempfile.TemporaryDirectory() as name:
        write_images(Path(name, "real"), size)
        trainer = quiet_trainer(
            max_steps=1 if peak else WARM_UP + steps,
            default_root_dir=name,
            callbacks=[measuring],
            log_every_n_steps=10**9,
        )
        trainer.fit(task_of(method, size, ipc), RealImageDataModule(str(Path(name, "real"))))
    if isinstance(measuring, Peaks):
        return {**measuring.mb, "ratio": measuring.mb["reference_peak_mb"] / measuring.mb["peak_mb"]}
    own, reference = (measuring.median_ms(name) for name in ("own", "reference"))
    return {"ms_per_step": own, "reference_ms_per_step": reference, "ratio": reference / own}


def main(argv: Sequence[str] | None = None) -> None:
    options = parser(__doc__)
    options.add_argument("--method", choices=["dm", "idc1"], default="dm")
    options.add_argument("--size", choices=list(SIZES), default="digits")
    options.add_argument("--ipc", type=int, help="images of a class that are learned")
    options.add_argument("--steps", type=int, help="steps that are timed")
    options.add_argument("--peak", action="store_true", help="measure the peak memory of a step instead of its time")
    args = options.parse_args(argv)
    size = SIZES[args.size]
    if not args.peak:
        keep_freed_memory()  # as `dgs fit` does
    show(measure(args.method, size, args.ipc or size.ipc, args.steps or size.steps, args.peak), args.json)


if __name__ == "__main__":
    main()
