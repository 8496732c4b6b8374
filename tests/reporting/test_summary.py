import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from scipy.stats import wasserstein_distance

from dgs_lightning.commands.select import select
from dgs_lightning.data.records import read_manifest
from dgs_lightning.reporting.folder import read_run
from dgs_lightning.reporting.notes import comparison_notes, result_notes
from dgs_lightning.reporting.overview import overview, overview_markdown
from dgs_lightning.reporting.summary import distribution_distance, paired_comparisons, summarize, summary_rows
from dgs_lightning.runs.layout import SetName
from dgs_lightning.selection.search import smooth_pair
from dgs_lightning.selection.smoothing import PRESETS


def test_the_distance_is_the_mean_over_classes_of_the_shift_in_difficulty() -> None:
    original = {"cat": np.array([0.0, 0.2, 0.4]), "dog": np.array([0.5, 0.5]), "cow": np.array([0.9])}
    distilled = {"cat": np.array([0.1, 0.3, 0.5]), "dog": np.array([0.2])}
    assert distribution_distance(distilled, original) == pytest.approx((0.1 + 0.3) / 2)
    assert distribution_distance({"hen": np.array([0.1])}, original) is None


def select_again(folder: Path, **settings: Any) -> None:  # noqa: ANN401
    """Select the set of DiT + DGS with other settings."""
    places = {"original": "data/train", "original_scores": "scores/original", "pool": "pools/dit"}
    paths = {name: str(folder / place) for name, place in {**places, "pool_scores": "scores/dit"}.items()}
    select(str(folder / "distilled" / "dit_dgs-ipc4"), ipc=4, **paths, **settings)


def test_the_smoothed_distance_compares_the_set_and_the_originals_as_the_selection_smoothed_them(
    finished_run: Path,
) -> None:
    run = read_run(finished_run)
    original, pool, distances = run.difficulties("original"), run.difficulties("dit"), []
    records = read_manifest(finished_run / "distilled" / "dit_dgs-ipc4")
    for label in original:
        ours = [record.extra["smoothed"] for record in records if record.label == label]
        theirs = smooth_pair(pool[label], original[label], 4, PRESETS["paper"]).original
        distances.append(wasserstein_distance(ours, theirs))
    rows = {row["method"]: row for row in summary_rows(run)}
    assert rows["dit_dgs"]["smoothed_distance"] == pytest.approx(np.mean(distances))
    assert rows["dit_dgs"]["smoothed_distance"] != rows["dit_dgs"]["distribution_distance"]
    assert [rows[name]["smoothed_distance"] for name in ("random", "dit", "full")] == [None] * 3


@pytest.mark.parametrize("changes", [{"smoothing": "none"}, {"method": "transport"}])
def test_a_selection_without_smoothing_has_no_smoothed_distance(run_folder: Path, changes: dict[str, str]) -> None:
    select_again(run_folder, **changes)
    row = next(row for row in summary_rows(read_run(run_folder)) if row["method"] == "dit_dgs")
    assert row["smoothed_distance"] is None
    accounts = read_run(run_folder).selection(SetName("dit_dgs", 4))["classes"].values()
    assert row["distribution_distance"] == pytest.approx(np.mean([of["raw"]["distance"] for of in accounts]))


def test_both_distances_are_shown_and_explained(run_folder: Path) -> None:
    run = read_run(run_folder)
    text = overview_markdown(overview(run, summarize(run)))
    assert "| Distance | Smoothed distance |" in text
    assert "Smoothed distance is the same between the smoothed difficulties" in text
    shutil.rmtree(run_folder / "scores" / "original")  # nothing to compare with
    alone = read_run(run_folder)
    assert "Smoothed distance" not in overview_markdown(overview(alone, summarize(alone)))


def test_rows_have_mean_and_sample_deviation_over_the_repeats(finished_run: Path) -> None:
    rows = summary_rows(read_run(finished_run))
    assert [(row["method"], row["ipc"], row["sets"], row["trainings"]) for row in rows] == [
        ("random", 4, 1, 2),
        ("dit", 4, 1, 2),
        ("dit_dgs", 4, 1, 2),
        ("flat", 4, 1, 2),
        ("full", None, 1, 2),
    ]
    assert rows[1]["accuracy_last_mean"] == pytest.approx(0.61)
    assert rows[1]["accuracy_last_std"] == pytest.approx(0.02 / math.sqrt(2))
    assert rows[1]["accuracy_best_mean"] == pytest.approx(0.62)
    assert rows[4]["distribution_distance"] == 0


def test_one_repeat_has_no_deviation_and_an_untrained_set_no_accuracy(run_folder: Path) -> None:
    shutil.rmtree(run_folder / "evaluation" / "dit-ipc4" / "convnet3" / "seed6")
    shutil.rmtree(run_folder / "evaluation" / "random-ipc4")
    rows = {row["method"]: row for row in summary_rows(read_run(run_folder))}
    dit, random = rows["dit"], rows["random"]
    assert (dit["trainings"], dit["accuracy_last_mean"], dit["accuracy_last_std"]) == (1, 0.6, None)
    assert (random["network"], random["trainings"], random["accuracy_best_mean"]) == (None, 0, None)
    assert random["mean_difficulty"] is not None


def test_the_summary_has_its_published_form(finished_run: Path) -> None:
    summary = json.loads(json.dumps(summarize(read_run(finished_run)), allow_nan=False))
    assert sorted(summary) == ["experiment", "pool_legible", "rows", "seconds", "seed", "versions"]
    assert (summary["experiment"], summary["seed"]) == ("three-digits", 5)
    assert sorted(summary["rows"][0]) == sorted(
        [
            *("method", "ipc", "network", "sets", "trainings", "accuracy_last_mean", "accuracy_last_std"),
            *(
                "accuracy_last_interval",
                "training_share",
                "accuracy_best_mean",
                "accuracy_best_std",
                "mean_difficulty",
                "distribution_distance",
                "smoothed_distance",
            ),
        ]
    )
    assert summary["seconds"]["pools/dit"] == 6.0
    assert 0.5 < summary["pool_legible"]["dit"] <= 1
    assert "torch" in summary["versions"]


def test_a_run_without_scores_has_neither_difficulty_nor_distance(run_folder: Path) -> None:
    shutil.rmtree(run_folder / "scores")
    rows = {row["method"]: row for row in summary_rows(read_run(run_folder))}
    assert (rows["full"]["mean_difficulty"], rows["full"]["distribution_distance"]) == (None, None)
    assert rows["dit_dgs"]["mean_difficulty"] is not None  # from its own manifest


def test_guidance_is_compared_with_its_counterpart_seed_by_seed(finished_run: Path) -> None:
    comparisons = paired_comparisons(read_run(finished_run))
    assert list(comparisons) == [("dit_dgs", "dit", 4, "convnet3")]
    comparison = comparisons["dit_dgs", "dit", 4, "convnet3"]
    assert comparison.difference.mean == pytest.approx(10)
    assert comparison.wins == 2


def with_two_draws(folder: Path) -> Path:
    """The run with a second draw of Random and DiT, and with the trainings of two draws on the full data set."""
    settings = yaml.safe_load((folder / "experiment.yaml").read_text())
    (folder / "experiment.yaml").write_text(yaml.safe_dump({**settings, "draws": 2}))
    for row, accuracy in {
        "random-ipc4-draw1": 0.7,
        "dit-ipc4-draw1": 0.6,
        "dit_dgs-ipc4-draw1": 0.8,
        "full": 0.8,
    }.items():
        for repeat in (0, 1):
            path = folder / "evaluation" / row / "convnet3" / f"seed{1005 + repeat}" / "result.json"
            path.parent.mkdir(parents=True)
            last = accuracy + 0.02 * repeat
            path.write_text(json.dumps({"accuracy_last": last, "accuracy_best": last}))
    shutil.copytree(folder / "distilled" / "random-ipc4", folder / "distilled" / "random-ipc4-draw1")
    return folder


def test_with_several_draws_the_spread_is_that_of_the_draws_and_the_share_of_training_is_known(
    run_folder: Path,
) -> None:
    rows = {row["method"]: row for row in summary_rows(read_run(with_two_draws(run_folder)))}
    random, full = rows["random"], rows["full"]
    assert (random["sets"], random["trainings"], full["sets"], full["trainings"]) == (2, 4, 1, 4)
    assert random["accuracy_last_mean"] == pytest.approx((0.51 + 0.71) / 2)
    assert random["accuracy_last_std"] == pytest.approx(0.2 / math.sqrt(2))  # of the draws' means, 0.51 and 0.71
    within, between = 0.02**2 / 2, 0.2**2 / 2
    assert random["training_share"] == pytest.approx(within / (within + between - within / 2))
    assert full["accuracy_last_std"] == pytest.approx(np.std([0.9, 0.92, 0.8, 0.82], ddof=1))
    assert full["training_share"] is None


def test_with_several_draws_methods_are_compared_draw_by_draw(run_folder: Path) -> None:
    comparison = paired_comparisons(read_run(with_two_draws(run_folder)))["dit_dgs", "dit", 4, "convnet3"]
    assert (comparison.difference.count, comparison.wins) == (2, 2)
    assert comparison.difference.mean == pytest.approx((10 + 20) / 2)


def test_draws_that_the_settings_no_longer_ask_for_are_left_out(run_folder: Path) -> None:
    before = summary_rows(read_run(run_folder))
    with_two_draws(run_folder)
    settings = yaml.safe_load((run_folder / "experiment.yaml").read_text())
    (run_folder / "experiment.yaml").write_text(yaml.safe_dump({**settings, "draws": 1}))
    assert summary_rows(read_run(run_folder)) == before


def notes(folder: Path, **settings: object) -> str:
    """The notes on the results and on the comparisons."""
    old = yaml.safe_load((folder / "experiment.yaml").read_text())
    (folder / "experiment.yaml").write_text(yaml.safe_dump(old | settings))
    run = read_run(folder)
    return " ".join([*result_notes(summarize(run), run), *comparison_notes(run)])


def test_notes_say_what_the_spread_has_in_it(run_folder: Path) -> None:
    one = notes(run_folder)
    assert "one draw, so the chance of the draw is not in the spread and the interval" in one
    assert "one draw, so the chance of the draw is not in p and the interval" in one
    assert "DiT: the first IPC images of each class of the pool." in one
    two = notes(with_two_draws(run_folder))
    assert "over the sets of a row, one for each draw" in two
    assert "All draws share the difficulty estimator" in two
    assert "Full dataset: one set, in which chance has no part" in two
    assert "Training noise: its estimated share" in two
    assert "one draw" not in two
    assert "equally near" not in two
    assert "not known how much of the spread comes from training" in notes(run_folder, repeats=1)


def test_notes_say_that_sets_of_transport_from_the_same_images_differ_only_in_ties(run_folder: Path) -> None:
    with_two_draws(run_folder)
    for part in ("distilled", "evaluation"):
        for old in (run_folder / part).glob("random-ipc4*"):
            old.rename(old.with_name(old.name.replace("random", "ori_transport")))
    text = notes(run_folder, methods=["ori_transport", "dit"])
    assert "Transport (Ori): chance decides only between equally near sets of the same images" in text


def test_trainings_with_soft_labels_are_rows_of_their_own_beside_the_same_network(run_folder: Path) -> None:
    for row, accuracy in (("random-ipc4", 0.96), ("dit-ipc4", 0.97), ("dit_dgs-ipc4", 0.98)):
        result = run_folder / "evaluation" / row / "soft" / "convnet3" / "seed5" / "result.json"
        result.parent.mkdir(parents=True)
        result.write_text(json.dumps({"accuracy_last": accuracy, "accuracy_best": accuracy}))
    before = summary_rows(read_run(run_folder))
    settings = yaml.safe_load((run_folder / "experiment.yaml").read_text())
    (run_folder / "experiment.yaml").write_text(yaml.safe_dump({**settings, "protocols": ["hard", "soft"]}))
    run = read_run(run_folder)
    rows = summary_rows(run)
    assert [row for row in rows if row["network"] == "convnet3"] == before
    soft = {row["method"]: row["accuracy_last_mean"] for row in rows if row["network"] == "soft/convnet3"}
    assert soft == {"random": 0.96, "dit": 0.97, "dit_dgs": 0.98}
    assert ("dit_dgs", "dit", 4, "soft/convnet3") in paired_comparisons(run)
    shown = overview_markdown(overview(run, summarize(run)))
    assert "| Random | 4 | ConvNet-3, soft labels | 1 | 1 | 96.0" in shown
    assert "measure the teacher, too" in shown
