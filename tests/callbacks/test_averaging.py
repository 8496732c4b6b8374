from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor, nn

from dgs_lightning.callbacks.averaging import EMA
from dgs_lightning.errors import InputError


class Drift(pl.LightningModule):
    """Its trained weight is lowered by 1 a step; the other is frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.trained = nn.Parameter(torch.zeros(2))
        self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return self.trained.sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD([self.trained], lr=1.0)


def train(module: Drift, ema: EMA, root: Path, steps: int, batches: int = 1) -> EMA:
    trainer = pl.Trainer(
        max_steps=steps,
        max_epochs=-1,
        accumulate_grad_batches=batches,
        callbacks=[ema],
        default_root_dir=root,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, torch.utils.data.DataLoader(torch.zeros(100), num_workers=0))  # type: ignore[arg-type]
    return ema


def test_the_average_starts_from_the_model_and_follows_what_is_trained(tmp_path: Path) -> None:
    ema = train(Drift(), EMA(decay=0.5), tmp_path, 3)
    # 0 -> -0.5 -> -1.25 -> -2.125 while the weight goes 0, -1, -2, -3
    assert ema.averages.keys() == {"trained"}
    torch.testing.assert_close(ema.averages["trained"], torch.full((2,), -2.125))


def test_the_average_is_updated_once_a_step_of_the_optimiser(tmp_path: Path) -> None:
    ema = train(Drift(), EMA(decay=0.5), tmp_path, 3, batches=4)
    torch.testing.assert_close(ema.averages["trained"], torch.full((2,), -2.125))


def test_a_horizon_scales_the_decay_with_the_run(tmp_path: Path) -> None:
    assert train(Drift(), EMA(horizon=0.1), tmp_path, 50).decay == pytest.approx(1 - 1 / 5)
    assert train(Drift(), EMA(horizon=0.1), tmp_path, 5).decay == 0


def test_a_checkpoint_restores_the_average(tmp_path: Path) -> None:
    first = train(Drift(), EMA(decay=0.5), tmp_path, 3)
    second = EMA(decay=0.5)
    second.load_state_dict(first.state_dict())
    module = Drift()
    with torch.no_grad():
        module.trained.fill_(-3.0)
    train(module, second, tmp_path, 1)
    torch.testing.assert_close(second.averages["trained"], torch.full((2,), -2.125 / 2 - 4 / 2))


@pytest.mark.parametrize("settings", [{"decay": 1.0}, {"horizon": 0.0}])
def test_an_average_that_never_moves_is_refused(settings: dict[str, float]) -> None:
    with pytest.raises(InputError, match=r"ema_(decay|horizon): found"):
        EMA(**settings)


def test_a_horizon_needs_a_run_that_ends(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"ema_horizon: found 0\.1 of a run without end, .* Set max_steps"):
        train(Drift(), EMA(horizon=0.1), tmp_path, -1)
