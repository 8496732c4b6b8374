import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from dgs_lightning.reporting.folder import read_run
from dgs_lightning.reporting.summary import distribution_distance, paired_comparisons, summarize, summary_rows


def test_the_distance_is_the_mean_over_classes_of_the_shift_in_difficulty() -> None:
    original = {"cat": np.array([0.0, 0.2, 0.4]), "dog": np.array([0.5, 0.5]), "cow": np.array([0.9])}
    distilled = {"cat": np.array([0.1, 0.3, 0.5]), "dog": np.array([0.2])}
    assert distribution_distance(distilled, original) == pytest.approx((0.1 + 0.3) / 2)
    assert distribution_distance({"hen": np.array([0.1])}, original) is None


def test_rows_have_mean_and_sample_deviation_over_the_repeats(finished_run: Path) -> None:
    rows = summary_rows(read_run(finished_run))
    assert [(row["method"], row["ipc"], row["repeats"]) for row in rows] == [
        ("random", 4, 2),
        ("dit", 4, 2),
        ("dit_dgs", 4, 2),
        ("flat", 4, 2),
        ("full", None, 2),
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
    assert (dit["repeats"], dit["accuracy_last_mean"], dit["accuracy_last_std"]) == (1, 0.6, None)
    assert (random["network"], random["repeats"], random["accuracy_best_mean"]) == (None, 0, None)
    assert random["mean_difficulty"] is not None


def test_the_summary_has_its_published_form(finished_run: Path) -> None:
    summary = json.loads(json.dumps(summarize(read_run(finished_run)), allow_nan=False))
    assert sorted(summary) == ["experiment", "pool_legible", "rows", "seconds", "seed", "versions"]
    assert (summary["experiment"], summary["seed"]) == ("three-digits", 5)
    assert sorted(summary["rows"][0]) == sorted(
        [
            *("method", "ipc", "network", "repeats", "accuracy_last_mean", "accuracy_last_std"),
            *("accuracy_best_mean", "accuracy_best_std", "mean_difficulty", "distribution_distance"),
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
