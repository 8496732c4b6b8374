"""One's own images: real ones of mixed sizes, modes and orientations, through the shipped experiments."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps
from sklearn.datasets import load_digits

from dgs_lightning.data.cards import read_card
from dgs_lightning.data.records import read_manifest

pytestmark = pytest.mark.slow

CLASSES, EACH = 4, 40
TINY = (
    "ipc=3",
    "pool_multiple=2",
    "judge=null",
    "folds=2",
    "draws=1",
    "repeats=1",
    "methods=[random, dgs_ori, dit_dgs, minimax, full]",
    "image_size=16",
    "pretrain.model.init_args.size={hidden_size: 32, depth: 2, num_heads: 2, patch_size: 4}",
    "pretrain.trainer.max_steps=20",
    "finetune.trainer.max_steps=5",
    "generate.model.init_args.steps=5",
    "cross_fit.model.init_args={network: convnet2, width: 8}",
    "cross_fit.trainer.max_steps=8",
    "evaluate.model.init_args={width: 8}",
    "evaluate.trainer.max_steps=8",
    "networks=[convnet2]",
)
ROTATED_BY_270 = 6  # the value of EXIF's Orientation


def write_images(folder: Path) -> None:
    """Real digits as colour PNGs of mixed sizes, with some grey ones, one in CMYK and one that EXIF rotates."""
    digits = load_digits(n_class=CLASSES)
    for label in range(CLASSES):
        (folder / f"digit {label}").mkdir(parents=True)
        for index, pixels in enumerate(digits.images[digits.target == label][:EACH]):
            side = 20 + (7 * index) % 30
            grey = Image.fromarray((pixels * 255 / 16).astype(np.uint8)).resize((side, side + index % 9))
            image: Image.Image = ImageOps.colorize(grey, "navy", "white", "orange")
            name = folder / f"digit {label}" / f"{index:03}"
            if index == 0:
                image.convert("CMYK").save(name.with_suffix(".jpg"))
            elif index == 1:
                exif = Image.Exif()
                exif[0x0112] = ROTATED_BY_270
                image.rotate(90, expand=True).save(name.with_suffix(".jpg"), exif=exif)
            else:
                (grey if index % 5 == 2 else image).save(name.with_suffix(".png"))


def run(experiment: str, output: Path, *changes: str) -> str:
    settings = [part for change in changes for part in ("--set", change)]
    command = [sys.executable, "-m", "dgs_lightning", "run", experiment, "--output", str(output), *settings]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own") / "images"
    write_images(folder)
    return folder


@pytest.fixture(scope="module")
def told(images: Path) -> str:
    """What the run prints."""
    return run("own_images", images.with_name("run"), f"data={images}", *TINY)


@pytest.fixture(scope="module")
def finished(images: Path, told: str) -> Path:
    return images.with_name("run")


def test_what_was_read_from_the_data_is_said(images: Path, told: str) -> None:
    assert f"{images}: 4 classes (digit 0, digit 1, digit 2, digit 3); 16 x 16 pixels, RGB, centre crop" in told
    assert "data/train: 128 images, 32 to 32 of a class" in told


def test_one_tree_is_split_and_distilled_from_scratch(finished: Path) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    assert [row["method"] for row in summary["rows"]] == ["random", "dgs_ori", "dit_dgs", "minimax", "full"]
    splits = {split: read_manifest(finished / "data" / split) for split in ("train", "val")}
    assert {split: len(records) for split, records in splits.items()} == {"train": 128, "val": 32}
    assert read_card(finished / "data" / "train")["settings"]["channels"] == 3
    for folder in (finished / "distilled").iterdir():
        records = read_manifest(folder)
        assert len(records) == 3 * CLASSES
        assert {Image.open(folder / record.file_name).size for record in records} == {(16, 16)}


def test_the_users_folder_is_left_as_it_was(images: Path, finished: Path) -> None:
    assert finished.is_dir()
    assert sum(path.is_file() for path in images.rglob("*")) == CLASSES * EACH


def test_a_pool_made_by_other_software_is_scored_and_selected_from(images: Path, finished: Path) -> None:
    output = images.with_name("selected")
    estimator = finished / "estimator" / "fold0" / "weights"
    run("select_only", output, f"pool={images}", f"original={images}", "ipc=5", f"estimator={estimator}")
    (folder,) = (output / "distilled").iterdir()
    records = read_manifest(folder)
    assert len(records) == 5 * CLASSES
    for record in records:
        assert (folder / record.file_name).read_bytes() == (images / record.file_name).read_bytes()
        assert record.difficulty is not None


def test_without_originals_the_pool_is_its_own_measure(images: Path, finished: Path) -> None:
    output = images.with_name("alone")
    estimator = finished / "estimator" / "fold0" / "weights"
    run("select_only", output, f"pool={images}", "ipc=5", f"estimator={estimator}", "select.distribution=pool")
    assert len(read_manifest(output / "distilled" / "pool_dgs-ipc5")) == 5 * CLASSES
