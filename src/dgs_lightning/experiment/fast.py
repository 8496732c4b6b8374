"""The setting ``fast`` of an experiment: what makes its stages faster on this processor, as their settings."""

import os
import shutil
import sysconfig
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from dgs_lightning.configs import class_name
from dgs_lightning.experiment.stage import Settings, Stage

CPU_INFO = Path("/proc/cpuinfo")
INSTRUCTIONS = ("avx512_bf16", "amx_bf16")  # as Linux names those that multiply numbers in bfloat16
# In training, parameters stay in 32-bit. So do pixels in encoding, which bfloat16 would round.
MIXED = ("EncodingTask", "DiffusionTask", "MinimaxTask", "DistributionMatchingTask")
PRECISIONS = dict.fromkeys(MIXED, "bf16-mixed")
PRECISIONS |= {"GenerationTask": "bf16-true"}
EXACT = {"InfluenceGuidance", "ClassifierGuidance"}  # their gradients through the DiT stay as they are
COMPILED = ("DiffusionTask", "MinimaxTask", "GenerationTask")


@cache
def instructions() -> str:
    """The instructions of this processor for bfloat16; empty if it has none, or does not say so."""
    text = CPU_INFO.read_text(encoding="utf-8") if CPU_INFO.is_file() else ""
    flags = {flag for line in text.splitlines() if line.startswith("flags") for flag in line.split()}
    return ", ".join(name for name in INSTRUCTIONS if name in flags)


@cache
def compiler() -> str | None:
    """The C++ compiler that ``torch.compile`` calls on a CPU; ``None`` if it, or Python's header, is not there."""
    found = shutil.which(os.environ.get("CXX", "g++"))
    return found if Path(sysconfig.get_path("include"), "Python.h").is_file() else None


def faster(stage: Settings) -> Settings:
    """The settings that make a stage of ``dgs fit`` or ``dgs predict`` with these settings faster here."""
    task, settings = class_name(stage["model"]), Settings()
    if EXACT & {class_name(callback) for callback in stage.get("trainer", {}).get("callbacks") or []}:
        return settings
    if task in PRECISIONS and instructions():
        settings["trainer"] = {"precision": PRECISIONS[task]}
    if task in COMPILED and compiler():
        settings["model"] = {"init_args": {"compile": "long"}}
    return settings


def advice(stages: Iterable[Stage], fast: bool) -> str:
    """What ``fast`` does for these stages, or would do, in one line; empty if they have no DiT, or it would do nothing.

    Args:
        stages: Stages of an experiment on a CPU.
        fast: Whether it is set.
    """
    if not any(class_name(stage.config.get("model") or {}) in COMPILED for stage in stages):
        return ""
    means = [f"bfloat16 ({instructions()})"] if instructions() else []
    means += [f"a compiled DiT where a stage is long enough ({compiler()})"] if compiler() else []
    if not means:
        lacks = f"this processor has none of {', '.join(INSTRUCTIONS)}, and there is no C++ compiler"
        return f"fast=true changes nothing here: {lacks}" if fast else ""
    if fast:
        return f"fast=true: {' and '.join(means)}"
    return f"--set fast=true may make the DiT faster here, with images that differ a little: {' and '.join(means)}"
