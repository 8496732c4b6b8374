import csv
import json
import math
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from safetensors.torch import load_file
from torch import Tensor

from dgs_lightning.callbacks.checkpointing import ResumeCheckpoint
from dgs_lightning.data.latents import CacheSettings, finish_cache, write_shard
from dgs_lightning.data.records import ImageRecord
from dgs_lightning.datamodules.latents import LatentDataModule
from dgs_lightning.diffusion.objective import add_noise, training_terms
from dgs_lightning.errors import InputError
from dgs_lightning.models.dit.formats import load_dit, save_dit
from dgs_lightning.models.dit.network import DiT, DiTConfig, initialise
from dgs_lightning.tasks.minimax import MinimaxTask

LABELS = ("ape", "bee", "cow")
SMALL: dict[str, Any] = {"hidden_size": 16, "depth": 2, "num_heads": 2, "memory_size": 3}


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """22 latents of three classes, 2x4x4, with posteriors and flips."""
    folder = tmp_path_factory.mktemp("latents")
    records = sorted(
        (ImageRecord(f"{LABELS[i % 3]}/{i}.png", LABELS[i % 3]) for i in range(22)), key=lambda r: r.file_name
    )
    settings = CacheSettings("codec", "transform", (2, 4, 4), posterior=True, flips=2, dtype="float32")
    means = torch.randn(22, 2, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    write_shard(folder, settings.key("images"), torch.arange(22), means, torch.full_like(means, -4.0))
    finish_cache(folder, settings, records, "images")
    return folder


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DiT for the latents of ``cache`` that knows its classes and one more, in another order."""
    folder = tmp_path_factory.mktemp("base")
    config = DiTConfig(input_size=4, num_classes=4, in_channels=2, hidden_size=16, depth=2, num_heads=2)
    model = DiT(config, ("cow", "dog", "bee", "ape"))
    initialise(model, 0)
    with torch.no_grad():  # a model whose blocks do something, as after training
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)), alpha=0.05)
    save_dit(model, folder)
    return folder


def fit(task: MinimaxTask, cache: Path, root: Path, steps: int = -1, **trainer: object) -> MinimaxTask:
    settings: dict[str, Any] = {
        "accelerator": "cpu",
        "callbacks": [],
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        **trainer,
    }
    resume = "last" if settings["callbacks"] else None
    runner = pl.Trainer(max_steps=steps, default_root_dir=root, **settings)
    runner.fit(task, LatentDataModule(str(cache), batch_size=8), ckpt_path=resume)
    return task


def everything_in(checkpoint: Path) -> dict[str, Tensor]:
    """Trained parameters, moving averages and memories of a resume checkpoint, by name."""
    content = torch.load(checkpoint, weights_only=True)
    memories = {f"{m}.{name}": tensor for m, state in content["memories"].items() for name, tensor in state.items()}
    averages = {f"ema.{name}": tensor for name, tensor in content["callbacks"]["EMA"].items()}
    return {**content["state_dict"], **averages, **memories}


# ---- numbers -----------------------------------------------------------------------------------------------------


def test_the_loss_is_that_of_a_written_out_loop(cache: Path, base: Path, tmp_path: Path) -> None:
    """Two steps of the published method, written out with lists as memories."""
    task = fit(MinimaxTask(dit=str(base), representativeness=0.3, diversity=0.7), cache, tmp_path, 2)
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
    task = MinimaxTask(**SMALL, representativeness=0.5, diversity=0.5)
    strategy = "ddp" if devices > 1 else "auto"
    options: dict[str, Any] = {"devices": devices, "strategy": strategy, "precision": "64-true", "log_every_n_steps": 1}
    fit(task, cache, root, 10, logger=logger, enable_checkpointing=True, callbacks=[ResumeCheckpoint()], **options)


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
    task = MinimaxTask(dit=str(base), memory_size=3, ema_horizon=0.5)
    fit(task, cache, root, max_epochs=6, enable_checkpointing=True, callbacks=[*extra, ResumeCheckpoint(5)])


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


def test_a_finished_run_started_again_restores_its_weights(cache: Path, tmp_path: Path) -> None:
    for _ in range(2):
        fit(MinimaxTask(**SMALL), cache, tmp_path, 3, enable_checkpointing=True, callbacks=[ResumeCheckpoint()])
        written = (tmp_path / "weights" / "ema.safetensors").read_bytes()
        (tmp_path / "weights" / "ema.safetensors").unlink()
    fit(MinimaxTask(**SMALL), cache, tmp_path, 3, enable_checkpointing=True, callbacks=[ResumeCheckpoint()])
    assert (tmp_path / "weights" / "ema.safetensors").read_bytes() == written


# ---- what is trained and what is saved ---------------------------------------------------------------------------


def test_frozen_parameters_do_not_move_and_trained_ones_do(cache: Path, base: Path, tmp_path: Path) -> None:
    task = fit(MinimaxTask(dit=str(base)), cache, tmp_path, 3)
    before = load_dit(str(base)).state_dict()
    for name, parameter in task.dit.named_parameters():
        moved = name not in before or not torch.equal(parameter, before[name])
        assert moved == parameter.requires_grad, name
    assert sum(p.requires_grad for p in task.dit.parameters()) < len(before) / 2 + 8


def test_the_weights_hold_raw_and_average_of_what_was_trained(cache: Path, base: Path, tmp_path: Path) -> None:
    task = fit(MinimaxTask(dit=str(base), ema_decay=0.5), cache, tmp_path, 3)
    raw, ema = (load_dit(str(tmp_path / "weights"), weights=kind) for kind in ("raw", "ema"))
    trained = {name for name, parameter in task.dit.named_parameters() if parameter.requires_grad}
    assert load_file(tmp_path / "weights" / "model.safetensors").keys() == trained
    for name, parameter in task.dit.named_parameters():
        assert torch.equal(raw.get_parameter(name), parameter)
        assert torch.equal(ema.get_parameter(name), parameter) == (name not in trained), name


def test_a_resume_checkpoint_holds_nothing_that_is_frozen(cache: Path, base: Path, tmp_path: Path) -> None:
    task = MinimaxTask(dit=str(base))
    fit(task, cache, tmp_path, 1, enable_checkpointing=True, callbacks=[ResumeCheckpoint()])
    saved = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert saved.keys() == {f"dit.{name}" for name, p in task.dit.named_parameters() if p.requires_grad}


def test_without_criteria_it_trains_a_plain_dit(cache: Path, tmp_path: Path) -> None:
    task = MinimaxTask(**SMALL, representativeness=0.0, diversity=0.0)
    fit(task, cache, tmp_path, 2)
    assert task.criteria is None
    assert load_dit(str(tmp_path / "weights")).labels == LABELS


@pytest.mark.parametrize(("setting", "channels"), [("variational", 4), ("learn_sigma", 2)])
def test_sigma_need_not_be_learnt(cache: Path, tmp_path: Path, setting: str, channels: int) -> None:
    settings = {**SMALL, setting: False}
    task = fit(MinimaxTask(**settings), cache, tmp_path, 2)
    assert task.dit.config.out_channels == channels
    of_sigma = task.dit.final_layer.linear.bias.reshape(4, channels)[:, 2:]  # of each of the 4 pixels of a patch
    assert not of_sigma.any()


def test_a_file_of_no_published_size_is_fine_tuned(cache: Path, base: Path, tmp_path: Path) -> None:
    torch.save(load_dit(str(base)).state_dict(), tmp_path / "base.pt")
    settings: dict[str, Any] = {"dit": str(tmp_path / "base.pt"), "num_heads": 2, "label_table": "replace"}
    task = fit(MinimaxTask(**settings), cache, tmp_path, 1)
    assert (task.dit.config.num_heads, task.dit.labels) == (2, LABELS)


def test_accumulation_steps_once_for_several_batches(cache: Path, tmp_path: Path) -> None:
    task = fit(MinimaxTask(**SMALL, ema_decay=0.0), cache, tmp_path, 2, accumulate_grad_batches=2)
    assert task.trainer.global_step == 2
    assert task.criteria is not None
    assert int(task.criteria.real.pushed.sum()) == 4 * 8


@pytest.mark.parametrize(
    "setting",
    [{"checkpointing": True}, {"fused": False}, pytest.param({"compile": True}, marks=pytest.mark.slow)],
    ids=["checkpointing", "not fused", "compile"],
)
def test_settings_of_speed_and_memory_change_no_number(cache: Path, tmp_path: Path, setting: dict[str, Any]) -> None:
    plain = fit(MinimaxTask(**SMALL), cache, tmp_path / "plain", 2)
    other = fit(MinimaxTask(**{**SMALL, **setting}), cache, tmp_path / "other", 2)
    torch.testing.assert_close(other.last_loss, plain.last_loss)


def test_bf16_trains_parameters_that_stay_in_float32(cache: Path, base: Path, tmp_path: Path) -> None:
    task = fit(MinimaxTask(dit=str(base), memory_dtype="bfloat16"), cache, tmp_path, 3, precision="bf16-mixed")
    assert task.dit.y_embedder.embedding_table.weight.dtype == torch.float32
    assert task.criteria is not None
    assert task.criteria.real.directions.dtype == torch.bfloat16
    assert math.isfinite(task.last_loss)


def test_weights_trained_in_double_precision_fit_their_base(cache: Path, base: Path, tmp_path: Path) -> None:
    for steps in (1, 2):  # the second resumes
        callbacks: dict[str, Any] = {"enable_checkpointing": True, "callbacks": [ResumeCheckpoint()]}
        fit(MinimaxTask(dit=str(base)), cache, tmp_path, steps, precision="64-true", **callbacks)
    assert load_dit(str(tmp_path / "weights")).y_embedder.embedding_table.weight.dtype == torch.float32


def test_parameters_of_16_bits_are_refused(cache: Path, base: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found bf16-true, expected 32-true, or bf16-mixed"):
        fit(MinimaxTask(dit=str(base)), cache, tmp_path, 1, precision="bf16-true")


def test_a_task_that_is_fitted_again_starts_its_average_anew(cache: Path, base: Path, tmp_path: Path) -> None:
    task = MinimaxTask(dit=str(base))
    for name in ("first", "second"):
        fit(task, cache, tmp_path / name, 3)
    first, second = (load_file(tmp_path / name / "weights" / "ema.safetensors") for name in ("first", "second"))
    assert all(torch.equal(first[name], second[name]) for name in first)


# ---- labels ------------------------------------------------------------------------------------------------------


def test_labels_are_dropped_once_a_forward_at_the_models_rate(cache: Path, tmp_path: Path) -> None:
    task = fit(MinimaxTask(**SMALL), cache, tmp_path, 1)
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
    with pytest.raises(InputError, match=r"2 unknown labels \(bee, cow\), expected labels of the model"):
        fit(MinimaxTask(dit=str(tmp_path / "base")), cache, tmp_path, 1)
    extended = fit(MinimaxTask(dit=str(tmp_path / "base"), label_table="extend"), cache, tmp_path, 1)
    assert extended.dit.labels == ("ape", "elk", "bee", "cow")
    replaced = fit(MinimaxTask(dit=str(tmp_path / "base"), label_table="replace"), cache, tmp_path, 1)
    assert replaced.dit.labels == LABELS


def test_latents_of_another_shape_are_an_error(cache: Path, tmp_path: Path) -> None:
    model = DiT(DiTConfig(input_size=8, num_classes=3, in_channels=2, hidden_size=16, depth=1, num_heads=2), LABELS)
    save_dit(model, tmp_path / "base")
    with pytest.raises(InputError, match=r"found shape \(2, 4, 4\), expected \(2, 8, 8\)"):
        fit(MinimaxTask(dit=str(tmp_path / "base")), cache, tmp_path, 1)


def test_a_loss_that_is_not_a_number_stops_the_run_before_it_is_saved(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found nan, expected a finite number"):
        fit(MinimaxTask(**SMALL, learning_rate=1e30), cache, tmp_path, 40, log_every_n_steps=10)
    assert not (tmp_path / "weights").exists()


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"train": "bias"}, "parameters of another model, or another way of training"),
        ({"dit": "other"}, "parameters of another model, or another way of training"),
        ({"memory_size": 4}, r"a memory of shape \(3, 3, 32\) in place of \(3, 4, 32\)"),
    ],
)
def test_a_checkpoint_made_with_other_settings_is_refused(
    cache: Path, base: Path, tmp_path: Path, change: dict[str, Any], found: str
) -> None:
    other = load_dit(str(base))
    with torch.no_grad():
        other.x_embedder.proj.weight[0] += 1
    save_dit(other, tmp_path / "other")
    settings: dict[str, Any] = {"dit": str(base), "memory_size": 3}
    callbacks: dict[str, Any] = {"enable_checkpointing": True, "callbacks": [ResumeCheckpoint()]}
    fit(MinimaxTask(**settings), cache, tmp_path, 1, **callbacks)
    if "dit" in change:
        change = {"dit": str(tmp_path / "other")}
    with pytest.raises(InputError, match=f"found {found}"):
        fit(MinimaxTask(**{**settings, **change}), cache, tmp_path, 2, **callbacks)


def test_a_checkpoint_without_memories_cannot_go_on_with_criteria(cache: Path, tmp_path: Path) -> None:
    callbacks: dict[str, Any] = {"enable_checkpointing": True, "callbacks": [ResumeCheckpoint()]}
    fit(MinimaxTask(**SMALL, representativeness=0, diversity=0), cache, tmp_path, 1, **callbacks)
    with pytest.raises(InputError, match="found no memories"):
        fit(MinimaxTask(**SMALL), cache, tmp_path, 2, **callbacks)


@pytest.mark.parametrize("setting", ["memory_size", "learning_rate", "diversity"])
def test_a_setting_out_of_range_is_an_error(setting: str) -> None:
    below: dict[str, Any] = {setting: -1}
    with pytest.raises(InputError, match=f"{setting}: found -1"):
        MinimaxTask(**below)


def test_progress_is_logged(cache: Path, tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path, name="", version="")
    fit(MinimaxTask(**SMALL, log_classes=True), cache, tmp_path, 6, logger=logger, log_every_n_steps=2)
    rows = list(csv.DictReader((tmp_path / "metrics.csv").open()))
    assert [int(row["step"]) for row in rows] == [1, 3, 5]
    last = rows[-1]
    assert float(last["learning_rate"]) == pytest.approx(1e-3)
    assert float(last["memory_fill"]) == 1.0
    assert float(last["images_per_second"]) > 0
    assert {f"representativeness/{label}" for label in LABELS} <= last.keys()


def test_weights_inherit_the_terms_of_the_images(cache: Path, base: Path, tmp_path: Path) -> None:
    card = json.loads((cache / "latents.json").read_text())
    shutil.copytree(cache, tmp_path / "cache")
    (tmp_path / "cache" / "latents.json").write_text(json.dumps({**card, "licences": ["research only"]}))
    fit(MinimaxTask(dit=str(base)), tmp_path / "cache", tmp_path, 1)
    assert load_dit(str(tmp_path / "weights")).licences == ("research only",)
