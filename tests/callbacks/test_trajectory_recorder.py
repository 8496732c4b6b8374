import warnings
from pathlib import Path

import lightning as L
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from dgs_lightning.callbacks.guidance import CenterGuidance
from dgs_lightning.callbacks.image_writer import ImageWriter
from dgs_lightning.callbacks.trajectory_recorder import TrajectoryRecorder
from dgs_lightning.datamodules.requests import RequestDataModule
from dgs_lightning.models.dit.formats import save_dit
from dgs_lightning.models.dit.network import DiT, DiTConfig
from dgs_lightning.runs.layout import TRAJECTORIES
from dgs_lightning.tasks.generation import GenerationTask

STEPS = 6


@pytest.fixture
def model(tmp_path: Path) -> str:
    torch.manual_seed(0)
    dit = DiT(
        DiTConfig(input_size=4, num_classes=2, in_channels=1, hidden_size=16, depth=1, num_heads=2), ["cat", "dog"]
    )
    for parameter in dit.parameters():
        torch.nn.init.normal_(parameter, 0, 0.1)
    save_dit(dit, tmp_path / "dit")
    return str(tmp_path / "dit")


def generate(model: str, folder: Path, *callbacks: L.Callback) -> list[Tensor]:
    task = GenerationTask(model, steps=STEPS)
    trainer = L.Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        logger=False,
        callbacks=list(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The 'predict_dataloader' does not have many workers")
        images = trainer.predict(task, RequestDataModule(images_per_class=3, batch_size=4))
    return images  # type: ignore[return-value]


def test_recording_keeps_every_step_of_the_first_labels_images_and_changes_none(model: str, tmp_path: Path) -> None:
    plain = generate(model, tmp_path)
    recorded = generate(model, tmp_path, TrajectoryRecorder())
    trajectories = load_file(tmp_path / TRAJECTORIES)
    assert {name: tensor.shape for name, tensor in trajectories.items()} == {"predictions": (2, STEPS, 1, 4, 4)}
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(plain, recorded, strict=True))
    last = (trajectories["predictions"][:, -1] * 127.5 + 127.5).round().clamp(0, 255)  # the last step draws no noise
    torch.testing.assert_close(last, recorded[0][[0, 2]].float(), rtol=0, atol=1)


def test_a_guidance_is_recorded_whether_it_is_named_before_or_after(model: str, tmp_path: Path) -> None:
    save_file({label: torch.full((3, 1, 4, 4), 5.0) for label in ("cat", "dog")}, tmp_path / "centers.safetensors")
    guidance = CenterGuidance(str(tmp_path / "centers.safetensors"), scale=1.0, stop_timestep=0)
    generate(model, tmp_path / "free", TrajectoryRecorder())
    generate(model, tmp_path / "before", guidance, TrajectoryRecorder())
    generate(model, tmp_path / "after", TrajectoryRecorder(), guidance)
    free, guided = (load_file(tmp_path / name / TRAJECTORIES) for name in ("free", "before"))
    assert guided["predictions"][:, -1].mean() > free["predictions"][:, -1].mean() + 1
    assert torch.equal(guided["centers"], torch.full((2, 1, 4, 4), 5.0))
    assert (tmp_path / "after" / TRAJECTORIES).read_bytes() == (tmp_path / "before" / TRAJECTORIES).read_bytes()


@pytest.mark.parametrize("content", [None, b"", b"broken"])
def test_paths_that_are_lost_or_broken_are_recorded_again_beside_finished_images(
    model: str, tmp_path: Path, content: bytes | None
) -> None:
    def run() -> dict[str, bytes]:
        generate(model, tmp_path / "pool", TrajectoryRecorder(), ImageWriter(str(tmp_path / "pool")))
        return {path.name: path.read_bytes() for path in (tmp_path / "pool").rglob("*") if path.is_file()}

    first, path = run(), tmp_path / "pool" / TRAJECTORIES
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    image = tmp_path / "pool" / "cat" / "00000.png"
    written = image.stat().st_mtime_ns
    assert run() == first
    assert image.stat().st_mtime_ns == written


def test_nothing_is_generated_where_images_and_paths_are_there(model: str, tmp_path: Path) -> None:
    steps: list[int] = []

    class Count(L.Callback):
        def on_predict_batch_start(self, *_: object) -> None:
            steps.append(1)

    for expected in (2, 0):
        steps.clear()
        generate(model, tmp_path / "pool", Count(), TrajectoryRecorder(), ImageWriter(str(tmp_path / "pool")))
        assert len(steps) == expected
