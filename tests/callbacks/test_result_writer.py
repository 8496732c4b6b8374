import csv
import itertools
import json
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.loggers import CSVLogger
from PIL import Image

from dgs_lightning.callbacks.result_writer import ResultWriter
from dgs_lightning.commands.select import select
from dgs_lightning.data.records import ImageRecord, write_manifest
from dgs_lightning.datamodules.images import ImageDataModule
from dgs_lightning.errors import InputError
from dgs_lightning.tasks.classification import ClassificationTask
from dgs_lightning.tasks.protocol import OptimizerSettings


@pytest.fixture
def data(tmp_path: Path) -> ImageDataModule:
    """Two classes of one colour each, 4 x 4 pixels; two batches an epoch."""
    for label, colour in (("cat", (200, 0, 0)), ("dog", (0, 0, 200))):
        (tmp_path / "images" / label).mkdir(parents=True)
        for index in range(3):
            Image.new("RGB", (4, 4), colour).save(tmp_path / "images" / label / f"{index}.png")
    return ImageDataModule(str(tmp_path / "images"), str(tmp_path / "images"), batch_size=3)


def trainer(root: Path, *callbacks: L.Callback, **settings: Any) -> L.Trainer:  # noqa: ANN401
    return L.Trainer(
        accelerator="cpu",
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=root,
        callbacks=list(callbacks),
        **{"logger": False, **settings},
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


def test_subsets_get_the_accuracies_that_a_training_validated_on_them_alone_has(tmp_path: Path) -> None:
    rng, records = np.random.default_rng(0), []
    for label, index in itertools.product(("cat", "dog"), range(12)):
        records.append(ImageRecord(f"{label}/{index:02}.png", label, difficulty=index / 12, estimator="net"))
        (tmp_path / "val" / label).mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "val" / records[-1].file_name)
    write_manifest(tmp_path / "val", records)
    folders = [str(tmp_path / name) for name in ("val", "random", "easy")]
    for folder, method in zip(folders[1:], ("random", "easy"), strict=True):
        select(output=folder, pool=folders[0], method=method, share=0.5)

    def result(val: str | list[str], batch: int) -> dict[str, Any]:
        root = tmp_path / "run"
        task = ClassificationTask("convnet1", width=4, optimizer=OptimizerSettings("adamw", lr=0.05))
        with_csv = trainer(root, ResultWriter(), max_epochs=3, logger=CSVLogger(root, version=0))
        with_csv.fit(task, ImageDataModule(folders[0], val, batch_size=6, val_batch_size=batch))
        return dict(json.loads((root / "result.json").read_text()))

    together = result(folders, 5)
    logged = list(csv.DictReader((tmp_path / "run" / "lightning_logs" / "version_0" / "metrics.csv").open()))
    assert "subsets" not in result(folders[0], 5)
    assert len({tuple(evaluation["subsets"].values()) for evaluation in together["history"]}) > 1
    for folder in folders[1:]:
        name, alone = Path(folder).name, result(folder, 24)
        own = together["subsets"][name]
        assert own == {measure: alone[measure] for measure in ("accuracy_best", "accuracy_last")}
        assert [e["subsets"][name] for e in together["history"]] == [e["accuracy"] for e in alone["history"]]
        values = [float(line[f"val/accuracy_{name}"]) for line in logged if line[f"val/accuracy_{name}"]]
        assert values == pytest.approx([evaluation["accuracy"] for evaluation in alone["history"]])


def test_another_task_is_refused_before_it_trains(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="ResultWriter: found BoringModel, expected ClassificationTask"):
        trainer(tmp_path, ResultWriter(), max_epochs=1).fit(BoringModel())
