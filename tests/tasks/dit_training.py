"""What the tests of the two tasks that train a DiT share."""

from pathlib import Path
from typing import Any, TypeVar

import lightning.pytorch as pl
import torch
from torch import Tensor

from dgs_lightning.callbacks.checkpointing import ResumeCheckpoint
from dgs_lightning.callbacks.weights import WeightsWriter
from dgs_lightning.datamodules.latents import LatentDataModule
from dgs_lightning.tasks.diffusion import DiffusionTask, ModelSize

LABELS = ("ape", "bee", "cow")
Task = TypeVar("Task", bound=DiffusionTask)
SMALL = ModelSize(hidden_size=16, depth=2, num_heads=2)


def fit(
    task: Task,
    cache: Path,
    root: Path,
    steps: int = -1,
    *callbacks: pl.Callback,
    resume: bool = False,
    **trainer: object,
) -> Task:
    """Train a task on a CPU, and write its weights; with ``resume``, go on from the last checkpoint and keep one."""
    settings: dict[str, Any] = {
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        **trainer,
    }
    checkpoint = [ResumeCheckpoint(5)] if resume else []
    runner = pl.Trainer(
        max_steps=steps,
        default_root_dir=root,
        accelerator="cpu",
        callbacks=[*callbacks, *checkpoint, WeightsWriter()],
        enable_checkpointing=resume,
        **settings,
    )
    runner.fit(
        task, LatentDataModule(str(cache), batch_size=8), ckpt_path=ResumeCheckpoint.find(root) if resume else None
    )
    return task


def everything_in(checkpoint: Path) -> dict[str, Tensor]:
    """Trained parameters, moving averages and memories of a checkpoint to resume, by name."""
    content = torch.load(checkpoint, weights_only=True)
    memories = {f"{m}.{name}": tensor for m, state in content["memories"].items() for name, tensor in state.items()}
    averages = {f"ema.{name}": tensor for name, tensor in content["average"].items()}
    return {**content["state_dict"], **averages, **memories}
