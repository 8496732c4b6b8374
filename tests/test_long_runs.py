"""Long runs: the memory of each stage is flat, and a pool of a million images fits in two gigabytes."""

import gc
import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from PIL import Image

from dgs_lightning.callbacks.image_writer import ImageWriter
from dgs_lightning.callbacks.latent_writer import LatentWriter
from dgs_lightning.callbacks.published_length import PublishedLength
from dgs_lightning.callbacks.score_writer import ScoreWriter
from dgs_lightning.data.cards import CARD
from dgs_lightning.data.latents import CacheSettings, finish_cache, write_shard
from dgs_lightning.data.records import MANIFEST, ImageRecord, manifest_line, read_manifest
from dgs_lightning.datamodules.images import ImageDataModule
from dgs_lightning.datamodules.latents import LatentDataModule
from dgs_lightning.datamodules.requests import RequestDataModule
from dgs_lightning.models.classifier import ClassifierConfig, save_classifier
from dgs_lightning.models.dit.formats import save_dit
from dgs_lightning.models.dit.network import DiT, DiTConfig, initialise
from dgs_lightning.tasks.classification import ClassificationTask
from dgs_lightning.tasks.diffusion import AverageSettings, ModelSize
from dgs_lightning.tasks.encoding import EncodingTask
from dgs_lightning.tasks.generation import GenerationTask
from dgs_lightning.tasks.minimax import CriteriaSettings, MinimaxTask
from dgs_lightning.tasks.scoring import ScoringTask

MEGABYTE = 2**20
LEAST_GROWTH = 20 * MEGABYTE  # what fragments of freed memory may come to
LINKS = 30_000  # names that one file may have, on file systems that allow few
CLASSES = ("cat", "dog")
CONFIG = DiTConfig(input_size=4, num_classes=2, in_channels=3, hidden_size=8, depth=1, num_heads=1)
ESTIMATOR = ClassifierConfig("convnet1", CLASSES, 4, 3, (0.5,) * 3, (0.2,) * 3, width=4)
FULL = (pytest.mark.fault, pytest.mark.matrix)
LENGTHS = pytest.mark.parametrize("steps", [300, pytest.param(10_000, marks=FULL)])


class Growth(L.Callback):
    """Notes the memory of the process, and its tensors, after a third of the steps and after the last.

    Args:
        steps: Steps of the run.
    """

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.done = 0
        self.memory: list[int] = []
        self.tensors: list[int] = []

    def _count(self, *_: object) -> None:
        self.done += 1
        if self.done in (self.steps // 3, self.steps):
            gc.collect()
            self.memory.append(resident())
            self.tensors.append(sum(isinstance(thing, torch.Tensor) for thing in gc.get_objects()))

    on_train_batch_end = on_predict_batch_end = _count  # type: ignore[assignment]

    def check(self) -> None:
        """Nothing was kept of a step: neither a tensor nor its memory."""
        assert self.done == self.steps
        assert self.memory[1] - self.memory[0] < LEAST_GROWTH, self.memory
        assert self.tensors[1] - self.tensors[0] < self.steps // 10, self.tensors


def resident() -> int:
    """Bytes of the process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def trainer(folder: Path, growth: Growth, *callbacks: L.Callback, **settings: Any) -> L.Trainer:  # noqa: ANN401
    return L.Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        callbacks=[*callbacks, growth],
        default_root_dir=folder,
        **settings,
    )


def hard_linked(folder: Path, count: int) -> list[ImageRecord]:
    """An image set of one picture under so many names, and its records in the order of names."""
    records = []
    for index in range(count):
        name = f"{CLASSES[index % 2]}/{index:07d}.png"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if index % LINKS < 2:
            Image.new("RGB", (4, 4), (index % 251, 0, 0)).save(folder / name)
            source = folder / name
        else:
            os.link(source, folder / name)
        records.append(ImageRecord(name, CLASSES[index % 2]))
    return sorted(records, key=lambda record: record.file_name)


@LENGTHS
def test_training_a_dit_keeps_nothing_of_a_step(steps: int, tmp_path: Path) -> None:
    settings = CacheSettings("pixels", "none", (3, 4, 4), False, 1, "float32")
    records = [ImageRecord(f"{label}/{index}.png", label) for label in CLASSES for index in range(8)]
    cache = tmp_path / "latents"
    cache.mkdir()
    write_shard(cache, settings.key("images"), torch.arange(16), torch.randn(16, 1, 3, 4, 4), None)
    finish_cache(cache, settings, records, "images")
    size = ModelSize(hidden_size=8, depth=1, num_heads=1)
    task = MinimaxTask(CriteriaSettings(memory_size=4), size=size, average=AverageSettings(horizon=0.1))
    growth = Growth(steps)
    trainer(tmp_path, growth, max_steps=steps).fit(task, LatentDataModule(str(cache), batch_size=2))
    growth.check()


@LENGTHS
def test_training_a_classifier_keeps_nothing_of_a_step(steps: int, tmp_path: Path) -> None:
    hard_linked(tmp_path / "images", 20)
    images = str(tmp_path / "images")
    task = ClassificationTask("convnet1", width=4)
    growth = Growth(steps)
    length = PublishedLength(steps=steps, evaluations=10)
    trainer(tmp_path, growth, length, max_epochs=-1).fit(task, ImageDataModule(images, images, batch_size=2))
    growth.check()


@LENGTHS
def test_generating_keeps_nothing_of_a_batch(steps: int, tmp_path: Path) -> None:
    model = DiT(CONFIG, CLASSES)
    initialise(model, 0)
    save_dit(model, tmp_path / "dit")
    task = GenerationTask(str(tmp_path / "dit"), steps=1)
    data = RequestDataModule(images_per_class=steps // 2, batch_size=1)
    growth = Growth(steps)
    trainer(tmp_path, growth, ImageWriter(str(tmp_path / "pool"))).predict(task, data)
    growth.check()
    assert len(read_manifest(tmp_path / "pool")) == steps


@LENGTHS
def test_scoring_keeps_nothing_of_a_batch(steps: int, tmp_path: Path) -> None:
    hard_linked(tmp_path / "images", steps)
    save_classifier(ESTIMATOR.build(), ESTIMATOR, tmp_path / "estimator")
    data = ImageDataModule(predict=str(tmp_path / "images"), val_batch_size=1, image_size=4, channels=3)
    task = ScoringTask(str(tmp_path / "estimator"), check_accuracy=False)  # it is untrained
    growth = Growth(steps)
    writer = ScoreWriter(str(tmp_path / "scores"))
    trainer(tmp_path, growth, writer).predict(task, data)
    growth.check()
    assert len(read_manifest(tmp_path / "scores")) == steps


@LENGTHS
def test_encoding_keeps_nothing_of_a_batch(steps: int, tmp_path: Path) -> None:
    hard_linked(tmp_path / "images", steps)
    data = ImageDataModule(predict=str(tmp_path / "images"), val_batch_size=1, image_size=4, channels=3)
    growth = Growth(steps)
    writer = LatentWriter(str(tmp_path / "latents"), shard_images=100)
    trainer(tmp_path, growth, writer).predict(EncodingTask(), data)
    growth.check()
    assert len(list((tmp_path / "latents").glob("*.safetensors"))) == steps // 100


# ---- many images -------------------------------------------------------------------------------------------------


def peak(*arguments: str) -> int:
    """Most memory in bytes that a command of ours takes, in a process of its own."""
    code = (  # not getrusage, whose account begins with the memory of this process
        "import sys; from dgs_lightning.__main__ import main; status = main(sys.argv[1:]);"
        "print(*[line for line in open('/proc/self/status') if 'VmHWM' in line], file=sys.stderr); sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return 1024 * int(done.stderr.split()[-2])  # VmHWM: N kB


def scored(records: list[ImageRecord]) -> Iterator[str]:
    """Lines of a scored pool, difficulties spread over all intervals."""
    for number, record in enumerate(records):
        record.index, record.difficulty, record.estimator = number, number * 7919 % 10_000 / 10_000, "net@0123456789ab"
        yield manifest_line(record)


@pytest.mark.parametrize("images", [20_000, pytest.param(1_000_000, marks=FULL)])
def test_a_pool_is_selected_from_and_reported_in_two_gigabytes(images: int, tmp_path: Path) -> None:
    run, pool = tmp_path / "run", tmp_path / "run" / "data" / "train"
    records = hard_linked(pool, images)
    with (pool / MANIFEST).open("w", encoding="utf-8") as file:
        file.writelines(scored(records))
    (pool / CARD).write_text(json.dumps({"name": "pool", "kind": "original"}))
    selected = run / "distilled" / "dgs_ori-ipc10"
    selecting = peak("select", f"--pool={pool}", "--ipc=10", f"--output={selected}")
    assert len(read_manifest(selected)) == 10 * len(CLASSES)
    reporting = peak("report", str(run))
    assert (run / "index.html").is_file()
    assert max(selecting, reporting) < 2 * 2**30, (selecting, reporting)
