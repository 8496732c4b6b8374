import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from dgs_lightning.commands.select import select
from dgs_lightning.data.latents import CacheSettings, finish_cache, write_shard
from dgs_lightning.data.records import read_manifest
from dgs_lightning.reporting.album import figures_of
from dgs_lightning.reporting.folder import read_run
from dgs_lightning.runs.layout import SetName


def slugs(folder: Path) -> list[str]:
    return [figure.slug for figure in figures_of(read_run(folder))]


def test_a_finished_run_has_all_figures_that_its_methods_give(finished_run: Path) -> None:
    assert slugs(finished_run) == [
        *("accuracy", "accuracy-distance", "class-ipc4"),
        *("difficulty-ipc4", "distributions", "density-dit", "grid-dit"),
        *("samples-dit_dgs-ipc4", "scores-dit_dgs-ipc4", "smoothing-dit_dgs-ipc4"),
        *("samples-flat-ipc4", "scores-flat-ipc4", "smoothing-flat-ipc4"),
    ]


def test_the_caption_says_where_the_axis_of_accuracies_begins(run_folder: Path) -> None:
    assert "The axis begins at 45 %, not at 0." in next(figures_of(read_run(run_folder))).caption
    shutil.rmtree(run_folder / "evaluation" / "full")
    path = run_folder / "evaluation" / "dit-ipc4" / "convnet3" / "seed5" / "result.json"
    path.write_text('{"accuracy_last": 0.1, "accuracy_best": 0.2}')
    assert "axis" not in next(figures_of(read_run(run_folder))).caption


def test_the_hardest_class_is_shown_of_the_originals_and_of_each_method(finished_run: Path) -> None:
    run = read_run(finished_run)
    shown = next(figure for figure in figures_of(run) if figure.slug == "class-ipc4")
    hardest = max(run.difficulties("original").items(), key=lambda item: item[1].mean())[0]
    texts = [text.get_text() for text in shown.draw().axes[0].texts]
    assert texts[0] == f"Class {run.readable(hardest)}, 4 images a class"
    assert [text for text in texts[1:] if not text.startswith("0.")] == ["Original", "Random", "DiT", "DiT + DGS"]
    sets = [run.difficulties(name)[hardest] for name in ("random-ipc4", "dit-ipc4", "dit_dgs-ipc4")]
    assert [text for text in texts if text.startswith("0.")][8:] == [f"{score:.2f}" for of in sets for score in of]


def test_fig_7_is_of_the_easiest_and_the_hardest_class(finished_run: Path) -> None:
    run = read_run(finished_run)
    means = {run.readable(label): scores.mean() for label, scores in run.difficulties("original").items()}
    smoothing = next(figure for figure in figures_of(run) if figure.slug == "smoothing-dit_dgs-ipc4")
    shown = [part.get_suptitle() for part in smoothing.draw().subfigs]
    assert shown == [min(means, key=means.__getitem__), max(means, key=means.__getitem__)]


def test_fig_7_shows_the_draw_without_smoothing_above_the_draw_with_it(finished_run: Path) -> None:
    run = read_run(finished_run)
    account = run.selection(SetName("dit_dgs", 4))["classes"]
    smoothing = next(figure for figure in figures_of(run) if figure.slug == "smoothing-dit_dgs-ipc4")
    for part in smoothing.draw().subfigs:
        label = next(label for label in account if run.readable(label) == part.get_suptitle())
        drawn = [[bar.get_height() for bar in axes.patches] for axes in part.axes]  # type: ignore[attr-defined]
        for row, name in enumerate(("unsmoothed", "smoothed")):
            assert drawn[4 * row + 2] == account[label][name]["target"]
            assert drawn[4 * row + 3] == account[label][name]["distilled"]["counts"]


def test_figures_5_and_7_are_of_the_papers_two_classes_where_the_data_has_them(run_folder: Path) -> None:
    for path in [*run_folder.rglob("metadata.jsonl"), *run_folder.rglob("selection.json")]:
        path.write_text(path.read_text().replace("three", "n02086240").replace("eight", "n02089973"))
    for folder in [path for path in run_folder.rglob("*") if path.is_dir() and path.name in ("three", "eight")]:
        folder.rename(folder.with_name({"three": "n02086240", "eight": "n02089973"}[folder.name]))
    found = {figure.slug: figure for figure in figures_of(read_run(run_folder))}
    shown = [part.get_suptitle() for part in found["smoothing-dit_dgs-ipc4"].draw().subfigs]
    assert shown == ["Shih-Tzu", "English foxhound"]
    for kind in ("smoothing", "scores"):
        assert "the paper's two classes" in found[f"{kind}-dit_dgs-ipc4"].caption


@pytest.mark.parametrize("changes", [{"smoothing": "none"}, {"method": "transport"}])
def test_a_set_without_smoothing_has_no_figure_of_smoothing(run_folder: Path, changes: dict[str, Any]) -> None:
    places = {"original": "data/train", "original_scores": "scores/original", "pool_scores": "scores/dit"}
    paths = {name: str(run_folder / place) for name, place in {**places, "pool": "pools/dit"}.items()}
    select(str(run_folder / "distilled" / "dit_dgs-ipc4"), ipc=4, **paths, **changes)
    shown = slugs(run_folder)
    assert {"samples-dit_dgs-ipc4", "scores-dit_dgs-ipc4"} <= set(shown)
    assert "smoothing-dit_dgs-ipc4" not in shown


def test_a_run_without_results_and_scores_still_has_its_pictures(run_folder: Path) -> None:
    for part in ("evaluation", "scores", "pools"):
        shutil.rmtree(run_folder / part)
    assert slugs(run_folder) == [
        f"{kind}-{row}-ipc4" for row in ("dit_dgs", "flat") for kind in ("samples", "smoothing")
    ]
    shutil.rmtree(run_folder / "distilled")
    assert slugs(run_folder) == []


def test_every_figure_of_the_album_can_be_drawn(finished_run: Path) -> None:
    for figure in figures_of(read_run(finished_run)):
        assert figure.draw().get_size_inches().min() > 0
        assert figure.caption.endswith(".")


def test_recorded_trajectories_are_drawn_where_the_originals_latents_are_kept(run_folder: Path) -> None:
    shutil.move(run_folder / "distilled" / "random-ipc4", run_folder / "distilled" / "mgd3-ipc4")
    settings = (run_folder / "experiment.yaml").read_text().replace("- random", "- mgd3")
    (run_folder / "experiment.yaml").write_text(settings)
    paths = torch.rand(4, 6, 1, 8, 8)
    for name, more in (("pools/dit", {}), ("distilled/mgd3-ipc4", {"centers": torch.rand(4, 1, 8, 8)})):
        save_file({"predictions": paths, **more}, run_folder / name / "trajectories.safetensors", {"label": "zero"})
    assert not any("trajectories" in slug for slug in slugs(run_folder))
    cache = CacheSettings("pixels", "none", (1, 8, 8), posterior=False, flips=1, dtype="float32")
    records = read_manifest(run_folder / "data" / "train")
    latents = torch.rand(len(records), 1, 1, 8, 8)
    write_shard(run_folder / "latents", cache.key("images"), torch.arange(len(records)), latents, None)
    finish_cache(run_folder / "latents", cache, records, "images")
    drawn = next(figure for figure in figures_of(read_run(run_folder)) if figure.slug == "trajectories-ipc4")
    assert [axes.get_title("left") for axes in drawn.draw().axes] == ["DiT", "MGD3"]
    assert "the zero" in drawn.caption


def test_a_pool_from_elsewhere_is_called_the_given_pool(run_folder: Path) -> None:
    for part in ("scores", "pools"):
        shutil.copytree(run_folder / part / "dit", run_folder / part / "pool")
    captions = [figure.caption for figure in figures_of(read_run(run_folder))]
    assert any("and of the Given pool" in caption for caption in captions)
    assert not any("Pool pool" in caption for caption in captions)
