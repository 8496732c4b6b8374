"""Images a second of the scoring of difficulty, beside a plain reference with the same estimator in the same run.

    python benchmarks/scoring.py [--size digits|imagenet] [--precision 32-true|bf16-true] [--images N] [--json]

Both read image files and write lines of metadata. The reference is the loop that you would write for Eq. 6 with PIL and
torchvision: it opens an image, prepares it as torchvision says, asks the network in float32, and writes a line; then it
takes the next image. The two take turns, and the numbers are medians. In float32, both must find the same difficulties;
in bfloat16 (``score/bf16.yaml``), the table has the largest difference. The estimators are that of the quickstart and
the paper's ResNet-50. Their weights are random. ResNet-50's batch norm is that of the images, and its logits are as
large as a trained network's, so that the difficulties lie between 0 and 1.
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
from program import rate_parser, rates, show
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models import ResNet50_Weights

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
TOLERANCE = 1e-3 if GPU else 1e-4  # in float32
UNLIKELY = 20.0  # how much lower the logits of classes are that no image has
SURE = 3.0  # standard deviation of the logits of an image


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
    inputs = ResNet50_Weights.IMAGENET1K_V1.transforms()
    paths = sorted((folder / "images").rglob("*.png"))[:16]
    network = sure(build_network(name, 1000, 224), torch.stack([inputs(Image.open(path)) for path in paths]))
    save_file(network.state_dict(), weights)
    return name, str(weights)


@torch.no_grad()
def sure(network: nn.Module, images: Tensor) -> nn.Module:
    """A network with random weights whose activations and logits on some images are of a trained network's size."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the mean over the batches, of which there is one
    network.train()(images)
    logits = network.eval()(images)
    last = [module for module in network.modules() if isinstance(module, nn.Linear)][-1]
    last.weight *= SURE / logits.std(dim=1).mean()
    last.bias.sub_(UNLIKELY)
    last.bias[::100].add_(UNLIKELY)  # the classes of the images
    return network


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


def measure(size: Size, images: int, batch_size: int, repetitions: int, precision: str) -> dict[str, float]:
    """Images a second of both, alternating, and the largest difference of their difficulties.

    Raises:
        RuntimeError: If they find different difficulties in float32.
    """
    keep_freed_memory()  # as `dgs predict` does
    seconds: dict[str, list[float]] = {"own": [], "reference": []}
    apart = 0.0
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
            trainer = quiet_trainer(precision=precision, callbacks=[ScoreWriter(str(scores))])
            with timed(seconds["own"]):
                trainer.predict(own, datamodule=data)
            records = read_manifest(scores)[: size.reference_images]
            with timed(seconds["reference"]), torch.inference_mode():
                expected = reference(plain, root / "images", records, root / "reference.jsonl")
            apart = max(apart, difference(records, expected))
            if precision == "32-true" and apart > TOLERANCE:
                raise RuntimeError(f"a difficulty differs by {apart:.1e} from that of the reference")
    own_seconds, reference_seconds = (statistics.median(times[1:]) for times in seconds.values())  # the first warms up
    return {**rates(images / own_seconds, len(records) / reference_seconds), "largest_difference": apart}


def difference(records: Sequence[ImageRecord], expected: Sequence[float]) -> float:
    """Largest difference of the difficulties of some images from those of the reference."""
    pairs = zip(records, expected, strict=True)
    return max(abs((record.difficulty or 0.0) - difficulty) for record, difficulty in pairs)


def main(argv: Sequence[str] | None = None) -> None:
    args = rate_parser(__doc__, SIZES, "digits", ["32-true", "bf16-true"], 256).parse_args(argv)
    size = SIZES[args.size]
    show(measure(size, args.images or size.images, args.batch_size, args.repetitions, args.precision), args.json)


if __name__ == "__main__":
    main()
