from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dgs_lightning.callbacks.sample_grid import SampleGrid
from dgs_lightning.data.latents import CacheSettings, finish_cache, write_shard
from dgs_lightning.data.records import ImageRecord
from dgs_lightning.datamodules.latents import LatentDataModule
from dgs_lightning.errors import InputError
from dgs_lightning.tasks.diffusion import AverageSettings, DiffusionTask, ModelSize, OptimizerSettings


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Six images of two classes: one is white, the other black."""
    settings = CacheSettings("pixels", "none", (1, 4, 4), posterior=False, flips=1, dtype="float32")
    records = [ImageRecord(f"{label}/{i}.png", label) for label in ("black", "white") for i in range(3)]
    pixels = torch.tensor([-1.0, -1.0, -1.0, 1.0, 1.0, 1.0])[:, None, None, None, None].expand(-1, 1, 1, 4, 4)
    write_shard(tmp_path / "cache", settings.key(""), torch.arange(6), pixels.contiguous(), None)
    finish_cache(tmp_path / "cache", settings, records, "")
    return tmp_path / "cache"


def train(cache: Path, root: Path, steps: int, grid: SampleGrid) -> DiffusionTask:
    task = DiffusionTask(
        size=ModelSize(hidden_size=32, depth=2, num_heads=2),
        optimizer=OptimizerSettings(learning_rate=3e-3),
        average=AverageSettings(horizon=0.1),
    )
    trainer = pl.Trainer(
        max_steps=steps,
        callbacks=[grid],
        logger=TensorBoardLogger(root, name="", version=""),
        default_root_dir=root,
        accelerator="cpu",
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(task, LatentDataModule(str(cache), batch_size=16))
    return task


def test_a_grid_comes_every_so_many_steps(cache: Path, tmp_path: Path) -> None:
    train(cache, tmp_path, 5, SampleGrid(every_n_steps=2, images=3, steps=2))
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    grids = events.Images("samples")
    assert [grid.step for grid in grids] == [2, 4]
    assert (grids[0].width, grids[0].height) == (3 * 6 + 2, 2 * 6 + 2)


def test_what_is_shown_is_what_was_learnt(cache: Path, tmp_path: Path) -> None:
    grid = SampleGrid(images=8, guidance_scale=2.0, steps=20)
    black, white = grid.draw(train(cache, tmp_path, 150, grid)).mean((1, 2, 3)).reshape(2, 8).mean(1).tolist()
    assert black < 0.2
    assert white > 0.8


def test_showing_samples_does_not_change_the_training(cache: Path, tmp_path: Path) -> None:
    with_grids = train(cache, tmp_path / "with", 4, SampleGrid(every_n_steps=1, images=1, steps=2))
    without = train(cache, tmp_path / "without", 4, SampleGrid(every_n_steps=100))
    for name, parameter in with_grids.named_parameters():
        assert torch.equal(parameter, without.get_parameter(name)), name


def test_another_task_is_refused() -> None:
    with pytest.raises(InputError, match="found LightningModule, expected DiffusionTask"):
        SampleGrid().setup(pl.Trainer(logger=False), pl.LightningModule(), "fit")
