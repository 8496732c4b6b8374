"""Images a second of the scoring of difficulty, beside a plain reference with the same estimator in the same run.

    python benchmarks/scoring.py [--size digits|imagenet] [--images N] [--batch-size N] [--json]

Both read image files and write lines of metadata. The reference reads, prepares and scores one image at a time. The two
take turns, and the numbers are medians. Both must find the same difficulties. The estimators are that of the quickstart
and the paper's ResNet-50, with random weights.
"""

import json
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerator import DEVICE, quiet_trainer, timed
from noise import write_images
from PIL import Image
from program import parser, rates, show
from safetensors.torch import save_file

from dgs_lightning.callbacks.score_writer import ScoreWriter
from dgs_lightning.commands.process import keep_freed_memory
from dgs_lightning.data.classes import class_list
from dgs_lightning.data.records import ImageRecord, read_manifest
from dgs_lightning.datamodules.images import ImageDataModule, Loading
from dgs_lightning.models.classifier import ClassifierConfig, save_classifier
from dgs_lightning.models.estimator import Estimator, load_estimator
from dgs_lightning.models.registry import build_network
from dgs_lightning.tasks.scoring import ScoringTask

GPU = DEVICE.type == "cuda"
TOLERANCE = 1e-3 if GPU else 1e-6


@dataclass(frozen=True)
class Size:
    """Images with their estimator, and how many each side scores in a repetition."""

    labels: tuple[str, ...]
    side: int
    mode: str
    estimator: Callable[[Path], tuple[str, str | None]]
    images: int
    reference_images: int


DIGITS = tuple(map(str, range(10)))


def small_estimator(folder: Path) -> tuple[str, None]:
    """Weights folder of the quickstart's estimator."""
    config = ClassifierConfig("convnet1", DIGITS, image_size=8, channels=1, mean=(0.5,), std=(0.5,), width=16)
    save_classifier(config.build(), config, folder / "estimator")
    return str(folder / "estimator"), None


def resnet50(folder: Path) -> tuple[str, str]:
    """Name and weights file of the paper's estimator."""
    name, weights = "torchvision:resnet50", folder / "resnet50.safetensors"
    save_file(build_network(name, 1000, 224).state_dict(), weights)
    return name, str(weights)


SIZES = {
    "digits": Size(DIGITS, 8, "L", small_estimator, 1000, 200),
    "imagenet": Size(class_list("imagenet1k")[::100], 256, "RGB", resnet50, 2000 if GPU else 32, 100 if GPU else 8),
}


def reference(estimator: Estimator, folder: Path, records: Sequence[ImageRecord], output: Path) -> list[float]:
    """Difficulties of some images, written out plainly."""
    difficulties = []
    with output.open("w", encoding="utf-8") as lines:
        for record in records:
            with Image.open(folder / record.file_name) as image:
                x = estimator.preprocess(image.convert("RGB"))
            probabilities = estimator(x[None].to(DEVICE))[0].double().softmax(0)
            difficulties.append(1 - float(probabilities[estimator.labels.index(record.label)]))
            lines.write(json.dumps({"file_name": record.file_name, "difficulty": difficulties[-1]}) + "\n")
    return difficulties


def measure(size: Size, images: int, batch_size: int, repetitions: int) -> dict[str, float]:
    """Images a second of both, alternating.

    Raises:
        RuntimeError: If they find different difficulties.
    """
    keep_freed_memory()  # as `dgs predict` does
    seconds: dict[str, list[float]] = {"own": [], "reference": []}
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        write_images(root / "images", size.labels, images, size.side, size.mode)
        torch.manual_seed(0)
        name, weights = size.estimator(root)
        plain, own = load_estimator(name, weights).to(DEVICE), ScoringTask(name, weights, check_accuracy=False)
        for repetition in range(repetitions + 1):
            scores = root / f"own{repetition}"
            loading = Loading(num_workers=8 if GPU else 0)
            data = ImageDataModule(predict=str(root / "images"), val_batch_size=batch_size, loading=loading)
            trainer = quiet_trainer(callbacks=[ScoreWriter(str(scores))])
            with timed(seconds["own"]):
                trainer.predict(own, datamodule=data)
            records = read_manifest(scores)[: size.reference_images]
            with timed(seconds["reference"]), torch.inference_mode():
                expected = reference(plain, root / "images", records, root / "reference.jsonl")
            compare(records, expected)
    own_seconds, reference_seconds = (statistics.median(times[1:]) for times in seconds.values())  # the first warms up
    return rates(images / own_seconds, len(records) / reference_seconds)


def compare(records: Sequence[ImageRecord], expected: Sequence[float]) -> None:
    """Check that difficulties agree."""
    for record, difficulty in zip(records, expected, strict=True):
        if record.difficulty is None or abs(record.difficulty - difficulty) > TOLERANCE:
            raise RuntimeError(f"{record.file_name}: {record.difficulty}, by the reference {difficulty}")


def main(argv: Sequence[str] | None = None) -> None:
    options = parser(__doc__)
    options.add_argument("--size", choices=list(SIZES), default="digits")
    options.add_argument("--images", type=int, help="images in a repetition, by default as many as suit the size")
    options.add_argument("--batch-size", type=int, default=256)
    options.add_argument("--repetitions", type=int, default=5)
    args = options.parse_args(argv)
    size = SIZES[args.size]
    show(measure(size, args.images or size.images, args.batch_size, args.repetitions), args.json)


if __name__ == "__main__":
    main()
