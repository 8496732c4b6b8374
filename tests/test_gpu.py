"""The stages of the quickstart on a GPU, at a tiny size: what a CPU gives, up to rounding."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.experiment.test_run import run

from dgs_lightning.data.records import read_manifest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here"),
]


@pytest.fixture(scope="module")
def on_a_cpu(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("cpu")
    run(output, "trainer.accelerator=cpu")
    return output


@pytest.fixture(scope="module")
def on_a_gpu(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("gpu")
    run(output, "trainer.accelerator=gpu")
    return output


def pixels(pool: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """Grey levels of a pool in the order of its manifest."""
    return np.stack([np.asarray(Image.open(pool / record.file_name), dtype=np.int64) for record in read_manifest(pool)])


def difficulties(scores: Path) -> dict[str, float]:
    return {record.file_name: record.difficulty or 0.0 for record in read_manifest(scores)}


@pytest.mark.parametrize("pool", ["dit", "minimax"])
def test_the_images_of_a_seed_are_those_of_a_cpu(on_a_cpu: Path, on_a_gpu: Path, pool: str) -> None:
    expected, found = pixels(on_a_cpu / "pools" / pool), pixels(on_a_gpu / "pools" / pool)
    assert np.abs(found - expected).mean() < 2
    assert np.abs(found - expected).mean() < np.abs(found[::-1] - expected).mean() / 5


def test_difficulties_are_those_of_a_cpu(on_a_cpu: Path, on_a_gpu: Path) -> None:
    expected, found = difficulties(on_a_cpu / "scores" / "original"), difficulties(on_a_gpu / "scores" / "original")
    assert found.keys() == expected.keys()
    differences = [abs(found[name] - expected[name]) for name in expected]
    assert np.max(differences) < 1e-3


def test_what_a_stage_ran_on_is_on_record(on_a_gpu: Path) -> None:
    records = [json.loads(path.read_text()) for path in (on_a_gpu / "stages").rglob("*.json")]
    named = {record["device"] for record in records if record["command"] in ("fit", "predict")}
    assert named == {torch.cuda.get_device_name()}


def test_mixed_precision_trains_and_generates(tmp_path: Path, on_a_gpu: Path) -> None:
    changes = ("pretrain.trainer.precision=bf16-mixed", "finetune.trainer.precision=bf16-mixed")
    run(tmp_path, "trainer.accelerator=gpu", *changes, "generate.trainer.precision=bf16-true")
    expected, found = pixels(on_a_gpu / "pools" / "minimax"), pixels(tmp_path / "pools" / "minimax")
    assert 0 < np.abs(found - expected).mean() < 10
