import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tests.conftest import MakeSet, _kill_before_change

from dgs_lightning.callbacks.checkpointing import ResumeCheckpoint
from dgs_lightning.callbacks.learned_images_writer import LearnedImagesWriter
from dgs_lightning.data.folders import read_set
from dgs_lightning.data.writing import is_intact
from dgs_lightning.datamodules.real_images import RealImageDataModule
from dgs_lightning.errors import InputError
from dgs_lightning.tasks.distribution_matching import DistributionMatchingTask
from dgs_lightning.tasks.gradient_matching import GradientMatchingTask
from dgs_lightning.tasks.learned_images import ImageSettings, LearnedImages
from dgs_lightning.tasks.matching_network import NetworkSettings

NETWORK: dict[str, Any] = {"network": "convnet2", "width": 4, "batch_real": 4}
FEW = NetworkSettings(rounds=4, epochs=2, batch_size=4, lr=0.1)
REAL = NetworkSettings(rounds=4, seen=8, early=1, batch_size=4, lr=0.1)


def dm(**settings: Any) -> DistributionMatchingTask:  # noqa: ANN401
    return DistributionMatchingTask(**{**NETWORK, "images": ImageSettings(2), **settings})


def dc(**settings: Any) -> GradientMatchingTask:  # noqa: ANN401
    own = {"images": ImageSettings(2), "augmentation": ("color", "scale")}
    return GradientMatchingTask("dc", training=FEW, **{**NETWORK, **own, **settings})


def idc(**settings: Any) -> GradientMatchingTask:  # noqa: ANN401
    return GradientMatchingTask("idc", training=REAL, **{**NETWORK, "images": ImageSettings(1, lr=0.001), **settings})


TASKS: dict[str, Callable[..., LearnedImages]] = {"dm": dm, "dc": dc, "idc": idc}


def fit(task: LearnedImages, data: Path, root: Path, steps: int, **trainer: Any) -> LearnedImages:  # noqa: ANN401
    """Train on a CPU, go on from the last checkpoint, and write the set."""
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    runner = pl.Trainer(
        **{"accelerator": "cpu", "devices": 1, **quiet, **trainer},
        max_steps=steps,
        default_root_dir=root,
        callbacks=[ResumeCheckpoint(1), LearnedImagesWriter()],
    )
    runner.fit(task, RealImageDataModule(str(data)), ckpt_path=ResumeCheckpoint.find(root))
    return task


@pytest.fixture
def real(make_set: MakeSet) -> Path:
    """Real images of three classes of 3, 5 and 9 images, 8 x 8 pixels, grey."""
    sizes = {"ape": 3, "bee": 5, "cow": 9}
    return make_set("real", {label: [f"{k}.png" for k in range(n)] for label, n in sizes.items()}, mode="L")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", TASKS)
def test_a_restart_changes_no_byte(name: str, real: Path, tmp_path: Path) -> None:
    fit(TASKS[name](), real, tmp_path / "whole", 7)
    for steps in (3, 7):  # the network is four rounds old, so that it is restored
        fit(TASKS[name](), real, tmp_path / "stopped", steps)
    whole = contents(tmp_path / "whole" / "images")
    assert whole == contents(tmp_path / "stopped" / "images")
    assert whole.keys() >= {"ape/00000.png", "cow/00000.png", "images.safetensors", "dataset.json", "metadata.jsonl"}


def killed(real: Path, root: Path, number: int) -> None:
    _kill_before_change(number, root)
    fit(dc(), real, root, 5)


def test_a_kill_anywhere_changes_no_byte(real: Path, tmp_path: Path, in_a_process: Callable[..., int | None]) -> None:
    fit(dc(), real, tmp_path / "whole", 5)
    whole, number, kills = contents(tmp_path / "whole" / "images"), 2, 0
    while in_a_process(killed, real, root := tmp_path / str(number), number) != 0:
        fit(dc(), real, root, 5)
        assert contents(root / "images") == whole, number
        number, kills = number + 25, kills + 1
    assert kills > 1


def match_on_devices(real: Path, root: Path, devices: int) -> None:
    strategy = "ddp" if devices > 1 else "auto"
    fit(dm(), real, root, 4, devices=devices, strategy=strategy, precision="64-true")


def test_two_devices_learn_what_one_learns(
    real: Path, tmp_path: Path, in_a_process: Callable[..., int | None], on_two_devices: Callable[..., None]
) -> None:
    assert in_a_process(match_on_devices, real, tmp_path / "1", 1) == 0
    on_two_devices(match_on_devices, real, tmp_path / "2", 2)
    one, two = (torch.load(tmp_path / n / "checkpoints" / "last.ckpt", weights_only=True) for n in "12")
    assert one["state_dict"]["images"].dtype == torch.float64
    torch.testing.assert_close(two["state_dict"]["images"], one["state_dict"]["images"], rtol=0, atol=1e-9)


def test_the_set_is_a_distilled_set_with_a_card(real: Path, tmp_path: Path) -> None:
    task = fit(dm(), real, tmp_path, 3)
    folder = tmp_path / "images"
    records = read_set(folder)
    assert [(record.label, record.index) for record in records] == [(label, k) for label in task.labels for k in (0, 1)]
    assert is_intact(folder)
    card = json.loads((folder / "dataset.json").read_text())
    assert (card["kind"], card["images"], card["licences"]) == ("distilled", 6, ["as the source's"])
    assert card["settings"]["task"]["images"]["ipc"] == 2
    assert card["settings"]["steps"] == 3
    assert card["clamped"]["share"] == 0
    assert card["provenance"][0]["folder"] == "real"
    stored = load_file(folder / "images.safetensors")["images"]
    for record, image in zip(records, stored, strict=True):
        pixels = np.asarray(Image.open(folder / record.file_name))
        np.testing.assert_allclose(pixels / 255, image[0].clamp(0, 1), atol=0.5 / 255 + 1e-6)


def test_pixels_outside_are_kept_in_the_file_of_floats_and_clamped_with_a_warning(real: Path, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"of the pixels lie outside \[0, 1\] and are clamped"):
        fit(dm(images=ImageSettings(2, lr=30.0, range="free")), real, tmp_path, 3)
    stored = load_file(tmp_path / "images" / "images.safetensors")["images"]
    clamped = json.loads((tmp_path / "images" / "dataset.json").read_text())["clamped"]
    assert clamped["share"] == pytest.approx(float(((stored < 0) | (stored > 1)).float().mean()))
    assert (clamped["lowest"], clamped["highest"]) == (float(stored.min()), float(stored.max()))


def test_a_factor_gives_decoded_images_and_the_card_has_the_ipc_of_storage(real: Path, tmp_path: Path) -> None:
    large = real.with_name("large")
    for label in ("ape", "bee"):
        (large / label).mkdir(parents=True)
        for k in range(4):
            (large / label / f"{k}.png").write_bytes((real / "cow" / f"{k}.png").read_bytes())
    fit(idc(images=ImageSettings(1, lr=0.001, factor=2)), large, tmp_path, 1)
    card = json.loads((tmp_path / "images" / "dataset.json").read_text())
    assert card["stored"] == {"ipc": 1, "factor": 2, "images_per_class": 4}
    assert card["images"] == 8
    assert load_file(tmp_path / "images" / "images.safetensors")["images"].shape == (2, 1, 8, 8)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: dm(images=ImageSettings(4)), r"3 images of class 'ape', expected at least 4 for images.ipc 4"),
        (lambda: idc(images=ImageSettings(1, lr=0.1, factor=2)), r"3 images of class 'ape', expected at least 4"),
        (lambda: dm(network="convnet9"), r"at least 512 px, not 8"),
        (lambda: dm(network="resnet0"), r"no such network"),
        (lambda: dm(augmentation=("shear",)), r"augmentation: found 'shear'"),
        (lambda: idc(images=ImageSettings(1)), r"images.lr: found nothing, expected a learning rate for IPC 10"),
        (lambda: dc(images=ImageSettings(1, factor=2)), r"images.factor: found 2, expected 1 for algorithm dc"),
        (lambda: dc(published="mnist"), r"published: found mnist, expected nothing"),
        (
            lambda: dm(images=ImageSettings(1, lr=1e30, range="free")),
            r"loss of step \d: found (nan|inf), expected a fin",
        ),
    ],
)
def test_what_cannot_be_matched_is_one_clear_error(
    make: Callable[[], LearnedImages], says: str, real: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=says):
        fit(make(), real, tmp_path, 3)
    assert not (tmp_path / "images").exists()


@pytest.mark.parametrize(("make", "precision"), [(dm, "bf16-true"), (dc, "bf16-mixed"), (idc, "bf16-true")])
def test_a_precision_that_loses_small_steps_is_refused(
    make: Callable[[], LearnedImages], precision: str, real: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=f"precision: found {precision}, expected one of 32-true"):
        fit(make(), real, tmp_path, 1, precision=precision)


def test_mixed_precision_is_a_setting_of_distribution_matching(real: Path, tmp_path: Path) -> None:
    exact, mixed = (fit(dm(), real, tmp_path / p, 2, precision=p).pixels() for p in ("32-true", "bf16-mixed"))
    assert mixed.dtype == torch.float32
    assert 0 < float((exact - mixed).abs().max()) < 0.1


def test_a_checkpoint_of_other_settings_is_refused(real: Path, tmp_path: Path) -> None:
    fit(dm(), real, tmp_path, 1)
    with pytest.raises(InputError, match=r"one made with images.ipc: 2"):
        fit(dm(images=ImageSettings(1)), real, tmp_path, 2)


def test_a_folder_of_others_is_not_replaced(real: Path, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "mine.txt").touch()
    with pytest.raises(InputError, match="images: found other files"):
        fit(dm(), real, tmp_path, 1)
