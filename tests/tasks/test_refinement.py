"""Refinement of the latents of selected images: from a pool to refined images, on two devices, after a stop."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import lightning as L
import pytest
import torch
from tests.trained_dit import train_dit
from torch import Tensor

from dgs_lightning.callbacks.image_writer import ImageWriter
from dgs_lightning.commands.select import select
from dgs_lightning.data.cards import read_card, write_card
from dgs_lightning.data.folders import read_set
from dgs_lightning.data.records import ImageRecord, read_manifest, write_manifest
from dgs_lightning.datamodules.requests import RequestBatch, RequestDataModule
from dgs_lightning.errors import InputError
from dgs_lightning.examples import QUIET
from dgs_lightning.tasks.generation import GenerationTask
from dgs_lightning.tasks.refinement import Refinement, RefinementTask

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")
SHORT = Refinement(steps=5, lr=0.02)
SAMPLING: dict[str, Any] = {"steps": 10, "guidance_scale": 1.0}
RECORDS = [ImageRecord(f"{label}/00000.png", label, seed=seed) for seed, label in enumerate(["cat", "dog", "cat"])]


@pytest.fixture(scope="module")
def dit(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A DiT that has learned three greys."""
    return str(train_dit(tmp_path_factory.mktemp("dit")))


def generate(output: Path, task: GenerationTask, data: RequestDataModule, **trainer: Any) -> Path:  # noqa: ANN401
    L.Trainer(
        **{**QUIET, **trainer}, callbacks=[ImageWriter(str(output), grid=0)], default_root_dir=output.parent
    ).predict(task, data)
    return output


@pytest.fixture(scope="module")
def selected(dit: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two images of each class that were selected from a pool of five."""
    folder = tmp_path_factory.mktemp("selected")
    pool = generate(folder / "pool", GenerationTask(dit, **SAMPLING), RequestDataModule(images_per_class=5))
    return select(str(folder / "set"), pool=str(pool), method="random", ipc=2)


def refine_selected(dit: str, selected: Path, output: Path, devices: int = 1, limit: int | None = None) -> Path:
    task, data = RefinementTask(dit, SHORT, **SAMPLING), RequestDataModule(images=str(selected), batch_size=1)
    strategy = "ddp" if devices > 1 else "auto"
    return generate(output, task, data, devices=devices, strategy=strategy, limit_predict_batches=limit)


@pytest.fixture(scope="module")
def refined(dit: str, selected: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return refine_selected(dit, selected, tmp_path_factory.mktemp("refined") / "set")


def content(folder: Path) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_the_images_of_a_set_are_generated_again_from_their_seeds(dit: str, selected: Path, tmp_path: Path) -> None:
    data = RequestDataModule(images=str(selected), images_per_class=9, seed=7)  # those of the set count
    again = generate(tmp_path / "again", GenerationTask(dit, **SAMPLING), data)
    names = [record.file_name for record in read_set(selected)]
    assert len(names) == 6
    assert {name: (again / name).read_bytes() for name in names} == {
        name: (selected / name).read_bytes() for name in names
    }
    card = read_card(again)
    assert (card["kind"], "measures" in card) == ("distilled", False)
    assert card["provenance"][1] == {"role": "images", "folder": "set", "card": read_card(selected)}


def test_a_refined_set_has_the_names_of_the_selected_one_and_what_was_measured_of_each(
    refined: Path, selected: Path
) -> None:
    before, after = ({record.file_name: record for record in read_manifest(folder)} for folder in (selected, refined))
    assert before.keys() == after.keys()
    for name, record in after.items():
        assert (record.seed, record.index) == (before[name].seed, before[name].index)
        assert record.extra.keys() == set(RefinementTask.MEASURES)
        assert record.extra["moved_rms"] > 0
        assert (refined / name).read_bytes() != (selected / name).read_bytes()
    card = read_card(refined)
    means = {n: sum(record.extra[n] for record in after.values()) / len(after) for n in RefinementTask.MEASURES}
    assert card["measures"] == pytest.approx(means, abs=1e-4)
    assert card["settings"]["model"]["refinement"]["lr"] == 0.02


def test_two_devices_refine_as_one(
    dit: str, selected: Path, refined: Path, tmp_path: Path, on_two_devices: Callable[..., None]
) -> None:
    on_two_devices(refine_selected, dit, selected, tmp_path / "set", 2)
    assert content(tmp_path / "set") == content(refined)


def test_a_stopped_refinement_goes_on_with_what_it_measured(
    dit: str, selected: Path, refined: Path, tmp_path: Path
) -> None:
    output = refine_selected(dit, selected, tmp_path / "set", limit=2)
    assert not (output / "metadata.jsonl").exists()
    assert content(refine_selected(dit, selected, output)) == content(refined)
    (lost,) = list(output.glob("cat/*.png"))[:1]
    lost.unlink()
    (output / "metadata.jsonl").unlink()  # the only place of the measures
    assert content(refine_selected(dit, selected, output)) == content(refined)


def test_a_latent_is_refined_alike_in_any_batch(dit: str) -> None:
    task = RefinementTask(dit, SHORT)
    latents = torch.randn(3, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    together = task.refine(latents, RECORDS)
    torch.testing.assert_close(task.refine(latents[1:2], RECORDS[1:2]), together[1:2], rtol=1e-4, atol=1e-5)
    assert (task.refine(latents, [*RECORDS[1:], RECORDS[0]]) - together).abs().max() > 1e-3  # other noise, other labels


def test_the_presets_are_the_published_form_and_ours() -> None:
    released = Refinement("released").settled()
    assert released == {
        **{"timestep": "index", "label": "null", "max_weight": 10.0, "noise": "kept"},
        **{"lr": 6e-4, "steps": 100, "last_index": 11},
    }
    ours = {**released, "timestep": "mapped", "label": "class", "max_weight": 0.0, "noise": "fresh"}
    assert Refinement().settled() == ours
    assert Refinement("released", label="class", max_weight=0.0).settled() == {
        **released,
        **{"label": "class", "max_weight": 0.0},
    }


def draws_of(task: RefinementTask, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Tensor, ...]]:
    """Noise, index, timestep and labels that the steps of a refinement have."""
    seen: list[tuple[Tensor, ...]] = []

    def record(denoise: Any, latents: Tensor, draws: Any, **objective: Any) -> Tensor:  # noqa: ANN401
        seen.extend((draw.noise, draw.step) for draw in draws)
        return latents

    monkeypatch.setattr("dgs_lightning.tasks.refinement.refine", record)
    task.refine(torch.zeros(len(RECORDS), 1, 4, 4), RECORDS)
    return seen


@pytest.mark.parametrize("noise", ["fresh", "kept"])
def test_noise_is_fresh_or_kept_and_indices_are_within_their_limits(
    dit: str, monkeypatch: pytest.MonkeyPatch, noise: Literal["fresh", "kept"]
) -> None:
    seen = draws_of(RefinementTask(dit, Refinement(noise=noise, steps=60, last_index=3)), monkeypatch)
    different = {tuple(noise.flatten().tolist()) for noise, _ in seen}
    assert len(different) == {"fresh": 60, "kept": 1}[noise]
    for place in range(len(RECORDS)):
        assert {int(step[place]) for _, step in seen} == {1, 2, 3}
    assert len(set(map(tuple, seen[0][0].flatten(1).tolist()))) == len(RECORDS)  # noise of its own for each image


@pytest.mark.parametrize(("label", "expected"), [("class", [0, 2, 0]), ("null", [3, 3, 3])])
def test_the_network_is_asked_at_the_class_or_at_no_class_but_measured_at_the_class(
    dit: str, monkeypatch: pytest.MonkeyPatch, label: Literal["class", "null"], expected: list[int]
) -> None:
    task, asked = RefinementTask(dit, Refinement(label=label, steps=1, last_index=2)), list[list[int]]()
    plain = task.output

    def output(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        asked.append(y.tolist())
        return plain(x, t, y)

    monkeypatch.setattr(task, "output", output)
    task.refine(torch.zeros(3, 1, 4, 4), RECORDS)
    assert asked == [expected]
    task.class_loss(torch.zeros(3, 1, 4, 4), RECORDS)
    assert asked[1:] == [[0, 2, 0]] * 2  # once for each index


def test_the_class_loss_of_a_network_that_predicts_nothing_is_the_mean_square_of_its_noise(
    dit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = RefinementTask(dit, Refinement(last_index=2))
    monkeypatch.setattr(task, "output", lambda x, t, y: torch.zeros_like(x))
    torch.testing.assert_close(
        task.class_loss(torch.ones(3, 1, 4, 4), RECORDS),
        torch.stack([task._noise(RECORDS, "held out", i).square().mean((1, 2, 3)) for i in (1, 2)]).mean(0),
    )


@pytest.mark.parametrize("precision", ["bf16-true", "bf16-mixed"])
def test_latents_are_refined_in_float32_where_the_network_computes_in_half(
    dit: str, tmp_path: Path, precision: Literal["bf16-true", "bf16-mixed"]
) -> None:
    data = RequestDataModule(images_per_class=1)
    output = generate(tmp_path / "set", RefinementTask(dit, SHORT, steps=2), data, precision=precision)
    assert all(0 < record.extra["moved_rms"] <= 0.11 for record in read_manifest(output))  # 5 steps of 0.02


def test_the_trial_of_a_batch_takes_the_memory_of_a_step(dit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    task, tried = RefinementTask(dit, SHORT), list[tuple[int, int | None]]()

    def refine(latents: Tensor, records: Any, steps: int | None = None) -> Tensor:  # noqa: ANN401
        tried.append((len(latents), steps))
        return latents

    monkeypatch.setattr(task, "refine", refine)
    task.try_batch(RequestBatch(0, RECORDS))
    assert tried == [(3, 1)]


def without_seed(folder: Path) -> None:
    write_manifest(folder, [ImageRecord(r.file_name, r.label, r.class_name, r.index) for r in read_manifest(folder)])


def without_card(folder: Path) -> None:
    write_card(folder, {**read_card(folder), "provenance": []})


def with_another_card(folder: Path) -> None:
    write_card(folder, {**read_card(folder), "provenance": [{"role": "pool", "card": "lost"}]})


@pytest.mark.parametrize(
    ("change", "task", "message"),
    [
        (with_another_card, {}, r"\(no card of a pool\), expected images that 'dgs predict' generated"),
        (without_seed, {}, r"set: found images whose latents cannot be made again \(6 without a seed\), expected"),
        (without_card, {}, r"set: found images whose latents cannot be made again \(no card of a pool\), expected"),
        (None, {"steps": 4}, r"since their pool had other settings \(model.steps: 10 -> 4\)"),
        (None, {"guidance_scale": 2.0}, r"\(model.guidance_scale: 1.0 -> 2.0\)"),
    ],
)
def test_images_whose_latents_cannot_be_made_again_are_one_error_before_anything_is_written(
    dit: str,
    tmp_path: Path,
    change: Callable[[Path], None] | None,
    task: dict[str, Any],
    message: str,
) -> None:
    pool = generate(tmp_path / "pool", GenerationTask(dit, **SAMPLING), RequestDataModule(images_per_class=2))
    folder = select(str(tmp_path / "set"), pool=str(pool), method="first", ipc=2)
    if change:
        change(folder)
    with pytest.raises(InputError, match=message):
        generate(
            tmp_path / "refined",
            RefinementTask(dit, SHORT, **{**SAMPLING, **task}),
            RequestDataModule(images=str(folder)),
        )
    assert not (tmp_path / "refined").exists()
