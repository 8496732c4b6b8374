import csv
import math
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from tests.tasks.dit_training import LABELS, SMALL, everything_in, fit
from torch import Tensor

from dgs_lightning.datamodules.latents import LatentDataModule
from dgs_lightning.diffusion.objective import add_noise, training_terms
from dgs_lightning.errors import InputError
from dgs_lightning.models.dit.formats import load_dit, save_dit
from dgs_lightning.tasks.diffusion import AverageSettings, DiffusionTask
from dgs_lightning.tasks.minimax import CriteriaSettings, MinimaxTask

FEW = CriteriaSettings(memory_size=3)


def test_the_loss_is_that_of_a_written_out_loop(cache: Path, base: Path, tmp_path: Path) -> None:
    """Two steps of the published method, written out with lists as memories."""
    task = fit(MinimaxTask(CriteriaSettings(0.3, 0.7), dit=str(base)), cache, tmp_path, 2)
    losses: list[Tensor] = []
    data = LatentDataModule(str(cache), batch_size=8)
    data.setup("fit")
    model = MinimaxTask(dit=str(base))
    model._trainer = task.trainer
    model.setup("fit")
    optimiser = torch.optim.AdamW([p for p in model.dit.parameters() if p.requires_grad], lr=1e-3, weight_decay=0.0)
    real: dict[int, list[Tensor]] = {}
    generated: dict[int, list[Tensor]] = {}
    for batch in list(data.train_dataloader())[:2]:
        noise, t, drop = model._draw(batch)
        y = torch.tensor([("cow", "dog", "bee", "ape").index(LABELS[c]) for c in batch.classes])
        y[drop] = 4
        x_t = add_noise(batch.latents, noise, model.alphas_cumprod[t])
        terms = training_terms(model.dit.eval()(x_t, t, y), batch.latents, noise, t, model.alphas_cumprod)
        loss = terms.mse.mean() + terms.bound.mean()
        present = set(batch.classes.tolist())
        for c in present & real.keys():
            pred = terms.pred_x0[batch.classes == c].flatten(1)
            similar = [
                torch.cosine_similarity(pred[:, None], torch.stack(memory[c][-64:])[None], dim=2)
                for memory in (real, generated)
            ]
            loss = loss + (0.3 * (1 - similar[0].min()) + 0.7 * similar[1].max()) / len(present)
        for c, latent, pred in zip(batch.classes.tolist(), batch.latents, terms.pred_x0.detach(), strict=True):
            real.setdefault(c, []).append(latent.flatten())
            generated.setdefault(c, []).append(pred.flatten())
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        losses.append(loss.detach())
    torch.testing.assert_close(task.last_loss, losses[-1])
    for name, parameter in task.dit.named_parameters():
        torch.testing.assert_close(parameter, model.dit.get_parameter(name), msg=name)


def train_on_devices(cache: Path, root: Path, devices: int) -> None:
    logger = CSVLogger(root, name="", version="")
    task = MinimaxTask(CriteriaSettings(0.5, 0.5, memory_size=3), size=SMALL)
    strategy = "ddp" if devices > 1 else "auto"
    options: dict[str, Any] = {"devices": devices, "strategy": strategy, "precision": "64-true", "log_every_n_steps": 1}
    fit(task, cache, root, 10, resume=True, logger=logger, **options)


def test_two_devices_give_what_one_gives(
    cache: Path, tmp_path: Path, in_a_process: Callable[..., int | None], on_two_devices: Callable[..., None]
) -> None:
    assert in_a_process(train_on_devices, cache, tmp_path / "1", 1) == 0
    on_two_devices(train_on_devices, cache, tmp_path / "2", 2)
    one, two = (everything_in(tmp_path / n / "checkpoints" / "last.ckpt") for n in "12")
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=0, atol=1e-9, msg=name)
    losses = [list(csv.DictReader((tmp_path / n / "metrics.csv").open())) for n in "12"]
    assert len(losses[0]) == 10
    for row, other in zip(*losses, strict=True):
        for name in ("loss", "loss/noise", "loss/bound", "loss/representativeness", "loss/diversity"):
            assert float(other[name]) == pytest.approx(float(row[name]), abs=1e-9)


class Kill(pl.Callback):
    """Kills the process, as a power cut would."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
        if trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def train_resumably(base: Path, cache: Path, root: Path, *extra: pl.Callback) -> None:
    task = MinimaxTask(FEW, dit=str(base), average=AverageSettings(horizon=0.5))
    fit(task, cache, root, -1, *extra, resume=True, max_epochs=6)


def test_a_killed_and_resumed_run_equals_an_undisturbed_one(
    cache: Path, base: Path, tmp_path: Path, in_a_process: Callable[..., int | None]
) -> None:
    """An epoch has 2 batches; the last checkpoint before the kill is in the middle of one."""
    assert in_a_process(train_resumably, base, cache, tmp_path / "killed", Kill(8)) == -signal.SIGKILL
    assert torch.load(tmp_path / "killed/checkpoints/last.ckpt", weights_only=True)["global_step"] == 5
    train_resumably(base, cache, tmp_path / "killed")
    train_resumably(base, cache, tmp_path / "through")
    for file in ("model.safetensors", "ema.safetensors", "config.json"):
        assert (tmp_path / "killed/weights" / file).read_bytes() == (tmp_path / "through/weights" / file).read_bytes()
    through, resumed = (everything_in(tmp_path / n / "checkpoints" / "last.ckpt") for n in ("through", "killed"))
    assert all(torch.equal(through[name], resumed[name]) for name in through)


def test_accumulation_steps_once_for_several_batches(cache: Path, tmp_path: Path) -> None:
    task = MinimaxTask(FEW, size=SMALL, average=AverageSettings(decay=0.0))
    fit(task, cache, tmp_path, 2, accumulate_grad_batches=2)
    assert task.trainer.global_step == 2
    assert int(task.minimax.real.pushed.sum()) == 4 * 8


def test_bf16_trains_parameters_that_stay_in_float32(cache: Path, base: Path, tmp_path: Path) -> None:
    task = MinimaxTask(CriteriaSettings(memory_dtype="bfloat16"), dit=str(base))
    fit(task, cache, tmp_path, 3, precision="bf16-mixed")
    assert task.dit.y_embedder.embedding_table.weight.dtype == torch.float32
    assert task.minimax.real.directions.dtype == torch.bfloat16
    assert math.isfinite(task.last_loss)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"train": "bias"}, "parameters of another model, or another way of training"),
        ({"dit": "other"}, "parameters of another model, or another way of training"),
        ({"criteria": CriteriaSettings(memory_size=4)}, r"a memory of shape \(3, 3, 32\) in place of \(3, 4, 32\)"),
    ],
)
def test_a_checkpoint_made_with_other_settings_is_refused(
    cache: Path, base: Path, tmp_path: Path, change: dict[str, Any], found: str
) -> None:
    other = load_dit(str(base))
    with torch.no_grad():
        other.x_embedder.proj.weight[0] += 1
    save_dit(other, tmp_path / "other")
    settings: dict[str, Any] = {"dit": str(base), "criteria": FEW}
    fit(MinimaxTask(**settings), cache, tmp_path, 1, resume=True)
    if "dit" in change:
        change = {"dit": str(tmp_path / "other")}
    with pytest.raises(InputError, match=f"found {found}"):
        fit(MinimaxTask(**{**settings, **change}), cache, tmp_path, 2, resume=True)


def test_a_checkpoint_without_memories_cannot_go_on_with_criteria(cache: Path, tmp_path: Path) -> None:
    fit(DiffusionTask(size=SMALL), cache, tmp_path, 1, resume=True)
    with pytest.raises(InputError, match="found no memories"):
        fit(MinimaxTask(size=SMALL), cache, tmp_path, 2, resume=True)


@pytest.mark.parametrize(
    ("setting", "name"), [("criteria", "memory_size"), ("optimizer", "learning_rate"), ("criteria", "diversity")]
)
def test_a_setting_out_of_range_is_an_error(setting: str, name: str) -> None:
    below: dict[str, Any] = {setting: {name: -1}}
    with pytest.raises(InputError, match=rf"{name}: found -1"):
        MinimaxTask(**below)


def test_progress_is_logged(cache: Path, tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path, name="", version="")
    task = MinimaxTask(CriteriaSettings(memory_size=3, log_classes=True), size=SMALL)
    fit(task, cache, tmp_path, 6, logger=logger, log_every_n_steps=2)
    rows = list(csv.DictReader((tmp_path / "metrics.csv").open()))
    assert [int(row["step"]) for row in rows] == [1, 3, 5]
    last = rows[-1]
    assert float(last["learning_rate"]) == pytest.approx(1e-3)
    assert float(last["memory_fill"]) == 1.0
    assert float(last["images_per_second"]) > 0
    assert {f"representativeness/{label}" for label in LABELS} <= last.keys()


def test_weights_of_0_leave_the_diffusion_loss(cache: Path, tmp_path: Path) -> None:
    plain = fit(DiffusionTask(size=SMALL), cache, tmp_path / "plain", 3)
    without = fit(MinimaxTask(CriteriaSettings(0, 0), size=SMALL), cache, tmp_path / "without", 3)
    for name, parameter in plain.named_parameters():
        assert torch.equal(parameter, without.get_parameter(name)), name
