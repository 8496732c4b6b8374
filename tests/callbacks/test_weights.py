from pathlib import Path

import lightning.pytorch as pl
import pytest
from lightning.pytorch.demos.boring_classes import BoringModel

from dgs_lightning.callbacks.weights import WeightsWriter
from dgs_lightning.errors import InputError


class WithWeights(BoringModel):
    """A task that writes one empty file."""

    def save_weights(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        (folder / "file").touch()


def trainer(root: Path, *callbacks: pl.Callback) -> pl.Trainer:
    return pl.Trainer(
        default_root_dir=root,
        max_steps=1,
        callbacks=list(callbacks),
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def test_the_weights_are_written_to_the_folder_of_the_run(tmp_path: Path) -> None:
    trainer(tmp_path, WeightsWriter()).fit(WithWeights())
    assert (tmp_path / "weights" / "file").is_file()


def test_a_task_without_the_callback_writes_nothing(tmp_path: Path) -> None:
    trainer(tmp_path).fit(WithWeights())
    assert not any(tmp_path.iterdir())


def test_a_task_that_has_no_weights_to_write_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found BoringModel, expected a task with a method save_weights"):
        trainer(tmp_path, WeightsWriter()).fit(BoringModel())
