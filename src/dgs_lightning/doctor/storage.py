"""Disk and memory that an experiment takes, against what there is."""

import math
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from dgs_lightning.data.latents import CacheSettings
from dgs_lightning.datamodules.images import MEMORY
from dgs_lightning.doctor.finding import Finding, ok, problem
from dgs_lightning.doctor.settings import setting
from dgs_lightning.doctor.work import Scale, generated, task_of
from dgs_lightning.experiment.settings import Experiment
from dgs_lightning.experiment.stage import Stage
from dgs_lightning.models.codec import keeps_variances, latent_shape
from dgs_lightning.models.dit.difffit import add_difffit, mark_trainable
from dgs_lightning.models.dit.network import DiT, DiTConfig

FLOAT = 4  # bytes of a parameter
IN_TRAINING = 4  # further copies of a trained parameter: gradient, two of Adam, moving average
ON_DISK = 6  # copies of it: in the checkpoint itself, two of Adam and the average; and raw and averaged as weights


def check_disk(
    experiment: Experiment, stages: Sequence[Stage], scale: Scale, dit: DiTConfig | None
) -> Iterator[Finding]:
    """Images, latent cache and checkpoints against the space that is free where the run writes."""
    sizes = {
        "images": sum(_images(stage, scale) for stage in stages) * scale.image_bytes,
        "latent cache": sum(_cache(experiment, stage, scale) for stage in stages if task_of(stage) == "EncodingTask"),
        "DiT checkpoints": sum(size for _, size in _dit_trainings(stages, scale, dit)),
    }
    folder = Path(experiment.output or "runs").absolute()
    while not folder.exists():
        folder = folder.parent
    total, free = sum(sizes.values()), shutil.disk_usage(folder).free
    parts = ", ".join(f"{name} {in_bytes(size)}" for name, size in sizes.items() if size)
    what = f"disk: about {in_bytes(total)} ({parts}), {in_bytes(free)} free"
    yield ok(what) if total < free else problem(what, "Free space, or give --output on another disk")


def check_memory(stages: Sequence[Stage], scale: Scale, dit: DiTConfig | None) -> Iterator[Finding]:
    """Parameters, optimiser and Minimax memories of DiT training against the memory of the GPU or the machine."""
    size = max((size for size, _ in _dit_trainings(stages, scale, dit)), default=0)
    if not size:
        return
    gpu = torch.cuda.is_available()
    there = torch.cuda.get_device_properties(0).total_memory if gpu else MEMORY
    what = f"memory: about {in_bytes(size)} for training the DiT, activations aside; {in_bytes(there)} in this "
    what += "GPU" if gpu else "machine"
    remedy = (
        "Keep smaller memories (finetune.model.init_args.criteria.memory_dtype=bfloat16), or run on a larger machine"
    )
    yield ok(what) if size < there else problem(what, remedy)


def _images(stage: Stage, scale: Scale) -> int:
    """Images that a stage writes."""
    if stage.command == "prepare":
        return scale.train + scale.val
    if stage.command == "select":
        return scale.classes * int(stage.config["ipc"])
    return generated(stage, scale) if task_of(stage) == "GenerationTask" else 0


def _cache(experiment: Experiment, stage: Stage, scale: Scale) -> int:
    """Bytes of the latent cache."""
    shape = latent_shape(experiment.codec, scale.side, scale.channels)
    dtype = setting(stage, "model", "dtype") or "float16"
    flips = 1 if setting(stage, "model", "flips") is False else 2
    return CacheSettings("", "", shape, keeps_variances(experiment.codec), flips, dtype).bytes_for(scale.train)


def _dit_trainings(stages: Sequence[Stage], scale: Scale, dit: DiTConfig | None) -> Iterator[tuple[int, int]]:
    """Bytes in memory and on the disk of each stage that trains the DiT."""
    for stage in stages:
        if dit is None or task_of(stage) not in ("DiffusionTask", "MinimaxTask"):
            continue
        total, trained = parameters(dit, stage)
        memories = _memories(stage, scale, dit)
        yield FLOAT * (total + IN_TRAINING * trained) + memories, FLOAT * ON_DISK * trained + memories


def parameters(dit: DiTConfig, stage: Stage) -> tuple[int, int]:
    """Parameters of the DiT in a stage that trains it: all, and those that it trains."""
    mode: Any = setting(stage, "model", "train") if setting(stage, "model", "dit") else "full"
    with torch.device("meta"):
        model = DiT(dit)
        if mode in ("half", "all"):
            add_difffit(model, mode)
    mark_trainable(model, "difffit" if mode in ("half", "all") else mode)
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return sum(size for size, _ in sizes), sum(size for size, trained in sizes if trained)


def _memories(stage: Stage, scale: Scale, dit: DiTConfig) -> int:
    """Bytes of the memories of real and of generated latents."""
    if task_of(stage) != "MinimaxTask":
        return 0
    values = math.prod((dit.in_channels, dit.input_size, dit.input_size))
    element = 2 if setting(stage, "model", "criteria.memory_dtype") == "bfloat16" else FLOAT
    return 2 * scale.classes * int(setting(stage, "model", "criteria.memory_size")) * values * element


def in_bytes(size: float) -> str:
    """A number of bytes in a readable unit."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"
