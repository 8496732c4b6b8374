"""Seconds, memory and bytes of what a run of ImageNet-1K does beside its networks, with made-up scores and latents.

    python benchmarks/imagenet_scale.py --part PART [--classes 10 100 1000] [--json]

At 1,000 classes there are the 1,281,167 originals, a pool of 250 images for each class, and 50 images to select. Every
file is written and read as a run does it, and the bytes are those of the files that a part leaves. Each part is a
process of its own for each number of classes, and what it starts from is made by another one before: its peak memory is
its own, with all libraries, and with the pages of mapped latents, which the system takes back where it needs them.

- ``scores`` writes the scores of originals and pool, and reads them.
- ``selection`` is ``dgs select`` with the preset ``released``.
- ``latents`` writes the latents of 1/50 of the images, in float16 and without mirror images, and reads an epoch.
- ``centers`` is ``dgs centers`` for DAG with 1/10 of the classes: 50 centres of 1,300 latents of 4,096 numbers for each
  class, in 10 intervals.
- ``requests`` lists the images of the pool in batches.
- ``report`` is ``dgs report`` with one set.
"""

import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import yaml
from PIL import Image
from program import Figures, parser, peak_mb, show

from dgs_lightning.commands.centers import centers
from dgs_lightning.commands.report import report
from dgs_lightning.commands.select import select
from dgs_lightning.data.cards import write_card
from dgs_lightning.data.classes import class_list
from dgs_lightning.data.folders import read_scores
from dgs_lightning.data.latents import CacheSettings, finish_cache, write_shard
from dgs_lightning.data.records import ImageRecord, require_scores, write_manifest
from dgs_lightning.datamodules.latents import LatentDataModule
from dgs_lightning.datamodules.requests import RequestDataModule
from dgs_lightning.files import write_json
from dgs_lightning.runs import layout
from dgs_lightning.runs.layout import SetName, Training

CLASSES, ORIGINALS, POOL, IPC = 1000, 1_281_167, 250, 50
LATENTS_OF_CLASS, SHAPE, SHARD = 1300, (4, 32, 32), 1024
ESTIMATOR, ROW = "torchvision:resnet50@0123456789ab", "dit_dgs"
ORIGINAL_IMAGES, POOL_IMAGES = "data/train", "pools/dit"


# ---- what the parts start from -----------------------------------------------------------------------------------


def records_of(counts: Mapping[str, int], seed: int) -> Iterator[ImageRecord]:
    """Scored images of each label."""
    rng = np.random.default_rng(seed)
    for label, count in counts.items():
        for index, difficulty in enumerate(rng.beta(0.4, 0.8, count).tolist()):
            name = f"{label}/{index:05d}.png"
            yield ImageRecord(name, label, difficulty=difficulty, estimator=ESTIMATOR, predicted=label)


def originals(classes: int) -> dict[str, int]:
    """Number of originals of each of the first classes."""
    total = ORIGINALS * classes // CLASSES
    return {
        label: total // classes + (place < total % classes)
        for place, label in enumerate(class_list("imagenet1k")[:classes])
    }


def write_scores(folder: Path, counts: Mapping[str, int], seed: int) -> None:
    """Scores of some images, as ``ScoreWriter`` leaves them."""
    folder.mkdir(parents=True)
    write_manifest(folder, records_of(counts, seed), durable=True)
    write_card(folder, {"kind": "scores", "images": sum(counts.values())}, durable=True)


def write_files(folder: Path, counts: Mapping[str, int]) -> None:
    """Class folders of images. The files of a class are links to one file, so that they take no room."""
    for label, count in counts.items():
        (folder / label).mkdir(parents=True)
        first = folder / label / "00000.png"
        Image.fromarray(np.full((8, 8), len(label), np.uint8)).save(first)
        for index in range(1, count):
            (folder / label / f"{index:05d}.png").hardlink_to(first)


def both_scores(classes: int) -> None:
    """Scores of originals and pool."""
    write_scores(Path(layout.scores("original")), originals(classes), 0)
    write_scores(Path(layout.scores("dit")), dict.fromkeys(originals(classes), POOL), 1)


def images_and_scores(classes: int) -> None:
    """Images and scores of originals and pool."""
    both_scores(classes)
    write_files(Path(ORIGINAL_IMAGES), originals(classes))
    write_files(Path(POOL_IMAGES), dict.fromkeys(originals(classes), POOL))


def finished_run(classes: int) -> None:
    """A run with one set and its training."""
    images_and_scores(classes)
    selection(classes)
    settings = {"title": "ImageNet-1K", "methods": [ROW], "ipc": IPC, "networks": ["resnet18"], "classes": "imagenet1k"}
    Path(layout.EXPERIMENT).write_text(yaml.safe_dump(settings), encoding="utf-8")
    training = str(Training(SetName(ROW, IPC), "resnet18", 0))
    write_json(Path(training, layout.RESULT), {"accuracy_last": 0.5, "accuracy_best": 0.5, "seed": 0})


def write_latents(folder: Path, counts: Mapping[str, int]) -> None:
    """A cache of random latents."""
    import torch

    folder.mkdir(parents=True)
    settings = CacheSettings("codec", "256 px", SHAPE, posterior=False, flips=1, dtype="float16")
    records, key = sorted(records_of(counts, 0), key=lambda record: record.file_name), settings.key("images")
    noise = torch.Generator().manual_seed(0)
    for images in torch.split(torch.arange(len(records)), SHARD):
        write_shard(folder, key, images, torch.randn(len(images), 1, *SHAPE, generator=noise).half(), None)
    finish_cache(folder, settings, records, "images")


def latents_and_scores(classes: int) -> None:
    """Latents and scores of 1/10 of the classes."""
    counts = dict.fromkeys(originals(max(1, classes // 10)), LATENTS_OF_CLASS)
    write_latents(Path(layout.LATENTS), counts)
    write_scores(Path(layout.scores("original")), counts, 0)


def nothing(classes: int) -> None:
    """Nothing."""


# ---- the parts ---------------------------------------------------------------------------------------------------


def scores(classes: int) -> None:
    """Write and read scores."""
    both_scores(classes)
    for name in ("original", "dit"):
        folder = Path(layout.scores(name))
        require_scores(list(read_scores(folder).values()), folder)


def selection(classes: int) -> None:
    """Select a set from the pool."""
    select(
        layout.distilled(SetName(ROW, IPC)),
        pool=POOL_IMAGES,
        pool_scores=layout.scores("dit"),
        original=ORIGINAL_IMAGES,
        original_scores=layout.scores("original"),
        ipc=IPC,
        smoothing="released",
    )


def latents(classes: int) -> None:
    """Write latents, and read each once in batches."""
    counts = {label: count // 50 for label, count in originals(classes).items()}
    write_latents(Path(layout.LATENTS), counts)
    data = LatentDataModule(layout.LATENTS, batch_size=64)
    data.setup("fit")
    for _ in data.train_dataloader():
        pass


def cluster(classes: int) -> None:
    """Centres of DAG."""
    Path(layout.CENTERS).mkdir()
    centers(f"{layout.CENTERS}/dag.safetensors", latents=layout.LATENTS, scores=layout.scores("original"), ipc=IPC)


def requests(classes: int) -> None:
    """All requests, in batches."""
    data = RequestDataModule(images_per_class=POOL)
    model: Any = SimpleNamespace(labels=class_list("imagenet1k")[:classes])
    data.trainer = SimpleNamespace(lightning_module=model, global_rank=0, world_size=1)  # type: ignore[assignment]
    for _ in data.predict_dataloader():
        pass


def page(classes: int) -> None:
    """Tables, figures and page."""
    report(["."])


@dataclass(frozen=True)
class Part:
    """What is measured, after what it starts from was made; both take a number of classes, and work in this folder."""

    prepare: Callable[[int], None]
    run: Callable[[int], None]
    leaves: tuple[str, ...]


PARTS = {
    "scores": Part(nothing, scores, (layout.SCORES,)),
    "selection": Part(images_and_scores, selection, (layout.DISTILLED,)),
    "latents": Part(nothing, latents, (layout.LATENTS,)),
    "centers": Part(latents_and_scores, cluster, (layout.CENTERS,)),
    "requests": Part(nothing, requests, ()),
    "report": Part(finished_run, page, layout.left_by(layout.REPORT)),
}


def measure(name: str, classes: int) -> Figures:
    """Seconds, peak memory in megabytes, and megabytes on the disk of a part."""
    part = PARTS[name]
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        apart(part.prepare, classes)
        seconds, peak = apart(timed, part.run, classes)
        left = sum(path.stat().st_size for name in part.leaves for path in files_in(Path(name)))
    return {f"seconds_{classes}": seconds, f"peak_mb_{classes}": peak, f"disk_mb_{classes}": left / 1e6}


def apart(function: Callable[..., Any], *arguments: object) -> Any:  # noqa: ANN401  (what the function returns)
    """Call a function in a process of its own."""
    with multiprocessing.get_context("fork").Pool(1) as processes:
        return processes.apply(function, arguments)


def timed(run: Callable[[int], None], classes: int) -> tuple[float, float]:
    """Seconds of a part, and the peak memory of this process."""
    start = time.monotonic()
    run(classes)
    return time.monotonic() - start, peak_mb()


def files_in(place: Path) -> list[Path]:
    """A file, or all files of a folder."""
    return [path for path in place.rglob("*") if path.is_file()] if place.is_dir() else [place]


def main(argv: Sequence[str] | None = None) -> None:
    options = parser(__doc__)
    options.add_argument("--part", choices=list(PARTS), required=True)
    options.add_argument("--classes", type=int, nargs="+", default=[10, 100, CLASSES])
    args = options.parse_args(argv)
    show({name: value for classes in args.classes for name, value in measure(args.part, classes).items()}, args.json)


if __name__ == "__main__":
    main()
