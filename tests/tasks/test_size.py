"""The length of a training follows from the size of its data: by the rule, in the trainer, and for the doctor."""

from pathlib import Path

import lightning as L
import pytest

from dgs_lightning.callbacks.published_length import PublishedLength
from dgs_lightning.callbacks.steps_by_size import StepsBySize
from dgs_lightning.configs import load_config
from dgs_lightning.datamodules.images import ImageDataModule
from dgs_lightning.datamodules.latents import LatentDataModule
from dgs_lightning.errors import InputError
from dgs_lightning.examples import SILENT, write_images, write_latents
from dgs_lightning.tasks.classification import ClassificationTask
from dgs_lightning.tasks.diffusion import DiffusionTask, ModelSize
from dgs_lightning.tasks.size import DataSize, steps_by_size
from dgs_lightning.tasks.work import Inputs, work_of

MEANT_FOR = DataSize(images=2400, classes=10, side=32)
SMALL = ModelSize(hidden_size=16, depth=1, num_heads=2)


@pytest.mark.parametrize(
    ("size", "steps"),
    [
        ((2400, 10, 32), 1000),
        ((9600, 10, 32), 2000),  # four times as many images: twice as many steps, each image half as often
        ((2400, 40, 32), 2000),
        ((2400, 10, 64), 2000),
        ((38_400, 1000, 8), 10_000),  # the root of 16 x 100 / 16
        ((1, 1, 1), 1),
    ],
)
def test_steps_grow_with_the_root_of_images_classes_and_pixels(size: tuple[int, int, int], steps: int) -> None:
    assert steps_by_size(1000, MEANT_FOR, DataSize(*size)) == steps


@pytest.mark.parametrize("name", ["classify/estimator_own_images", "minimax/pretrain_own_images", "minimax/own_images"])
def test_trainings_on_own_images_have_no_fixed_number_of_steps(name: str) -> None:
    trainer = load_config(name)["trainer"]
    lengths = [each["init_args"] for each in trainer["callbacks"] if "meant_for" in each.get("init_args", {})]
    assert len(lengths) == 1
    assert trainer.get("max_steps", -1) == trainer["max_epochs"] == -1


def test_an_estimator_and_a_dit_are_trained_for_the_steps_that_the_doctor_counts(tmp_path: Path) -> None:
    images, latents = write_images(f"{tmp_path}/images"), write_latents(f"{tmp_path}/latents")  # 8 of 4 x 4 pixels
    meant_for, trainer = DataSize(images=32, classes=2, side=8), {**SILENT, "max_epochs": -1}
    length = PublishedLength(steps=40, evaluations=1, meant_for=meant_for)
    classifier = L.Trainer(**trainer, callbacks=[length])
    classifier.fit(ClassificationTask("convnet1", width=4), ImageDataModule(images, images, batch_size=4))
    dit = L.Trainer(**trainer, callbacks=[StepsBySize(40, meant_for)])
    dit.fit(DiffusionTask(size=SMALL), LatentDataModule(latents, batch_size=4))
    assert classifier.global_step == dit.global_step == 10  # 40 x the root of 1/4 of the images and of the pixels

    inputs = Inputs(2, 4, 1, (1, 4, 4), {images: 8, latents: 8})
    limits, steps = {"max_epochs": -1, "max_steps": -1}, {"steps": 40, "meant_for": vars(meant_for)}
    for task, model, data, place, callback, evaluated in (
        ("ClassificationTask", {}, "ImageDataModule", {"train": images, "val": images}, "PublishedLength", 8),
        ("DiffusionTask", {"size": vars(SMALL)}, "LatentDataModule", {"cache": latents}, "StepsBySize", 0),
    ):
        more = {"evaluations": 1} if evaluated else {}
        config = {
            "model": {"class_path": task, "init_args": model},
            "data": {"class_path": data, "init_args": {**place, "batch_size": 4}},
            "trainer": {**limits, "callbacks": [{"class_path": callback, "init_args": {**steps, **more}}]},
        }
        work = work_of(config, inputs)
        assert work is not None
        assert work.passes == 3 * 10 * 4 + evaluated


def test_a_limit_of_the_trainer_wins(tmp_path: Path) -> None:
    trainer = L.Trainer(**SILENT, max_steps=3, callbacks=[StepsBySize(40, MEANT_FOR)])
    task = DiffusionTask(size=SMALL)
    trainer.fit(task, LatentDataModule(write_latents(str(tmp_path)), batch_size=4))
    assert trainer.global_step == 3


def test_what_steps_are_meant_for_goes_with_steps_alone() -> None:
    with pytest.raises(InputError, match="but no steps, expected steps that are meant for it"):
        PublishedLength(meant_for=MEANT_FOR)
    with pytest.raises(InputError, match="either steps_ipc or meant_for"):
        PublishedLength(steps=9, steps_ipc=1, meant_for=MEANT_FOR)
    with pytest.raises(InputError, match="images: found 0"):
        DataSize(0, 1, 1)
