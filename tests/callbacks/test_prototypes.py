"""Starts of the denoising from prototypes (D4M)."""

from collections.abc import Callable
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tests.callbacks.conftest import in_two_processes
from torch import Tensor

from dgs_lightning.callbacks.guidance import CenterGuidance
from dgs_lightning.callbacks.image_writer import ImageWriter
from dgs_lightning.callbacks.prototypes import PrototypeStart
from dgs_lightning.data.cards import read_card
from dgs_lightning.data.folders import read_set
from dgs_lightning.datamodules.requests import RequestDataModule
from dgs_lightning.errors import InputError
from dgs_lightning.selection.clustering import kmeans_centers
from dgs_lightning.tasks.generation import GenerationTask

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")
LABELS = ("cat", "cow", "dog")


@pytest.fixture
def centers(tmp_path: Path) -> Path:
    """Three centres of each class, at 4 x 4 pixels of one channel."""
    path, random = tmp_path / "centers.safetensors", torch.Generator().manual_seed(0)
    save_file({label: 0.4 * torch.randn(3, 1, 4, 4, generator=random) for label in LABELS}, path)
    return path


def generate(
    output: Path, dit: Path, *callbacks: L.Callback, centers: Path | None = None, devices: int = 1
) -> dict[str, Tensor]:
    """Images in [-1, 1] by file name."""
    data = RequestDataModule(images_per_class=3, batch_size=4, centers=None if centers is None else str(centers))
    quiet = {"logger": False, "enable_progress_bar": False, "default_root_dir": output.parent}
    on = {"accelerator": "cpu", "devices": devices, "strategy": "auto" if devices == 1 else "ddp_fork"}
    L.Trainer(callbacks=[*callbacks, ImageWriter(str(output))], **on, **quiet).predict(  # type: ignore[arg-type]
        GenerationTask(str(dit)), datamodule=data
    )
    records = read_set(output)
    return {r.file_name: torch.from_numpy(np.array(Image.open(output / r.file_name))) / 127.5 - 1 for r in records}


@pytest.mark.golden
def test_the_prototypes_are_the_k_means_centres_of_a_class(generative: Callable[[str], dict[str, Tensor]]) -> None:
    values = generative("d4m.npz")
    count = int(values["ipc"])
    for label, published in enumerate(values["prototypes_kmeans"]):
        points = values["latents"][values["labels"] == label].flatten(1).numpy()
        gaps = np.abs(kmeans_centers(points, count)[:, None] - published.flatten(1).numpy()).max(axis=2)
        assert gaps.min(axis=0).max() < 1e-5  # as sets: their order depends on the version of scikit-learn
        assert gaps.min(axis=1).max() < 1e-5


def test_images_move_away_from_their_prototypes_with_the_strength_up_to_the_plain_ones(
    centers: Path, dit: Path, tmp_path: Path
) -> None:
    def distance(images: dict[str, Tensor]) -> float:
        gaps = [image - prototypes[name.split("/")[0]][int(name[-9:-4]), 0] for name, image in images.items()]
        return float(torch.stack(gaps).square().mean().sqrt())

    prototypes = load_file(centers)
    started = [
        distance(generate(tmp_path / f"{strength}" / "set", dit, PrototypeStart(strength), centers=centers))
        for strength in (0.02, 0.3, 0.7, 1.0)
    ]
    assert started == sorted(started)
    assert started[0] < 0.05
    plain = generate(tmp_path / "plain" / "set", dit)
    assert started[-1] == pytest.approx(distance(plain), abs=0.005)  # the prototype's weight is then 0.006
    card = read_card(tmp_path / "0.3" / "set")
    assert card["settings"]["model"]["start"].keys() == {"strength", "centers"}
    assert "guidance" not in card["settings"]["model"]


def test_a_start_goes_together_with_a_guidance_towards_the_same_centres(
    centers: Path, dit: Path, tmp_path: Path
) -> None:
    start = generate(tmp_path / "start" / "set", dit, PrototypeStart(0.5), centers=centers)
    guidance = CenterGuidance(str(centers), scale=0.5, stop_timestep=0)
    both = generate(tmp_path / "both" / "set", dit, PrototypeStart(0.5), guidance)
    again = generate(
        tmp_path / "again" / "set", dit, CenterGuidance(scale=0, stop_timestep=0), PrototypeStart(0.5), centers=centers
    )
    assert all(torch.equal(start[name], again[name]) for name in start)
    assert not any(torch.equal(start[name], both[name]) for name in start)
    assert {"start", "guidance"} <= read_card(tmp_path / "both" / "set")["settings"]["model"].keys()


@in_two_processes
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_two_devices_start_each_image_from_its_own_prototype(centers: Path, dit: Path, tmp_path: Path) -> None:
    """As one does, byte for byte."""
    for devices in (1, 2):
        generate(tmp_path / f"{devices}" / "set", dit, PrototypeStart(0.5), centers=centers, devices=devices)
    one, two = (tmp_path / devices / "set" for devices in "12")
    names = [path.relative_to(one) for path in one.rglob("*") if path.is_file()]
    assert len(names) == 9 + 3  # manifest, card, README
    assert all((two / name).read_bytes() == (one / name).read_bytes() for name in names)


@pytest.mark.parametrize(
    ("strength", "message"),
    [
        (0.0, r"strength: found 0\.0, expected above 0, at most 1"),
        (1.5, r"strength: found 1\.5"),
        (0.01, r"strength: found a strength of 0\.01 takes 0 of 50 steps, expected at least one step.* at least 0\.02"),
    ],
)
def test_a_strength_that_takes_no_step_is_refused(
    strength: float, message: str, centers: Path, dit: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        generate(tmp_path / "set", dit, PrototypeStart(strength), centers=centers)
    assert not (tmp_path / "set").exists()


def test_a_start_without_centres_is_refused(dit: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"data\.centers: found nothing, expected a file that 'dgs centers' wrote"):
        generate(tmp_path / "set", dit, PrototypeStart())
