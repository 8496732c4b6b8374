"""Recorded draws and data of the golden steps, in place of a task's own."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from tests.matching.conftest import Values
from torch import Tensor

from dgs_lightning.matching.siamese import Draw
from dgs_lightning.tasks.draws import Draws


class RecordedData(pl.LightningDataModule):
    """Images of the golden values, which are normalised already or in [0, 1]."""

    def __init__(self, values: Values, steps: int) -> None:
        super().__init__()
        self.pixels, classes, self.steps = values["data"], values["labels"], steps
        self.labels = tuple(str(number) for number in torch.unique(classes).tolist())
        self.image_size, self.channels = self.pixels.shape[-1], self.pixels.shape[1]
        self.classes, self.train_images = classes, len(classes)
        self.positions = [torch.nonzero(classes == number).flatten() for number in range(len(self.labels))]

    def real(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        return self.pixels[positions], self.classes[positions]

    def train_dataloader(self) -> range:
        return range(self.steps)


class RecordedDraws(Draws):
    """Draws of class and step, as recorded; the network's seed is its number."""

    def __init__(self, values: Values, operations: dict[tuple[str, int], list[Draw]]) -> None:
        super().__init__(0)
        self.values, self.operations = values, operations
        self.first = [int((values["labels"] < number).sum()) for number in torch.unique(values["labels"]).tolist()]

    def start(self, label: str, size: int, count: int) -> Tensor:
        return self.values["init"][int(label)] - self.first[int(label)]

    def augmentation(self, strategy: Sequence[str], side: int, *names: int | str, count: int = 1) -> list[Draw]:
        label, step = names
        return self.operations.get((str(label), int(step)), [])


class Trace(pl.Callback):
    """Images and losses after each step."""

    def __init__(self) -> None:
        self.images: list[Tensor] = []
        self.losses: list[float] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:  # noqa: ANN401
        self.images.append(pl_module.images.detach().clone())

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: object) -> None:  # noqa: ANN401
        self.images.append(pl_module.images.detach().clone())
        self.losses.append(float(trainer.callback_metrics["loss"]))


def fit(task: pl.LightningModule, data: pl.LightningDataModule, steps: int, root: Path, **settings: Any) -> Trace:  # noqa: ANN401
    """Train on a CPU and keep a trace."""
    trace = Trace()
    callbacks = [trace, *settings.pop("callbacks", [])]
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = pl.Trainer(
        **{"accelerator": "cpu", "devices": 1, "enable_checkpointing": False, **quiet, **settings},
        max_steps=steps,
        default_root_dir=root,
        callbacks=callbacks,
    )
    trainer.fit(task, data)
    return trace
