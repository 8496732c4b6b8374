"""D3HR from images to images: inversion, start latents of the best group, and generation from them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tests.trained_dit import CLASSES, train_dit

from dgs_lightning.callbacks.image_writer import ImageWriter
from dgs_lightning.callbacks.latent_writer import LatentWriter
from dgs_lightning.callbacks.prototypes import InvertedStart
from dgs_lightning.data.cards import read_card
from dgs_lightning.data.latents import CARD, LatentCache
from dgs_lightning.datamodules.images import ImageDataModule
from dgs_lightning.datamodules.latents import LatentDataModule
from dgs_lightning.datamodules.requests import RequestDataModule
from dgs_lightning.distil.centers import Centers
from dgs_lightning.errors import InputError
from dgs_lightning.tasks.encoding import EncodingTask
from dgs_lightning.tasks.generation import GenerationTask
from dgs_lightning.tasks.inversion import InversionTask

QUIET: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")


@pytest.fixture(scope="session")
def dit(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a DiT that has learned three greys."""
    return str(train_dit(tmp_path_factory.mktemp("dit")))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight images of 4 x 4 pixels of each class, around its grey."""
    folder, random = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for label, grey in CLASSES.items():
        (folder / label).mkdir()
        for number in range(8):
            pixels = np.clip(127.5 + 127.5 * (grey + 0.2 * random.normal(size=(4, 4))), 0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / label / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def inverted(images: Path, dit: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    return predict(InversionTask(dit, flips=False), images, tmp_path_factory.mktemp("inverted") / "cache")


@pytest.fixture(scope="module")
def starts(inverted: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Start latents of the best three of 40 groups of two."""
    path = tmp_path_factory.mktemp("starts") / "starts.safetensors"
    Centers(latents=inverted, ipc=2, groups=40, kept=3, seed=3).write(path)
    return path


def predict(task: EncodingTask, images: Path, output: Path, **trainer: object) -> str:
    runner = pl.Trainer(accelerator="cpu", callbacks=[LatentWriter(str(output))], **QUIET, **trainer)  # type: ignore[arg-type]
    runner.predict(task, ImageDataModule(predict=str(images), val_batch_size=5))
    return str(output)


def generate(dit: str, starts: Path, output: Path, start: InvertedStart, **changes: Any) -> Path:  # noqa: ANN401
    settings = {"sampler": "ddim", **changes}
    data = RequestDataModule(centers=str(starts), batch_size=4)
    pl.Trainer(accelerator="cpu", callbacks=[start, ImageWriter(str(output))], **QUIET).predict(
        GenerationTask(dit, **settings), data
    )
    return output


def invert_on_two_devices(dit: str, images: Path, output: Path) -> None:
    predict(InversionTask(dit, flips=False), images, output, devices=2, strategy="ddp")


def test_two_devices_invert_the_latents_of_one(
    dit: str, images: Path, inverted: str, tmp_path: Path, on_two_devices: Callable[..., None]
) -> None:
    on_two_devices(invert_on_two_devices, dit, images, tmp_path / "two")
    one, two = LatentCache(Path(inverted)), LatentCache(tmp_path / "two")
    assert one.key == two.key
    assert torch.equal(one.read(torch.arange(24)).mean, two.read(torch.arange(24)).mean)


def test_the_card_says_how_the_latents_were_inverted(inverted: str, images: Path, tmp_path: Path) -> None:
    cache = LatentCache(Path(inverted))
    how = cache.settings.inversion
    assert how is not None
    assert (how.steps, how.index, how.guidance_scale, how.guided_channels) == (50, 31, 4.0, 1)
    clean = predict(EncodingTask("pixels", flips=False), images, tmp_path / "clean")
    assert "inversion" not in json.loads(Path(clean, CARD).read_text())["settings"]
    assert LatentCache(Path(clean)).key != cache.key


def test_images_start_from_the_latents_alone_and_are_those_of_their_class(
    dit: str, starts: Path, inverted: str, tmp_path: Path
) -> None:
    made = generate(dit, starts, tmp_path / "set", InvertedStart())
    for label, grey in CLASSES.items():
        pixels = [np.array(Image.open(path)) / 127.5 - 1 for path in sorted((made / label).glob("*.png"))]
        assert len(pixels) == 6
        assert np.mean(pixels) == pytest.approx(grey, abs=0.3)
    settings = read_card(made)["settings"]["model"]
    assert settings["start"].keys() == {"index", "centers"}
    best = tmp_path / "best.safetensors"
    Centers(latents=inverted, ipc=2, groups=40, seed=3).write(best)
    first = generate(dit, best, tmp_path / "first", InvertedStart())
    for path in first.rglob("*.png"):  # the set is the first of its pool
        assert path.read_bytes() == (made / path.relative_to(first)).read_bytes()
    assert {label: len(latents) for label, latents in load_file(best).items()} == dict.fromkeys(CLASSES, 2)


@pytest.mark.parametrize(
    ("start", "changes", "message"),
    [
        (30, {}, r"^index: found 30, expected 31, as .*starts.*Give the settings of the inversion"),
        (31, {"sampler": "ancestral"}, r"^model\.sampler: found ancestral, expected ddim, as "),
        (31, {"steps": 40}, r"^model\.steps: found 40, expected 50, as "),
        (31, {"num_heads": None, "dit": "other"}, r"^model\.dit: found \w+, expected \w+, as "),
    ],
)
def test_a_start_that_is_not_that_of_the_inversion_is_refused(
    start: int, changes: dict[str, Any], message: str, dit: str, starts: Path, tmp_path: Path
) -> None:
    if changes.pop("dit", None):
        from dgs_lightning.models.dit.formats import load_dit, save_dit

        model = load_dit(dit)
        model.pos_embed.data += 1
        next(model.parameters()).data += 1
        save_dit(model, tmp_path / "other")
        dit = str(tmp_path / "other")
    with pytest.raises(InputError, match=message):
        generate(dit, starts, tmp_path / "set", InvertedStart(start), **changes)
    assert not (tmp_path / "set").exists()


def test_clean_centres_are_no_start(dit: str, images: Path, tmp_path: Path) -> None:
    clean = predict(EncodingTask("pixels", flips=False), images, tmp_path / "clean")
    centers = tmp_path / "centers.safetensors"
    Centers(latents=clean, ipc=2).write(centers)
    with pytest.raises(InputError, match=r"centers\.safetensors: found centres that are clean latents"):
        generate(dit, centers, tmp_path / "set", InvertedStart())
    with pytest.raises(InputError, match="clean: found clean latents, expected noisy latents"):
        Centers(latents=clean, ipc=2, groups=5).compute()


def test_noisy_latents_have_no_centres_and_train_no_dit(inverted: str) -> None:
    with pytest.raises(InputError, match=r"found noisy latents, expected clean latents.* with groups"):
        Centers(latents=inverted, ipc=2).compute()
    with pytest.raises(InputError, match="found latents of InversionTask, which are noisy"):
        LatentDataModule(inverted).setup("fit")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"groups": 0}, "^groups: found 0, expected at least 1"),
        ({"groups": 2, "kept": 3}, "^kept: found 3, expected at most 2, the number of groups"),
        ({"kept": 2}, "^kept: found 2, expected 1 without groups"),
        ({"groups": 2, "scores": "folder"}, "^groups: found 2, beside scores"),
    ],
)
def test_groups_that_cannot_be_drawn_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Centers(latents="cache", **settings)


def test_a_class_of_one_image_has_no_distribution(dit: str, images: Path, tmp_path: Path) -> None:
    (tmp_path / "images" / "cat").mkdir(parents=True)
    (tmp_path / "images" / "cat" / "0.png").write_bytes((images / "cat" / "0.png").read_bytes())
    cache = predict(InversionTask(dit, flips=False, steps=4, index=1), tmp_path / "images", tmp_path / "cache")
    with pytest.raises(InputError, match="cache, cat: found 1 image, expected at least 2, for a variance"):
        Centers(latents=cache, groups=5).compute()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"index": 50}, "^index: found 50, expected at most 49, the first of 50 steps"),
        ({"index": -1}, "^index: found -1"),
    ],
)
def test_an_index_without_a_step_is_refused(dit: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        InversionTask(dit, **settings)


def test_images_of_another_size_than_the_dits_are_refused(dit: str, tmp_path: Path) -> None:
    (tmp_path / "images" / "cat").mkdir(parents=True)
    Image.new("L", (8, 8)).save(tmp_path / "images" / "cat" / "0.png")
    with pytest.raises(InputError, match=r"found latents of shape \(1, 8, 8\), expected \(1, 4, 4\), as the DiT has"):
        predict(InversionTask(dit), tmp_path / "images", tmp_path / "cache")


def test_the_start_needs_a_file_of_latents(dit: str, tmp_path: Path) -> None:
    trainer = pl.Trainer(accelerator="cpu", callbacks=[InvertedStart()], **QUIET)
    with pytest.raises(
        InputError, match=r"data\.centers: found nothing, expected a file that 'dgs centers' with groups"
    ):
        trainer.predict(GenerationTask(dit, sampler="ddim"), RequestDataModule())
    save_file({label: torch.zeros(1, 1, 4, 4) for label in CLASSES}, tmp_path / "own.safetensors")
    with pytest.raises(InputError, match=r"own\.safetensors: found other tensors"):
        generate(dit, tmp_path / "own.safetensors", tmp_path / "set", InvertedStart())
