import json
from pathlib import Path

import lightning as L
import pytest
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image

from dgs_lightning.callbacks.result_writer import ResultWriter
from dgs_lightning.datamodules.images import ImageDataModule
from dgs_lightning.errors import InputError
from dgs_lightning.examples import SILENT
from dgs_lightning.tasks.classification import ClassificationTask


@pytest.fixture
def data(tmp_path: Path) -> ImageDataModule:
    """Two classes of one colour each, 4 x 4 pixels; two batches an epoch."""
    for label, colour in (("cat", (200, 0, 0)), ("dog", (0, 0, 200))):
        (tmp_path / "images" / label).mkdir(parents=True)
        for index in range(3):
            Image.new("RGB", (4, 4), colour).save(tmp_path / "images" / label / f"{index}.png")
    return ImageDataModule(str(tmp_path / "images"), str(tmp_path / "images"), batch_size=3)


def trainer(root: Path, *callbacks: L.Callback, **settings: int) -> L.Trainer:
    return L.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=root,
        callbacks=list(callbacks),
        **settings,  # type: ignore[arg-type]
    )


def test_a_task_leaves_nothing_without_the_callback(data: ImageDataModule, tmp_path: Path) -> None:
    task = ClassificationTask("convnet1", width=4)
    assert task.configure_callbacks() == []
    trainer(tmp_path / "run", max_epochs=1).fit(task, data)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("save_weights", [False, True])
def test_a_training_of_any_length_leaves_its_result_and_weights_if_asked_to(
    save_weights: bool, data: ImageDataModule, tmp_path: Path
) -> None:
    run = trainer(tmp_path / "run", ResultWriter(save_weights), max_epochs=-1, max_steps=6, check_val_every_n_epoch=2)
    run.fit(ClassificationTask("convnet1", width=4), data)
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (result["epochs"], [evaluation["epoch"] for evaluation in result["history"]]) == (3, [2])
    assert (tmp_path / "run" / "weights").exists() == save_weights


def test_another_task_is_refused_before_it_trains(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="ResultWriter: found BoringModel, expected ClassificationTask"):
        trainer(tmp_path, ResultWriter(), max_epochs=1).fit(BoringModel())


def test_names_of_classes_are_drawn_as_they_are_in_the_confusion_matrix(data: ImageDataModule, tmp_path: Path) -> None:
    for number, name in enumerate(("$x_{$", "a\nb")):
        (tmp_path / "images" / ("cat", "dog")[number]).rename(tmp_path / "images" / name)
    run = L.Trainer(
        **SILENT | {"logger": TensorBoardLogger(tmp_path / "logs")},
        default_root_dir=tmp_path / "run",
        callbacks=[ResultWriter()],
        max_epochs=1,
    )
    run.fit(ClassificationTask("convnet1", width=4), data)
    assert (tmp_path / "run" / "result.json").exists()
