"""Speed of downstream training on a distilled set, beside a plain reference in the same run.

    python benchmarks/evaluation.py [--size 32|64|224] [--networks NAME ...] [--json]

Both train the same network on the same 100 images by the published protocol, for the same number of steps. Ours is
``ClassificationTask`` under Lightning. The reference is the usual training script: ``ImageFolder`` and transforms of
torchvision in a DataLoader, which decode, resize and augment the images one by one in every epoch, CutMix and a loop
with SGD. At every size, the files are PNG images of 256 pixels, as DiT-XL/2 generates them. Each
repetition is a process of its own, and the two take turns. The first epoch is not counted, and the numbers are medians
of the others. For several networks, the JSON has the numbers of the smallest ratio first, then those of each network.
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path

import lightning as L
import torch
import torch.nn.functional as F
from accelerator import DEVICE, now, quiet_trainer
from noise import write_images
from program import parser, rates
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import (
    CenterCrop,
    Compose,
    Normalize,
    RandomHorizontalFlip,
    RandomResizedCrop,
    Resize,
    ToTensor,
)

from dgs_lightning.commands.process import keep_freed_memory
from dgs_lightning.datamodules.images import ImageDataModule
from dgs_lightning.models.registry import build_network
from dgs_lightning.tasks.classification import ClassificationTask

CLASSES, IPC, BATCH, FILE_SIZE = 10, 10, 64, 256
NETWORKS = {32: ["convnet3", "resnet_ap10"], 64: ["convnet6"], 224: ["resnet_ap10"]}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
GPU = DEVICE.type == "cuda"


# ---- ours --------------------------------------------------------------------------------------------------------


class Clock(L.Callback):
    """Times at which epochs begin, and the end."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """An epoch begins."""
        self.times.append(now())

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The last one ends."""
        self.times.append(now())


def ours(folder: Path, network: str, size: int, epochs: int) -> list[float]:
    keep_freed_memory()  # as `dgs fit` does
    clock = Clock()
    trainer = quiet_trainer(
        max_epochs=epochs, limit_val_batches=0, default_root_dir=folder.parent / "run", callbacks=[clock]
    )
    images = ImageDataModule(train=str(folder), val=str(folder), image_size=size, channels=3, batch_size=BATCH)
    trainer.fit(ClassificationTask(network), images)
    return clock.times


# ---- the reference -----------------------------------------------------------------------------------------------


def jitter(image: Tensor) -> Tensor:
    for kind in random.sample(("brightness", "contrast", "saturation"), 3):
        grey = 0.299 * image[0] + 0.587 * image[1] + 0.114 * image[2]
        reference = {"brightness": torch.zeros(()), "contrast": grey.mean(), "saturation": grey}[kind]
        image = image.lerp(reference.expand_as(image), random.uniform(-0.4, 0.4))
    return image


def light(image: Tensor) -> Tensor:
    values = torch.tensor([0.2175, 0.0188, 0.0045])
    vectors = torch.tensor([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])
    return image + (vectors @ (torch.randn(3) * 0.1 * values))[:, None, None]


def cutmix(images: Tensor) -> tuple[Tensor, Tensor, float]:
    size, kept, partners = images.shape[-1], random.random(), torch.randperm(len(images), device=images.device)
    half = int(size * (1 - kept) ** 0.5) // 2
    y, x = random.randrange(size), random.randrange(size)
    top, bottom, left, right = max(y - half, 0), min(y + half, size), max(x - half, 0), min(x + half, size)
    images[:, :, top:bottom, left:right] = images[partners, :, top:bottom, left:right]
    return images, partners, 1 - (bottom - top) * (right - left) / size**2


def reference(folder: Path, network: str, size: int, epochs: int, workers: int) -> list[float]:
    crop = [RandomResizedCrop(size, scale=(0.5, 1), antialias=True), RandomHorizontalFlip()]
    transform = Compose([Resize(size), CenterCrop(size), ToTensor(), *crop, jitter, light, Normalize(MEAN, STD)])
    images = ImageFolder(str(folder), transform)
    loader = DataLoader(images, BATCH, shuffle=True, num_workers=workers, persistent_workers=workers > 0)
    model = build_network(network, CLASSES, size).to(DEVICE)
    optimiser = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, weight_decay=5e-4)
    times = []
    for _ in range(epochs):
        times.append(now())
        for batch, classes in loader:
            mixed, partners, own = cutmix(batch.to(DEVICE))
            y = classes.to(DEVICE)
            logits = model(mixed)
            loss = own * F.cross_entropy(logits, y) + (1 - own) * F.cross_entropy(logits, y[partners])
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    return [*times, now()]


# ---- measuring ---------------------------------------------------------------------------------------------------


def images_per_second(run: Callable[[], list[float]]) -> float:
    """Of the median epoch after the first."""
    seconds = [after - before for before, after in pairwise(run())][1:]
    return CLASSES * IPC / statistics.median(seconds)


def in_a_process(arguments: list[str]) -> float:
    """What this file prints with these arguments, in a fresh process."""
    answer = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True, check=True)
    return float(answer.stdout.splitlines()[-1])


def compare(folder: Path, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Medians for each network, ours and the reference's in turn."""
    results = {}
    for network in options.networks or NETWORKS[options.size]:
        common = ["--folder", str(folder), "--size", str(options.size), "--epochs", str(options.epochs), "--networks"]
        arms = ("ours", "reference")
        pairs = [
            [in_a_process([*common, network, "--workers", str(options.workers), "--arm", arm]) for arm in arms]
            for _ in range(options.repetitions)
        ]
        fast, plain = map(statistics.median, zip(*pairs, strict=True))
        results[network] = rates(fast, plain)
    return results


def main() -> None:
    command = parser(__doc__)
    command.add_argument("--size", type=int, choices=NETWORKS, default=64, help="side of the images in pixels")
    command.add_argument("--networks", nargs="+", help="default: " + str(NETWORKS))
    command.add_argument(
        "--epochs", type=int, default=20 if GPU else 5, help="epochs of two steps, the first unmeasured"
    )
    command.add_argument("--repetitions", type=int, default=3)
    command.add_argument("--workers", type=int, default=8 if GPU else 0, help="of the reference's DataLoader")
    command.add_argument("--arm", choices=("ours", "reference"), help=argparse.SUPPRESS)
    command.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = command.parse_args()
    if options.arm:
        warnings.simplefilter("ignore")
        run = ours if options.arm == "ours" else partial(reference, workers=options.workers)
        print(images_per_second(lambda: run(options.folder, options.networks[0], options.size, options.epochs)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "images"
        write_images(folder, [f"class{k}" for k in range(CLASSES)], CLASSES * IPC, FILE_SIZE)
        results = compare(folder, options)
    slowest = min(results.values(), key=lambda result: result["ratio"])
    if options.json:
        print(json.dumps(slowest if len(results) == 1 else {**slowest, "networks": results}))
        return
    for network, result in results.items():
        ours_, plain, ratio = result.values()
        print(f"{network} at {options.size} px: {ours_:.1f} images/s, reference {plain:.1f}, ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
