import logging
from pathlib import Path

import lightning as L
import pytest
from lightning.pytorch.callbacks import RichProgressBar, TQDMProgressBar

from dgs_lightning.callbacks.image_writer import ImageRate, ImageWriter
from dgs_lightning.datamodules.requests import RequestDataModule
from dgs_lightning.tasks.generation import GenerationTask


@pytest.mark.parametrize("bar", [TQDMProgressBar, RichProgressBar])
def test_a_progress_bar_shows_images_a_second(
    bar: type[L.Callback], dit: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    L.Trainer(
        accelerator="cpu",
        callbacks=[ImageWriter(str(tmp_path / "set")), bar()],
        logger=False,
        default_root_dir=tmp_path,
    ).predict(GenerationTask(str(dit), steps=2), datamodule=RequestDataModule(images_per_class=4, batch_size=4))
    printed = capfd.readouterr()
    assert " images/s" in printed.out + printed.err


def test_the_log_tells_rate_and_time_left_where_there_is_no_bar(caplog: pytest.LogCaptureFixture) -> None:
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
    caplog.set_level(logging.INFO, "dgs_lightning")
    ImageRate(total=10, every=0).advance(4, trainer)
    assert caplog.messages[-1].startswith("4 of 10 images, ")
    assert caplog.messages[-1].endswith(" s left")
