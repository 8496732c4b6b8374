import io
from pathlib import Path
from typing import Literal

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from PIL import Image
from safetensors.torch import load_file, save_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from dgs_lightning.callbacks.guidance import (
    CenterGuidance,
    DifficultyAwareGuidance,
    GuidanceCallback,
    ModeGuidance,
)
from dgs_lightning.callbacks.image_writer import ImageWriter
from dgs_lightning.callbacks.trajectory_recorder import TrajectoryRecorder
from dgs_lightning.data.cards import read_card
from dgs_lightning.data.folders import read_set
from dgs_lightning.data.latents import CacheSettings, LatentCache, finish_cache, write_shard
from dgs_lightning.data.records import ImageRecord, write_manifest
from dgs_lightning.datamodules.images import ImageDataModule
from dgs_lightning.datamodules.requests import RequestBatch, RequestDataModule
from dgs_lightning.diffusion.guidance import ClusterGuidance, Guidance, StepState
from dgs_lightning.distil.centers import Centers
from dgs_lightning.errors import InputError
from dgs_lightning.tasks.generation import GenerationTask

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")
CLASSES = {"cat": 0.5, "cow": 0.0, "dog": -0.5}
DIFFICULTIES = [0.05] * 6 + [0.55] * 3 + [0.95]  # of the ten images of each class


@pytest.fixture(scope="module")
def latents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cache of ten images a class, at 4 x 4 pixels of one channel."""
    folder = tmp_path_factory.mktemp("latents")
    settings = CacheSettings("pixels", "none", (1, 4, 4), posterior=False, flips=1, dtype="float32")
    records = [ImageRecord(f"{label}/{i}.png", label) for label in CLASSES for i in range(10)]
    scatter = torch.randn(30, 1, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    greys = torch.tensor([CLASSES[record.label] for record in records]).reshape(30, 1, 1, 1, 1)
    write_shard(folder, settings.key("images"), torch.arange(30), greys + 0.2 * scatter, None)
    finish_cache(folder, settings, records, "images")
    return folder


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scores")
    write_manifest(
        folder,
        [
            ImageRecord(f"{label}/{i}.png", label, difficulty=difficulty, estimator="judge")
            for label in CLASSES
            for i, difficulty in enumerate(DIFFICULTIES)
        ],
    )
    return folder


def generate(
    output: Path, dit: Path, *guidance: L.Callback, images: int = 4, labels: list[str] | None = None
) -> dict[str, Tensor]:
    """Images in [-1, 1] by file name."""
    data = RequestDataModule(images_per_class=images, labels=labels)
    return generate_with(GenerationTask(str(dit)), data, output, *guidance)


def generate_with(
    task: GenerationTask, data: RequestDataModule, output: Path, *guidance: L.Callback, logger: Logger | bool = False
) -> dict[str, Tensor]:
    L.Trainer(
        accelerator="cpu",
        callbacks=[ImageWriter(str(output)), *guidance],
        default_root_dir=output.parent,
        logger=logger,
        enable_progress_bar=False,
    ).predict(task, datamodule=data)
    return read_images(output)


def read_images(output: Path) -> dict[str, Tensor]:
    """Images of a set in [-1, 1] by file name."""
    return {
        record.file_name: torch.from_numpy(np.array(Image.open(output / record.file_name))) / 127.5 - 1
        for record in read_set(output)
    }


def centers_in(folder: Path) -> dict[str, Tensor]:
    (file,) = folder.glob("*.safetensors")
    return load_file(file)


def test_there_is_an_image_for_each_mode(latents: Path, dit: Path, tmp_path: Path) -> None:
    images = generate(tmp_path / "mgd3", dit, ModeGuidance(str(latents), ipc=3), images=9)
    expected = Centers(latents=str(latents), ipc=3).compute()
    assert all(torch.equal(found, expected[label]) for label, found in centers_in(tmp_path / "centers").items())
    assert sorted(images) == [f"{label}/{i:05d}.png" for label in CLASSES for i in range(3)]
    card = read_card(tmp_path / "mgd3")
    assert card["kind"] == "distilled"
    assert card["settings"]["model"]["guidance"].keys() == {"centers", "scale", "stop_timestep", "form", "guided"}


def test_guided_images_are_shown_above_the_same_images_without_guidance_and_do_not_change(
    latents: Path, dit: Path, tmp_path: Path
) -> None:
    path = tmp_path / "file.safetensors"
    Centers(latents=str(latents), ipc=2).write(path)
    made = {}
    for name in ("shown", "hidden"):
        logger = TensorBoardLogger(tmp_path / "logs", name="", version="") if name == "shown" else False
        callbacks = (CenterGuidance(str(path), scale=0.5, stop_timestep=0), TrajectoryRecorder())
        data, output = RequestDataModule(), tmp_path / name / "images"
        generate_with(GenerationTask(str(dit)), data, output, *callbacks, logger=logger)
        files = [output.parent / "trajectories.safetensors", *sorted(output.rglob("*.*"))]
        made[name] = {file.name: file.read_bytes() for file in files if file.name != "dataset.json"}
    assert made["shown"] == made["hidden"]
    events = EventAccumulator(str(tmp_path / "logs")).Reload()
    (shown,) = events.Images("guided_above_unguided")
    grid = torch.from_numpy(np.array(Image.open(io.BytesIO(shown.encoded_image_string)))).float()[..., 0]
    assert grid.shape == (2 * 6 + 2, GuidanceCallback.COMPARED * 6 + 2)
    plain = generate(tmp_path / "plain", dit, images=2)
    names = [f"{label}/{index:05d}.png" for index in range(2) for label in CLASSES][: GuidanceCallback.COMPARED]
    guided = read_images(tmp_path / "shown" / "images")
    for row, images in enumerate((guided, plain)):
        for column, name in enumerate(names):
            tile = grid[row * 6 + 2 :, column * 6 + 2 :][:4, :4]
            assert torch.allclose(tile, (images[name] + 1) * 127.5, atol=0.01), (row, name)


@pytest.mark.parametrize("by", ["ModeGuidance", "CenterGuidance", "data"])
def test_a_file_of_centres_gives_the_images_that_computed_centres_give(
    latents: Path, dit: Path, tmp_path: Path, by: str
) -> None:
    generate(tmp_path / "computed", dit, ModeGuidance(str(latents), ipc=2))
    path = tmp_path / "file.safetensors"
    Centers(latents=str(latents), ipc=2).write(path)
    data = RequestDataModule(images_per_class=4, centers=str(path) if by == "data" else None)
    guidance = {
        "ModeGuidance": ModeGuidance(centers=str(path)),
        "CenterGuidance": CenterGuidance(str(path)),
        "data": CenterGuidance(),
    }
    generate_with(GenerationTask(str(dit)), data, tmp_path / "given" / "computed", guidance[by])
    computed, given = (sorted(folder.rglob("*.*")) for folder in (tmp_path / "computed", tmp_path / "given/computed"))
    assert [file.name for file in computed] == [file.name for file in given]
    assert [file.read_bytes() for file in computed] == [file.read_bytes() for file in given]


def test_centres_without_a_guidance_are_refused(dit: Path, tmp_path: Path) -> None:
    save_file({label: torch.zeros(1, 1, 4, 4) for label in CLASSES}, tmp_path / "mine.safetensors")
    data = RequestDataModule(centers=str(tmp_path / "mine.safetensors"))
    with pytest.raises(InputError, match=r"data.centers: found centres without a guidance"):
        generate_with(GenerationTask(str(dit)), data, tmp_path / "set")
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize("guidance", [CenterGuidance, ModeGuidance, DifficultyAwareGuidance])
def test_a_guidance_without_centres_is_refused(dit: Path, tmp_path: Path, guidance: type[CenterGuidance]) -> None:
    with pytest.raises(InputError, match=f"{guidance.__name__}.centers: found nothing"):
        generate(tmp_path / "set", dit, guidance())


def test_difficulty_aware_guidance_needs_scores(latents: Path, dit: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"DifficultyAwareGuidance.scores: found nothing"):
        generate(tmp_path / "set", dit, DifficultyAwareGuidance(str(latents)))


class TowardsLabel(GuidanceCallback):
    """A guidance that is made for each batch, of its labels."""

    def guidance_for(self, batch: RequestBatch) -> Guidance:
        grey = torch.tensor([0.9 if record.label == "cat" else -0.9 for record in batch.records])
        return ClusterGuidance(grey.reshape(-1, 1, 1, 1).expand(-1, 1, 4, 4), 0.5, stop_timestep=0, form="latent")


def test_a_guidance_may_be_made_for_each_batch(dit: Path, tmp_path: Path) -> None:
    guided, plain = generate(tmp_path / "guided", dit, TowardsLabel()), generate(tmp_path / "plain", dit)
    gains = {label: sum(guided[n].mean() - plain[n].mean() for n in plain if label in n) for label in CLASSES}
    assert gains["cat"] > 0 > max(gains["cow"], gains["dog"])


def test_centres_are_computed_once_for_the_same_latents_and_settings(latents: Path, dit: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    generate(tmp_path / "a", dit, ModeGuidance(str(latents), ipc=2, store=str(store)))
    (first,) = store.iterdir()
    written = first.stat().st_mtime_ns
    generate(tmp_path / "b", dit, ModeGuidance(str(latents), ipc=2, scale=0.3, store=str(store)))
    assert [file.stat().st_mtime_ns for file in store.iterdir()] == [written]
    generate(tmp_path / "c", dit, ModeGuidance(str(latents), ipc=3, store=str(store)))
    assert len(list(store.iterdir())) == 2


@pytest.mark.parametrize("form", ["x0", "latent"])
def test_images_come_closer_to_their_centres_the_lower_the_stop(
    latents: Path, dit: Path, tmp_path: Path, form: Literal["x0", "latent"]
) -> None:
    distances = []
    for stop in (50, 25, 10, 0):
        guidance = ModeGuidance(str(latents), ipc=4, stop_timestep=stop, form=form)
        images = generate(tmp_path / str(stop), dit, guidance)
        centers = centers_in(tmp_path / "centers")
        gaps = [image - centers[name.split("/")[0]][int(name[-9:-4]), 0] for name, image in images.items()]
        distances.append(float(torch.stack(gaps).square().mean()))
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] < 0.95 * distances[0]


def test_stopping_at_the_first_step_equals_no_guidance(latents: Path, dit: Path, tmp_path: Path) -> None:
    plain = generate(tmp_path / "plain", dit)
    stopped = generate(tmp_path / "stopped", dit, ModeGuidance(str(latents), ipc=4, stop_timestep=50))
    assert all(torch.equal(plain[name], stopped[name]) for name in plain)


def test_the_other_reading_of_the_stop_guides_all_steps_at_50_and_none_at_0(
    latents: Path, scores: Path, dit: Path, tmp_path: Path
) -> None:
    plain = generate(tmp_path / "plain", dit)
    for stop in (0, 50):
        guidance = DifficultyAwareGuidance(str(latents), str(scores), ipc=4, stop_timestep=stop, guided="below")
        guided = generate(tmp_path / str(stop), dit, guidance)
        assert all(torch.equal(plain[name], guided[name]) == (stop == 0) for name in plain)
    with pytest.raises(InputError, match="guided: found beside, expected one of above, below"):
        ModeGuidance(guided="beside")


def test_difficulty_aware_sets_are_generated(latents: Path, scores: Path, dit: Path, tmp_path: Path) -> None:
    guidance = DifficultyAwareGuidance(str(latents), str(scores), ipc=2, stop_timestep=0)
    assert len(generate(tmp_path / "dag", dit, guidance, labels=["dog"])) == 2


def test_a_class_without_latents_is_named(dit: Path, latents: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cats"
    settings = LatentCache(latents).settings
    write_shard(cache, settings.key("cats"), torch.arange(1), torch.zeros(1, 1, 1, 4, 4), None)
    finish_cache(cache, settings, [ImageRecord("cat/0.png", "cat")], "cats")
    with pytest.raises(InputError, match=r"found 2 missing labels \(cow, dog\)"):
        generate(tmp_path / "mgd3", dit, ModeGuidance(str(cache)))


def test_centres_of_ones_own_are_followed(dit: Path, tmp_path: Path) -> None:
    save_file({label: torch.full((2, 1, 4, 4), 0.9) for label in CLASSES}, tmp_path / "mine.safetensors")
    guidance = CenterGuidance(str(tmp_path / "mine.safetensors"), scale=1.0, stop_timestep=0, form="latent")
    guided = generate(tmp_path / "guided", dit, guidance, labels=["cow", "dog"])
    plain = generate(tmp_path / "plain", dit, labels=["cow", "dog"], images=2)
    assert guided.keys() == plain.keys()
    assert all(guided[name].mean() > plain[name].mean() for name in plain)


@pytest.mark.parametrize(
    ("centers", "found"),
    [
        ({label: torch.zeros(2, 1, 8, 8) for label in CLASSES}, r"centres of cat: found shape \(2, 1, 8, 8\)"),
        ({"cat": torch.zeros(2, 1, 4, 4)}, "centres of cow: found none"),
    ],
)
def test_centres_that_do_not_fit_are_refused(dit: Path, tmp_path: Path, centers: dict[str, Tensor], found: str) -> None:
    save_file(centers, tmp_path / "mine.safetensors")
    with pytest.raises(InputError, match=found + r", expected shape \(n, 1, 4, 4\)"):
        generate(tmp_path / "set", dit, CenterGuidance(str(tmp_path / "mine.safetensors")))
    assert not (tmp_path / "set").exists()


def test_a_guidance_needs_a_task_that_generates() -> None:
    with pytest.raises(InputError, match="CenterGuidance: found LightningModule, expected GenerationTask"):
        CenterGuidance("centers").setup(L.Trainer(logger=False), L.LightningModule(), "predict")


def test_centres_need_a_datamodule_of_requests(dit: Path, tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    Image.new("L", (4, 4)).save(tmp_path / "cat" / "1.png")
    trainer = L.Trainer(accelerator="cpu", callbacks=[CenterGuidance("centers")], logger=False)
    with pytest.raises(InputError, match="CenterGuidance: found ImageDataModule, expected RequestDataModule"):
        trainer.predict(GenerationTask(str(dit)), datamodule=ImageDataModule(predict=str(tmp_path)))


class TowardsWhite(GuidanceCallback):
    def __init__(self, scale: float = 1.0, among: tuple[str, ...] = ("cat", "cow")) -> None:
        self.scale = scale
        self.among = among
        self.white = torch.ones(1)

    def __call__(self, state: StepState) -> Tensor:
        return self.scale * state.sigma * (self.white - state.latent)


def test_a_guidance_of_ones_own_is_a_class_of_a_few_lines(dit: Path, tmp_path: Path) -> None:
    guided, plain = generate(tmp_path / "guided", dit, TowardsWhite()), generate(tmp_path / "plain", dit)
    assert all(guided[name].mean() > plain[name].mean() + 0.02 for name in plain)
    settings = {"class": "TowardsWhite", "scale": 1.0, "among": ["cat", "cow"]}
    assert read_card(tmp_path / "guided")["settings"]["model"]["guidance"] == settings
    generate(tmp_path / "guided", dit, TowardsWhite())
    with pytest.raises(InputError, match=r"guidance.among: \['cat', 'cow'\] -> \['cow'\]"):
        generate(tmp_path / "guided", dit, TowardsWhite(among=("cow",)))


@pytest.mark.parametrize("kind", ["modes", "one's own"])
def test_a_run_after_a_guided_one_is_not_guided(latents: Path, dit: Path, tmp_path: Path, kind: str) -> None:
    task, data = GenerationTask(str(dit)), RequestDataModule(images_per_class=3)
    guidance = ModeGuidance(str(latents), ipc=2, stop_timestep=0) if kind == "modes" else TowardsWhite()
    generate_with(task, data, tmp_path / "guided", guidance)
    after = generate_with(task, data, tmp_path / "after")
    plain = generate(tmp_path / "plain", dit, images=3)
    assert after.keys() == plain.keys()
    assert all(torch.equal(after[name], plain[name]) for name in plain)
    assert "guidance" not in read_card(tmp_path / "after")["settings"]["model"]


@pytest.mark.parametrize("first", ["modes", "one's own"])
def test_a_second_guidance_is_refused(dit: Path, tmp_path: Path, first: str) -> None:
    centers, own = CenterGuidance(str(tmp_path / "mine.safetensors")), TowardsWhite()
    save_file({label: torch.zeros(1, 1, 4, 4) for label in CLASSES}, tmp_path / "mine.safetensors")
    both = [centers, own] if first == "modes" else [own, centers]
    names = " and ".join(type(guidance).__name__ for guidance in both)
    with pytest.raises(InputError, match=f"trainer.callbacks: found {names}, expected one guidance"):
        generate(tmp_path / "set", dit, *both)


@pytest.mark.parametrize("setting", ["ipc", "intervals"])
def test_a_number_below_one_is_refused(setting: str) -> None:
    with pytest.raises(InputError, match=f"{setting}: found 0"):
        DifficultyAwareGuidance("latents", "scores", **{setting: 0})  # type: ignore[arg-type]
