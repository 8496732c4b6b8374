"""The exponential moving average of the trained parameters."""

from typing import Any

import lightning.pytorch as pl
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from dgs_lightning.bounds import check_ranges
from dgs_lightning.errors import InputError

EMA_RANGES = {"ema_decay": "[0, 1)", "ema_horizon": "(0, 1]"}


class EMA(pl.Callback):
    """Keeps an exponential moving average of the parameters that are trained, and of nothing else.

    Lightning's ``EMAWeightAveraging`` copies the whole model, frozen parts and buffers included, and leaves the
    average in the model's place; here both sets of parameters are kept.

    Args:
        decay: Share of the average that each step keeps.
        horizon: Instead, the share of the run's steps that the average looks back over: the decay is then
            ``1 - 1 / (horizon * steps)``. With a fixed decay, the average of a run much shorter than
            ``1 / (1 - decay)`` steps is still the model that it started from.

    Attributes:
        averages: The averages by parameter name; empty before the run.

    Raises:
        InputError: If ``decay`` is not in [0, 1), or ``horizon`` not in (0, 1].
    """

    def __init__(self, decay: float = 0.9999, horizon: float | None = None) -> None:
        check_ranges({"ema_decay": decay, "ema_horizon": horizon}, EMA_RANGES)
        self.decay = decay
        self.horizon = horizon
        self.averages: dict[str, Tensor] = {}
        self._trained: list[Tensor] = []
        self._step = 0

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start from the parameters as they are, or from the averages of the checkpoint that the run resumes."""
        trained = {name: p for name, p in pl_module.named_parameters() if p.requires_grad}
        start = self.averages or trained
        self.averages = {name: start[name].detach().to(p, copy=True) for name, p in trained.items()}
        self._trained = list(trained.values())

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Settle the decay: now that the loader is restored, Lightning may ask it for the number of steps.

        Raises:
            InputError: If there is a horizon and the run has no last step.
        """
        if self.horizon is not None:
            steps = trainer.estimated_stepping_batches
            if steps == float("inf"):
                raise InputError(
                    "ema_horizon",
                    found=f"{self.horizon} of a run without end",
                    expected="a run of so many steps or epochs",
                    remedy="Set max_steps or max_epochs, or use ema_decay alone",
                )
            self.decay = max(0.0, 1 - 1 / (self.horizon * steps))
        self._move = get_ema_multi_avg_fn(self.decay)  # type: ignore[no-untyped-call]
        self._step = trainer.global_step

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: object) -> None:
        """Update after each step of the optimiser."""
        if trainer.global_step > self._step:
            self._step = trainer.global_step
            self.update()

    def update(self) -> None:
        """Move the averages towards the parameters by one step."""
        self._move(list(self.averages.values()), self._trained, None)

    def state_dict(self) -> dict[str, Any]:
        """The averages."""
        return dict(self.averages)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Averages of a checkpoint."""
        self.averages = state_dict
