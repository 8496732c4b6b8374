"""A small run as ``dgs run`` leaves it: real digits, scored by a logistic regression, with made-up accuracies."""

import json
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression

from dgs_lightning.commands.select import select
from dgs_lightning.data.cards import write_card
from dgs_lightning.data.records import ImageRecord, write_manifest

LABELS = ("zero", "three", "eight")
DIGITS = (0, 3, 8)
IPC = 4
SETTINGS = {
    "title": "Three digits",
    "methods": ["random", "dit", "dit_dgs", "flat", "full"],
    "variants": {"flat": {"method": "dit_dgs", "select": {"distribution": "ground"}}},
    "ipc": IPC,
    "networks": ["convnet3"],
    "repeats": 2,
    "seed": 5,
    "data": "digits",
}
ACCURACIES = {"random": 0.5, "dit": 0.6, "dit_dgs": 0.7, "flat": 0.65, "full": 0.9}

Pixels = NDArray[np.float64]


def _write_set(folder: Path, images: Iterable[tuple[str, int, Pixels, dict[str, object]]]) -> None:
    """Write grey images as ``LABEL/00000.png`` with a manifest."""
    records = []
    for label, index, pixels, more in images:
        name = f"{label}/{index:05d}.png"
        (folder / label).mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels.reshape(8, 8) * 255).astype(np.uint8)).save(folder / name)
        records.append(ImageRecord(name, label, index=index, **more))  # type: ignore[arg-type]
    write_manifest(folder, records)


def _write_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def _build(folder: Path) -> None:
    digits, rng = load_digits(), np.random.default_rng(0)
    pixels = digits.images.reshape(-1, 64) / 16
    real = {label: pixels[digits.target == digit][:40] for label, digit in zip(LABELS, DIGITS, strict=True)}
    inputs, targets = np.concatenate(list(real.values())), np.repeat(LABELS, 40)
    estimator = LogisticRegression(C=0.05).fit(inputs, targets)

    def scored(images: dict[str, Pixels]) -> list[tuple[str, int, Pixels, dict[str, object]]]:
        lines = []
        for label, of_class in images.items():
            confidence = estimator.predict_proba(of_class)[:, list(estimator.classes_).index(label)]
            predicted = estimator.predict(of_class)
            for index, image in enumerate(of_class):
                more = {"difficulty": float(1 - confidence[index]), "estimator": "regression"}
                lines.append((label, index, image, {**more, "predicted": str(predicted[index])}))
        return lines

    generated = {}
    for label, images in real.items():
        model = PCA(10).fit(images)
        draws = rng.normal(size=(5 * IPC, 10)) * np.sqrt(model.explained_variance_)
        generated[label] = model.inverse_transform(draws).clip(0, 1)
    original, pool = scored(real), scored(generated)
    _write_set(folder / "data" / "train", [(label, index, image, {}) for label, index, image, _ in original])
    card = {"name": "digits/train", "kind": "original", "labels": {label: f"the {label}" for label in LABELS}}
    write_card(folder / "data" / "train", card)
    _write_set(folder / "pools" / "dit", [(label, index, image, {"seed": 1}) for label, index, image, _ in pool])
    for name, lines in {"original": original, "dit": pool, "judge-dit": pool}.items():
        records = [ImageRecord(f"{label}/{index:05d}.png", label, **more) for label, index, _, more in lines]  # type: ignore[arg-type]
        (folder / "scores" / name).mkdir(parents=True)
        write_manifest(folder / "scores" / name, records)
    places = {
        "original": str(folder / "data" / "train"),
        "original_scores": str(folder / "scores" / "original"),
    }
    from_originals = {**places, "pool": places["original"], "pool_scores": places["original_scores"]}
    from_pool = {**places, "pool": str(folder / "pools" / "dit"), "pool_scores": str(folder / "scores" / "dit")}
    for row, settings in {
        "random": {**from_originals, "method": "random"},
        "dit": {**from_pool, "method": "first"},
        "dit_dgs": from_pool,
        "flat": {**from_pool, "distribution": "ground"},
    }.items():
        select(str(folder / "distilled" / f"{row}-ipc{IPC}"), ipc=IPC, **settings)
    for row, accuracy in ACCURACIES.items():
        for seed in (5, 6):
            name = row if row == "full" else f"{row}-ipc{IPC}"
            stage = f"evaluation/{name}/convnet3/seed{seed}"
            last = accuracy + 0.02 * (seed - 5)
            _write_json(
                folder / stage / "result.json", {"accuracy_last": last, "accuracy_best": last + 0.01, "seed": seed}
            )
    stages = {"data": 1.5, "pools/dit": 6.0, **{f"evaluation/dit-ipc{IPC}/convnet3/seed{seed}": 2.0 for seed in (5, 6)}}
    for stage, seconds in stages.items():
        _write_json(folder / "stages" / f"{stage}.json", {"name": stage, "status": "done", "seconds": seconds})
        (folder / "stages" / f"{stage}.yaml").write_text("{}", encoding="utf-8")
    (folder / "experiment.yaml").write_text(yaml.safe_dump(SETTINGS), encoding="utf-8")


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a finished run; only to be read."""
    folder = tmp_path_factory.mktemp("runs") / "three-digits"
    _build(folder)
    return folder


@pytest.fixture
def run_folder(finished_run: Path, tmp_path: Path) -> Path:
    """A copy of the finished run that a test may change."""
    return Path(shutil.copytree(finished_run, tmp_path / finished_run.name))
