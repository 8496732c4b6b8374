import logging
from pathlib import Path
from typing import Any

import lightning as L
import pytest
from lightning.pytorch import Callback
from PIL import Image

from dgs_lightning.callbacks.checkpointing import EpochCheckpoint
from dgs_lightning.callbacks.published_length import PublishedLength
from dgs_lightning.datamodules.images import ImageDataModule
from dgs_lightning.errors import InputError
from dgs_lightning.tasks.classification import ClassificationTask
from dgs_lightning.tasks.size import DataSize
from dgs_lightning.tasks.work import training_length

IMAGES, BATCH = 6, 4  # of each of two classes: three batches an epoch
SIZE = DataSize(2 * IMAGES, classes=2, side=4)


class Evaluations(Callback):
    """Remembers after which epochs the network was evaluated, and after how many steps."""

    def __init__(self) -> None:
        self.epochs: list[int] = []
        self.steps: list[int] = []

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.epochs.append(trainer.current_epoch + 1)
        self.steps.append(trainer.global_step)


class Killed(Exception):
    """Stands for a kill."""


class Kill(Callback):
    """Ends a run when two epochs are complete."""

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.current_epoch == 2:
            raise Killed


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two classes of one colour each, 4 x 4 pixels."""
    folder = tmp_path_factory.mktemp("pictures")
    for label, colour in (("cat", (200, 0, 0)), ("dog", (0, 0, 200))):
        (folder / label).mkdir()
        for index in range(IMAGES):
            Image.new("RGB", (4, 4), colour).save(folder / label / f"{index}.png")
    return str(folder)


def fit(
    pictures: str,
    root: Path,
    callbacks: list[Callback],
    ckpt_path: Path | None = None,
    **settings: Any,  # noqa: ANN401
) -> tuple[L.Trainer, Evaluations]:
    evaluations = Evaluations()
    trainer = L.Trainer(
        **{"max_epochs": -1, **settings},
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=any(isinstance(callback, EpochCheckpoint) for callback in callbacks),
        num_sanity_val_steps=0,
        default_root_dir=root,
        callbacks=[*callbacks, evaluations],
    )
    data = ImageDataModule(pictures, pictures, batch_size=BATCH)
    trainer.fit(ClassificationTask("convnet1", width=4), data, ckpt_path=ckpt_path)
    return trainer, evaluations


def test_the_last_epoch_is_evaluated_whatever_the_interval(pictures: str, tmp_path: Path) -> None:
    trainer, evaluations = fit(pictures, tmp_path, [PublishedLength(epochs=5, evaluations=2)])
    assert trainer.current_epoch == 5
    assert evaluations.epochs == [2, 4, 5]


def test_steps_are_rounded_up_to_epochs(pictures: str, tmp_path: Path) -> None:
    trainer, _ = fit(pictures, tmp_path, [PublishedLength(steps=4)])
    assert trainer.global_step == 6


@pytest.mark.parametrize(("most_times", "steps"), [(10, 12), (1.5, 9)])
def test_steps_meant_for_fewer_images_are_multiplied_and_the_log_says_so(
    most_times: float, steps: int, pictures: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = {"steps": 6, "steps_ipc": 1, "most_times": most_times}  # (2000 x 3) / (3000 x 1) = 2 times
    with caplog.at_level(logging.INFO, "dgs_lightning"):
        trainer, _ = fit(pictures, tmp_path, [PublishedLength(**settings)])  # type: ignore[arg-type]
    assert trainer.global_step == steps
    assert f"{steps} steps on 6 images per class, as 6 steps are meant for an IPC of 1" in caplog.text
    callbacks = [{"class_path": "PublishedLength", "init_args": settings}]
    epochs, _ = training_length({"max_epochs": -1, "callbacks": callbacks}, BATCH, SIZE)
    assert 3 * epochs == steps


def test_without_a_length_the_training_has_the_published_one(pictures: str, tmp_path: Path) -> None:
    class Stop(Callback):
        def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            assert trainer.check_val_every_n_epoch == 20
            raise Killed

    with pytest.raises(Killed):
        fit(pictures, tmp_path, [length := PublishedLength(), Stop()])
    assert length.length == {"epochs": 2000, "steps": -1, "epochs per evaluation": 20}  # 6 images per class


@pytest.mark.parametrize(
    ("limits", "epochs", "steps", "evaluated"),
    [
        ({"max_epochs": 4}, 4, 12, [2, 4]),
        ({"max_epochs": None, "max_steps": 8}, 3, 8, [1, 2, 3]),
        ({"max_steps": 9}, 3, 9, [1, 2, 3]),
        ({"max_epochs": 5, "check_val_every_n_epoch": 3}, 5, 15, [3, 5]),
    ],
    ids=str,
)
def test_limits_of_the_trainer_win_and_the_log_says_so(
    limits: dict[str, Any], epochs: int, steps: int, evaluated: list[int],
    pictures: str, tmp_path: Path, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    with caplog.at_level(logging.INFO, "dgs_lightning"):
        trainer, evaluations = fit(pictures, tmp_path, [PublishedLength(epochs=7, evaluations=2)], **limits)
    assert (trainer.current_epoch, trainer.global_step, evaluations.epochs) == (epochs, steps, evaluated)
    assert evaluations.steps[-1] == steps
    assert "The trainer decides the length" in caplog.text
    callback = {"class_path": "PublishedLength", "init_args": {"epochs": 7, "evaluations": 2}}
    settings = {"max_epochs": -1, **limits, "callbacks": [callback]}
    assert training_length(settings, BATCH, SIZE) == (epochs, len(evaluated))


def test_a_training_of_another_length_is_not_resumed(pictures: str, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        fit(pictures, tmp_path, [PublishedLength(epochs=3), EpochCheckpoint(minutes=0), Kill()])
    callbacks = [EpochCheckpoint(minutes=0)]
    with pytest.raises(InputError, match="one made with epochs: 3, expected the length of this run, epochs: 4"):
        fit(pictures, tmp_path, [PublishedLength(epochs=4), *callbacks], EpochCheckpoint.find(tmp_path))
    with pytest.raises(InputError, match="one made with epochs: 3"):
        fit(pictures, tmp_path, [PublishedLength(epochs=3), *callbacks], EpochCheckpoint.find(tmp_path), max_epochs=5)
    trainer, _ = fit(pictures, tmp_path, [PublishedLength(epochs=3), *callbacks], EpochCheckpoint.find(tmp_path))
    assert trainer.current_epoch == 3


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"epochs": 2, "steps": 24}, "epochs: found 2, beside steps 24, expected either epochs or steps"),
        ({"epochs": 0}, "epochs: found 0"),
        ({"steps": 0}, "steps: found 0"),
        ({"evaluations": 0}, "evaluations: found 0"),
        ({"steps_ipc": 10}, "steps_ipc: found 10, but no steps, expected steps that are meant for it"),
        ({"steps": 9, "steps_ipc": 1, "most_times": 0}, "most_times: found 0"),
    ],
)
def test_settings_out_of_range_are_refused_by_name(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        PublishedLength(**settings)
