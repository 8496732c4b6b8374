from pathlib import Path
from typing import Literal

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.cli import LightningCLI
from numpy.random import default_rng
from PIL import Image
from torch import Tensor, nn

from dgs_lightning.commands.select import select
from dgs_lightning.data.records import ImageRecord, write_manifest
from dgs_lightning.datamodules.difficulty import DifficultyGuidedDataModule
from dgs_lightning.distil.selection import SelectionSettings
from dgs_lightning.errors import InputError


class AnyClassifier(L.LightningModule):
    """A module that knows nothing of this project."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 6 * 6, 2))

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        images, labels = batch
        return nn.functional.cross_entropy(self.network(images), labels)

    def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
        self.log("accuracy", (self.network(batch[0]).argmax(dim=1) == batch[1]).float().mean())

    test_step = validation_step

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.5)


def make_set(folder: Path, count: int) -> str:
    """A scored set of dark and bright images."""
    rng, records = default_rng(count), []
    for label, level in (("bright", 200), ("dark", 20)):
        (folder / label).mkdir(parents=True)
        for index in range(count):
            name = f"{label}/{index:05}.png"
            pixels = level + rng.integers(0, 50, (6, 6, 3), dtype=np.uint8)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name)
            records.append(ImageRecord(name, label, difficulty=float(rng.random()), estimator="net"))
    write_manifest(folder, records)
    return str(folder)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_set(tmp_path_factory.mktemp("sets") / "pool", 20)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_set(tmp_path_factory.mktemp("sets") / "original", 40)


def trainer() -> L.Trainer:
    return L.Trainer(
        max_epochs=20,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def test_three_lines_train_and_test_any_module(pool: str, original: str) -> None:
    data = DifficultyGuidedDataModule(pool, ipc=5, original=original)
    model, fitted = AnyClassifier(), trainer()
    fitted.fit(model, data)
    assert fitted.test(model, data, verbose=False)[0]["accuracy"] == 1
    assert len(data.val_records) == 80


def test_it_serves_the_images_that_select_writes(pool: str, original: str, tmp_path: Path) -> None:
    data = DifficultyGuidedDataModule(pool, ipc=5, original=original, selection=SelectionSettings(seed=3))
    data.setup("fit")
    images = torch.cat([batch for batch, _ in data.train_dataloader()])
    output = select(output=str(tmp_path / "set"), pool=pool, original=original, ipc=5, seed=3)
    written = [np.asarray(Image.open(path)) for path in output.glob("*/*.png")]
    assert images.shape == (10, 3, 6, 6)
    assert sorted(images.mean(dim=(1, 2, 3)).tolist()) == pytest.approx(sorted(x.mean() / 255 for x in written))
    assert data.labels == ("bright", "dark")
    assert data.report["classes"]["dark"]["selected"] == 5


def test_without_originals_a_validation_set_is_named(pool: str, original: str) -> None:
    data = DifficultyGuidedDataModule(pool, ipc=5, val=original)
    data.setup("fit")
    assert len(data.val_records) == 80
    with pytest.raises(InputError, match=r"data\.val"):
        DifficultyGuidedDataModule(pool, ipc=5).setup("fit")


def test_a_module_may_leave_its_own_seed_open(pool: str, original: str) -> None:
    model, fitted = AnyClassifier(), trainer()
    model.save_hyperparameters({"seed": None})
    fitted.fit(model, DifficultyGuidedDataModule(pool, ipc=2, original=original, selection=SelectionSettings(seed=3)))
    assert fitted.current_epoch == 20


@pytest.mark.parametrize("method", ["kcenter", "transport"])
def test_other_methods_serve_in_the_same_way(pool: str, original: str, method: Literal["kcenter", "transport"]) -> None:
    data = DifficultyGuidedDataModule(pool, ipc=2, original=original, selection=SelectionSettings(method=method))
    data.setup("fit")
    assert len(data.train_records) == 4
    assert data.report["method"] == method


def test_settings_are_checked_when_it_is_built(pool: str) -> None:
    with pytest.raises(InputError, match="distribution"):
        DifficultyGuidedDataModule(pool, ipc=5, selection=SelectionSettings(distribution="steep"))
    with pytest.raises(InputError, match="ipc: found 0"):
        DifficultyGuidedDataModule(pool, ipc=0)
    hparams = DifficultyGuidedDataModule(pool, ipc=5, selection=SelectionSettings(seed=7)).hparams
    assert (hparams["seed"], hparams["selection"]["seed"], hparams["selection"]["method"]) == (7, 7, "dgs")


def test_lightning_cli_shows_and_takes_all_its_settings(
    pool: str, original: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = ["--data=DifficultyGuidedDataModule", f"--data.pool={pool}", f"--data.original={original}", "--data.ipc=5"]
    options = ["--data.selection.shortage=nearest", "--data.val_batch_size=7", "--trainer.fast_dev_run=true"]
    monkeypatch.setattr("sys.argv", ["dgs", "fit", *data, *options, "--trainer.accelerator=cpu"])
    command = LightningCLI(AnyClassifier, L.LightningDataModule, subclass_mode_data=True, save_config_callback=None)
    settings = command.config["fit"]["data"]["init_args"]
    assert (settings["selection"]["smoothing"], settings["val_batch_size"], settings["crop"]) == ("paper", 7, "plain")
    assert not any(name in settings for name in ("train", "cross_fitting", "seed"))  # the selection sets them
    assert command.datamodule.report["shortage"] == "nearest"
