import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from safetensors.torch import load_file
from tests.tasks.dit_training import LABELS, SMALL, fit
from torch import Tensor

from dgs_lightning.datamodules.latents import LatentDataModule
from dgs_lightning.errors import InputError
from dgs_lightning.models.dit.formats import load_dit, save_dit
from dgs_lightning.models.dit.network import DiT, DiTConfig, initialise
from dgs_lightning.tasks.diffusion import AverageSettings, DiffusionTask, ModelSize, OptimizerSettings


def test_a_finished_run_started_again_restores_its_weights(cache: Path, tmp_path: Path) -> None:
    for _ in range(2):
        fit(DiffusionTask(size=SMALL), cache, tmp_path, 3, resume=True)
        written = (tmp_path / "weights" / "ema.safetensors").read_bytes()
        (tmp_path / "weights" / "ema.safetensors").unlink()
    fit(DiffusionTask(size=SMALL), cache, tmp_path, 3, resume=True)
    assert (tmp_path / "weights" / "ema.safetensors").read_bytes() == written


def test_frozen_parameters_do_not_move_and_trained_ones_do(cache: Path, base: Path, tmp_path: Path) -> None:
    task = fit(DiffusionTask(dit=str(base)), cache, tmp_path, 3)
    before = load_dit(str(base)).state_dict()
    for name, parameter in task.dit.named_parameters():
        moved = name not in before or not torch.equal(parameter, before[name])
        assert moved == parameter.requires_grad, name
    assert sum(p.requires_grad for p in task.dit.parameters()) < len(before) / 2 + 8


def test_the_weights_hold_raw_and_average_of_what_was_trained(cache: Path, base: Path, tmp_path: Path) -> None:
    task = fit(DiffusionTask(dit=str(base), average=AverageSettings(decay=0.5)), cache, tmp_path, 3)
    raw, ema = (load_dit(str(tmp_path / "weights"), weights=kind) for kind in ("raw", "ema"))
    trained = {name for name, parameter in task.dit.named_parameters() if parameter.requires_grad}
    assert load_file(tmp_path / "weights" / "model.safetensors").keys() == trained
    for name, parameter in task.dit.named_parameters():
        assert torch.equal(raw.get_parameter(name), parameter)
        assert torch.equal(ema.get_parameter(name), parameter) == (name not in trained), name


def test_a_resume_checkpoint_holds_nothing_that_is_frozen(cache: Path, base: Path, tmp_path: Path) -> None:
    task = DiffusionTask(dit=str(base))
    fit(task, cache, tmp_path, 1, resume=True)
    saved = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert saved.keys() == {f"dit.{name}" for name, p in task.dit.named_parameters() if p.requires_grad}


@pytest.mark.parametrize(
    ("settings", "channels"), [({"variational": False}, 4), ({"size": replace(SMALL, learn_sigma=False)}, 2)]
)
def test_sigma_need_not_be_learnt(cache: Path, tmp_path: Path, settings: dict[str, Any], channels: int) -> None:
    task = fit(DiffusionTask(**{"size": SMALL, **settings}), cache, tmp_path, 2)
    assert task.dit.config.out_channels == channels
    of_sigma = task.dit.final_layer.linear.bias.reshape(4, channels)[:, 2:]  # of each of the 4 pixels of a patch
    assert not of_sigma.any()


def test_a_file_of_no_published_size_is_fine_tuned(cache: Path, base: Path, tmp_path: Path) -> None:
    torch.save(load_dit(str(base)).state_dict(), tmp_path / "base.pt")
    task = DiffusionTask(dit=str(tmp_path / "base.pt"), size=ModelSize(num_heads=2), label_table="replace")
    fit(task, cache, tmp_path, 1)
    assert (task.dit.config.num_heads, task.dit.labels) == (2, LABELS)


@pytest.mark.parametrize(
    "setting",
    [
        {"checkpointing": True},
        {"optimizer": OptimizerSettings(fused=False)},
        pytest.param({"compile": True}, marks=pytest.mark.slow),
    ],
    ids=["checkpointing", "not fused", "compile"],
)
def test_settings_of_speed_and_memory_change_no_number(cache: Path, tmp_path: Path, setting: dict[str, Any]) -> None:
    plain = fit(DiffusionTask(size=SMALL), cache, tmp_path / "plain", 2)
    other = fit(DiffusionTask(size=SMALL, **setting), cache, tmp_path / "other", 2)
    torch.testing.assert_close(other.last_loss, plain.last_loss)


def test_weights_trained_in_double_precision_fit_their_base(cache: Path, base: Path, tmp_path: Path) -> None:
    for steps in (1, 2):  # the second resumes
        fit(DiffusionTask(dit=str(base)), cache, tmp_path, steps, resume=True, precision="64-true")
    assert load_dit(str(tmp_path / "weights")).y_embedder.embedding_table.weight.dtype == torch.float32


def test_parameters_of_16_bits_are_refused(cache: Path, base: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found bf16-true, expected 32-true, or bf16-mixed"):
        fit(DiffusionTask(dit=str(base)), cache, tmp_path, 1, precision="bf16-true")


def test_a_task_that_is_fitted_again_starts_its_average_anew(cache: Path, base: Path, tmp_path: Path) -> None:
    task = DiffusionTask(dit=str(base))
    for name in ("first", "second"):
        fit(task, cache, tmp_path / name, 3)
    first, second = (load_file(tmp_path / name / "weights" / "ema.safetensors") for name in ("first", "second"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_labels_are_dropped_once_a_forward_at_the_models_rate(cache: Path, tmp_path: Path) -> None:
    task = fit(DiffusionTask(size=SMALL), cache, tmp_path, 1)
    seen: list[Tensor] = []
    task.dit.y_embedder.register_forward_hook(lambda module, args, output: seen.append(args[0]))
    data = LatentDataModule(str(cache), batch_size=8)
    data.setup("fit")
    batch = data.train_dataloader().batches[0]
    for number in range(200):
        task.training_step(batch._replace(number=number), 0)
    assert len(seen) == 200
    assert (torch.stack(seen) == task.dit.null_label).float().mean().item() == pytest.approx(0.1, abs=0.02)


def test_an_unknown_label_is_an_error(cache: Path, tmp_path: Path) -> None:
    config = DiTConfig(input_size=4, num_classes=2, in_channels=2, hidden_size=16, depth=1, num_heads=2)
    model = DiT(config, ("ape", "elk"))
    initialise(model, 0)
    save_dit(model, tmp_path / "base")
    with pytest.raises(InputError, match=r"\(bee, cow\), expected labels of the model"):
        fit(DiffusionTask(dit=str(tmp_path / "base")), cache, tmp_path, 1)
    extended = fit(DiffusionTask(dit=str(tmp_path / "base"), label_table="extend"), cache, tmp_path, 1)
    assert extended.dit.labels == ("ape", "elk", "bee", "cow")
    replaced = fit(DiffusionTask(dit=str(tmp_path / "base"), label_table="replace"), cache, tmp_path, 1)
    assert replaced.dit.labels == LABELS


def test_latents_of_another_shape_are_an_error(cache: Path, tmp_path: Path) -> None:
    model = DiT(DiTConfig(input_size=8, num_classes=3, in_channels=2, hidden_size=16, depth=1, num_heads=2), LABELS)
    save_dit(model, tmp_path / "base")
    with pytest.raises(InputError, match=r"found shape \(2, 4, 4\), expected \(2, 8, 8\)"):
        fit(DiffusionTask(dit=str(tmp_path / "base")), cache, tmp_path, 1)


def test_a_loss_that_is_not_a_number_stops_the_run_before_it_is_saved(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found nan, expected a finite number"):
        fit(
            DiffusionTask(size=SMALL, optimizer=OptimizerSettings(learning_rate=1e30)),
            cache,
            tmp_path,
            40,
            log_every_n_steps=10,
        )
    assert not (tmp_path / "weights").exists()


def test_weights_inherit_the_terms_of_the_images(cache: Path, base: Path, tmp_path: Path) -> None:
    card = json.loads((cache / "latents.json").read_text())
    shutil.copytree(cache, tmp_path / "cache")
    (tmp_path / "cache" / "latents.json").write_text(json.dumps({**card, "licences": ["research only"]}))
    fit(DiffusionTask(dit=str(base)), tmp_path / "cache", tmp_path, 1)
    assert load_dit(str(tmp_path / "weights")).licences == ("research only",)


# ---- the moving average ------------------------------------------------------------------------------------------


class Watch(pl.Callback):
    """Keeps the parameters and the averages as a callback sees them after each batch."""

    def __init__(self) -> None:
        self.seen: list[tuple[Tensor, Tensor]] = []

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: DiffusionTask, *_: object) -> None:  # type: ignore[override]
        name = "dit.y_embedder.embedding_table.weight"
        self.seen.append((pl_module.get_parameter(name).detach().clone(), pl_module.ema.averages[name].clone()))


@pytest.mark.parametrize("batches", [1, 2])
def test_the_average_moves_once_a_step_before_a_callback_looks(
    cache: Path, base: Path, tmp_path: Path, batches: int
) -> None:
    watch = Watch()
    task = DiffusionTask(dit=str(base), average=AverageSettings(decay=0.5))
    fit(task, cache, tmp_path, 3, watch, accumulate_grad_batches=batches, max_epochs=-1)
    expected = load_dit(str(base)).y_embedder.embedding_table.weight.detach()
    assert len(watch.seen) == 3 * batches
    for parameter, average in watch.seen[batches - 1 :: batches]:
        expected = torch.lerp(expected, parameter, 0.5)
        torch.testing.assert_close(average, expected)


@pytest.mark.parametrize(("steps", "decay"), [(50, 1 - 1 / 5), (5, 0)])
def test_a_horizon_scales_the_decay_with_the_run(cache: Path, tmp_path: Path, steps: int, decay: float) -> None:
    task = DiffusionTask(size=SMALL, average=AverageSettings(horizon=0.1))
    assert fit(task, cache, tmp_path, steps).decay == pytest.approx(decay)


def test_a_horizon_needs_a_run_that_ends(cache: Path, tmp_path: Path) -> None:
    task = DiffusionTask(size=SMALL, average=AverageSettings(horizon=0.1))
    with pytest.raises(InputError, match=r"average\.horizon: found 0\.1 of a run without end, .* Set max_steps"):
        fit(task, cache, tmp_path, max_epochs=-1)


@pytest.mark.parametrize("settings", [{"decay": 1.0}, {"horizon": 0.0}])
def test_an_average_that_never_moves_is_refused(settings: dict[str, float]) -> None:
    with pytest.raises(InputError, match=r"(decay|horizon): found"):
        AverageSettings(**settings)


def change_checkpoint(root: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = root / "checkpoints" / "last.ckpt"
    content = torch.load(path, weights_only=True)
    change(content)
    torch.save(content, path)


def test_a_checkpoint_of_version_0_1_0_goes_on_with_its_average(
    cache: Path, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    """It had the average in the state of a callback and empty memories."""

    def as_before(content: dict[str, Any]) -> None:
        content["callbacks"]["EMA"] = content.pop("average")
        content["memories"] = None

    for name in ("through", "old"):
        fit(DiffusionTask(size=SMALL, average=AverageSettings(decay=0.5)), cache, tmp_path / name, 2, resume=True)
    change_checkpoint(tmp_path / "old", as_before)
    for name in ("through", "old"):
        fit(DiffusionTask(size=SMALL, average=AverageSettings(decay=0.5)), cache, tmp_path / name, 4, resume=True)
    for file in ("model.safetensors", "ema.safetensors"):
        assert (tmp_path / "old/weights" / file).read_bytes() == (tmp_path / "through/weights" / file).read_bytes()
    assert not [warning for warning in recwarn if "callbacks" in str(warning.message)]


def test_a_checkpoint_without_an_average_is_refused(cache: Path, tmp_path: Path) -> None:
    fit(DiffusionTask(size=SMALL), cache, tmp_path, 1, resume=True)
    change_checkpoint(tmp_path, lambda content: content.pop("average"))
    with pytest.raises(InputError, match="found no moving average"):
        fit(DiffusionTask(size=SMALL), cache, tmp_path, 2, resume=True)


def test_settings_are_stored_as_plain_values(cache: Path, tmp_path: Path) -> None:
    fit(DiffusionTask(size=SMALL), cache, tmp_path, 1, resume=True)
    stored = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["hyper_parameters"]
    assert stored["size"]["hidden_size"] == 16
    assert stored["optimizer"] == {"learning_rate": 1e-3, "weight_decay": 0.0, "fused": True}
