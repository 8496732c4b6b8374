import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import entropy

from dgs_lightning.selection import search
from dgs_lightning.selection.distribution import Counts, Floats, histogram, largest_remainder
from dgs_lightning.selection.search import fit_thresholds, smooth_pair, threshold_histograms
from dgs_lightning.selection.smoothing import (
    PRESETS,
    SmoothingSettings,
    Thresholds,
    level_extremes,
    log_transform,
    smooth,
    smoothing_settings,
)

# Values that meet in the transform's bin edges (powers of ten between 1e-4 and 1) beside arbitrary ones.
SCORE = st.one_of(st.floats(0, 1), st.sampled_from([0.0, 1e-4, 1e-3, 0.01, 0.09, 0.1, 0.25, 0.5, 1.0]))
SCORES = st.lists(SCORE, min_size=1, max_size=60).map(lambda values: np.array(values, dtype=np.float64))
SETTINGS = st.builds(
    SmoothingSettings,
    extremes=st.sampled_from(["clip", "zero"]),
    zeros=st.sampled_from(["add", "replace"]),
    divergence=st.sampled_from(["forward", "reverse"]),
    density_epsilon=st.sampled_from([0.0, 1e-4]),
    weight=st.sampled_from([0.0, 0.5, 1.0]),
    search_fraction=st.sampled_from([None, 0.1, 0.5]),
)


def plain_objective(scores: Floats, bottom: int, top: int, settings: SmoothingSettings) -> float:
    """Eq. 9 for one pair of thresholds, by smoothing and counting."""
    if bottom + top >= len(scores):
        return np.inf
    levelled = level_extremes(scores, bottom, top, settings)
    if levelled.min() == levelled.max():
        return np.inf
    epsilon = settings.density_epsilon
    p = histogram(scores) / len(scores) + epsilon
    q = histogram(log_transform(levelled)) / len(scores) + epsilon
    pairs = [(settings.weight, p), (1 - settings.weight, np.full(10, 0.1))]
    forward = settings.divergence == "forward"
    return sum(w * float(entropy(q, t) if forward else entropy(t, q)) for w, t in pairs if w > 0)


def golden_cases(folder: Path) -> list[dict[str, Any]]:
    cases: list[dict[str, Any]] = json.loads((folder / "dgs.json").read_text())["cases"]
    return cases


@pytest.mark.golden
def test_the_released_preset_is_the_released_code(golden: Path) -> None:
    for case in golden_cases(golden):
        pool, original = np.array(case["pool_scores"]), np.array(case["original_scores"])
        found = smooth_pair(pool, original, case["ipc"], PRESETS["released"])
        assert (found.pool_thresholds.bottom, found.pool_thresholds.top) == (case["bottom"], case["top"])
        assert found.original_thresholds == found.pool_thresholds
        np.testing.assert_allclose(found.pool, case["pool_smoothed"], rtol=0, atol=1e-6)
        np.testing.assert_allclose(found.original, case["original_smoothed"], rtol=0, atol=1e-6)
        smoothed = largest_remainder(histogram(found.original), case["ipc"])
        assert smoothed.tolist() == case["sampling_distribution"]
        raw = largest_remainder(histogram(original), case["ipc"])
        assert raw.tolist() == case["sampling_distribution_unsmoothed"]


def test_the_logarithm_takes_both_ends_of_the_unit_interval() -> None:
    np.testing.assert_allclose(log_transform(np.array([0.1, 1.0, 0.001, 0.01])), [2 / 3, 1, 0, 1 / 3], atol=1e-15)


def test_clipped_extremes_take_the_value_of_the_next_one_inwards() -> None:
    scores = np.array([0.9, 0.1, 0.5, 0.3])
    clipped = level_extremes(scores, 1, 2, SmoothingSettings(epsilon=0.1))
    np.testing.assert_allclose(clipped, [0.4, 0.4, 0.4, 0.4])
    np.testing.assert_allclose(level_extremes(scores, 1, 0, SmoothingSettings(epsilon=0.1)), [1.0, 0.4, 0.6, 0.4])


def test_zeroed_extremes_send_the_hardest_images_to_the_easiest_interval() -> None:
    scores = np.array([0.9, 0.1, 0.5, 0.3])
    settings = SmoothingSettings(extremes="zero", epsilon=0.1)
    np.testing.assert_allclose(level_extremes(scores, 0, 1, settings), [0.1, 0.2, 0.6, 0.4])
    assert smooth(scores, Thresholds(0, 1, False), settings)[0] == 0


def test_replacing_zeros_leaves_the_other_scores_alone() -> None:
    scores = np.array([0.0, 0.5, 1.0])
    np.testing.assert_array_equal(level_extremes(scores, 0, 0, SmoothingSettings(zeros="replace")), [1e-4, 0.5, 1.0])
    np.testing.assert_allclose(level_extremes(scores, 0, 0, SmoothingSettings()), [1e-4, 0.5001, 1.0001])


def test_the_floor_keeps_smoothed_scores_above_zero() -> None:
    assert smooth(np.array([0.0, 0.5, 1.0]), Thresholds(0, 0, False), PRESETS["released"])[0] == 1e-4


@settings(deadline=None)
@given(SCORES, SETTINGS, st.integers(1, 11))
def test_histograms_of_all_pairs_are_those_of_smoothing_each(
    scores: Floats, forks: SmoothingSettings, intervals: int
) -> None:
    candidates = range(min(5, len(scores)))
    counts = threshold_histograms(scores, np.array(candidates), forks, intervals)
    for bottom in candidates:
        for top in candidates:
            expected = np.zeros(intervals, dtype=np.int64)
            if bottom + top < len(scores):
                levelled = level_extremes(scores, bottom, top, forks)
                if levelled.min() < levelled.max():
                    expected = histogram(log_transform(levelled), intervals)
            np.testing.assert_array_equal(counts[:, bottom, top], expected)


@settings(deadline=None)
@given(SCORES, SETTINGS, st.integers(1, 20))
def test_no_pair_of_the_grid_is_better_than_the_one_found(scores: Floats, forks: SmoothingSettings, ipc: int) -> None:
    found = fit_thresholds(scores, ipc, forks)
    reach = ipc // 2 if forks.search_fraction is None else round(forks.search_fraction * len(scores))
    grid = range(min(max(reach, 1), len(scores)))
    values = [[plain_objective(scores, b, t, forks) for t in grid] for b in grid]
    if found.degenerate:
        assert (found.bottom, found.top) == (0, 0)
        assert not np.isfinite(values).any()
    else:
        assert values[found.bottom][found.top] == pytest.approx(np.min(values), abs=1e-11)


@settings(deadline=None)
@given(SCORES, SETTINGS, st.integers(1, 60))
def test_excluding_blocks_of_pairs_changes_no_thresholds(scores: Floats, forks: SmoothingSettings, ipc: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "DIRECT", 2)
        found = fit_thresholds(scores, ipc, forks)
        patch.setattr(search, "DIRECT", search.MAX_CANDIDATES)
        assert found == fit_thresholds(scores, ipc, forks)


@pytest.mark.parametrize("preset", list(PRESETS))
def test_most_pairs_of_a_long_range_are_never_compared(preset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    compared = list[int]()
    plain = search._histograms

    def counting(ordered: Any, bottom: Counts, *others: Any) -> Counts:  # noqa: ANN401
        compared.append(len(bottom))
        return plain(ordered, bottom, *others)

    monkeypatch.setattr(search, "_histograms", counting)
    scores, forks = np.random.default_rng(0).beta(0.4, 0.8, 1300), smoothing_settings(preset, {"search_fraction": 0.5})
    found = fit_thresholds(scores, 50, forks)
    assert sum(compared) < search.MAX_CANDIDATES**2 / 5
    monkeypatch.setattr(search, "DIRECT", search.MAX_CANDIDATES)
    assert found == fit_thresholds(scores, 50, forks)


@settings(deadline=None)
@given(SCORES, SETTINGS, st.integers(1, 20))
def test_smoothed_scores_stay_in_the_unit_interval_and_in_order(
    scores: Floats, forks: SmoothingSettings, ipc: int
) -> None:
    smoothed = smooth(scores, fit_thresholds(scores, ipc, forks), forks)
    assert ((smoothed >= 0) & (smoothed <= 1)).all()
    if (forks.extremes, forks.zeros) == ("clip", "add"):
        assert (np.diff(smoothed[np.argsort(scores, kind="stable")]) >= 0).all()


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_equal_scores_cannot_be_spread_and_say_so(value: float) -> None:
    scores = np.full(20, value)
    for preset in PRESETS.values():
        found = fit_thresholds(scores, 10, preset)
        assert found == Thresholds(0, 0, degenerate=True)
        np.testing.assert_array_equal(smooth(scores, found, preset), scores)


def test_shared_thresholds_that_leave_no_original_change_nothing_and_say_so() -> None:
    pool, few = np.linspace(0.01, 1, 250), np.array([0.2, 0.4])
    found = smooth_pair(pool, few, 50, PRESETS["released"])
    assert found.pool_thresholds.bottom > 2
    assert not found.pool_thresholds.degenerate
    assert found.original_thresholds.degenerate
    np.testing.assert_array_equal(found.original, few)


def test_smoothing_fills_more_intervals_of_an_easy_pool() -> None:
    easy = np.linspace(0, 1, 250) ** 6
    smoothed = smooth_pair(easy, easy, 50, PRESETS["paper"]).pool
    assert histogram(easy).min() < histogram(smoothed).min()
    assert histogram(smoothed).max() < histogram(easy).max()


def test_a_long_search_range_is_tried_at_evenly_spaced_thresholds() -> None:
    found = fit_thresholds(np.linspace(0, 1, 6000) ** 6, 50, PRESETS["paper"])
    assert not found.degenerate
    assert max(found.bottom, found.top) < 600


def test_a_preset_can_be_changed_fork_by_fork() -> None:
    changed = smoothing_settings("released", {"divergence": "forward", "weight": 0.25})
    assert (changed.divergence, changed.weight, changed.zeros) == ("forward", 0.25, "replace")


@pytest.mark.parametrize(
    ("preset", "forks", "message"),
    [
        ("papers", {}, "choose one of paper, released"),
        ("paper", {"extreme": "clip"}, "unknown smoothing setting extreme"),
        ("paper", {"extremes": "cut"}, "one of clip, zero"),
        ("paper", {"epsilon": 0}, "epsilon"),
        ("paper", {"floor": 1.0}, "floor"),
        ("paper", {"weight": 1.5}, "weight"),
        ("paper", {"search_fraction": 0.6}, "search_fraction: found 0.6, expected at least 0, at most 0.5"),
    ],
)
def test_settings_without_meaning_are_refused(preset: str, forks: dict[str, float | str | None], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        smoothing_settings(preset, forks)


def test_thresholds_that_leave_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="leave none of 2"):
        level_extremes(np.array([0.1, 0.2]), 1, 1, SmoothingSettings())
    with pytest.raises(ValueError, match="no difficulties"):
        fit_thresholds(np.array([]), 10, SmoothingSettings())
