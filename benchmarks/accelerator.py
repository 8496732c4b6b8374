"""A GPU where there is one, else the CPU: its clock, a quiet trainer on it, and its greatest rate of operations."""

import logging
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning as L
import torch

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def now() -> float:
    """Seconds on a clock that is read when the device has done all it was given."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


@contextmanager
def timed(seconds: list[float]) -> Iterator[None]:
    """Append the seconds that a block takes."""
    start = now()
    yield
    seconds.append(now() - start)


def quiet_trainer(**settings: Any) -> L.Trainer:  # noqa: ANN401  (the trainer checks them)
    """A trainer on the device that neither prints nor writes anything of its own."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", ".*LeafSpec.*", FutureWarning)  # Lightning, with torch's newest
    quiet: dict[str, Any] = dict.fromkeys(
        ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False
    )
    return L.Trainer(accelerator=DEVICE.type, devices=1, **quiet, **settings)


def matrix_rate(side: int = 8192, repetitions: int = 20) -> float:
    """Floating-point operations a second of bfloat16 matrix products on this GPU."""
    a, b = (torch.randn(side, side, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
    times: list[float] = []
    for _ in range(3):
        with timed(times):
            for _ in range(repetitions):
                a @ b
    return 2 * side**3 * repetitions / min(times)
