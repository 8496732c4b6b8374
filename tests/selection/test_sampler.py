import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.random import default_rng

from dgs_lightning.selection.distribution import DISTRIBUTIONS
from dgs_lightning.selection.sampler import draw_by_interval, select_class
from dgs_lightning.selection.smoothing import PRESETS

SCORE = st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.5, 1.0]))
SCORES = st.lists(SCORE, min_size=1, max_size=80).map(lambda values: np.array(values, dtype=np.float64))
EVEN = np.array([0, 0, 0, 1, 1, 1, 2, 2, 2])


@settings(deadline=None)
@given(
    pool=SCORES,
    original=SCORES,
    distribution=st.sampled_from(DISTRIBUTIONS),
    smoothing=st.sampled_from([None, *PRESETS.values()]),
    shortage=st.sampled_from(["random", "nearest"]),
    intervals=st.integers(1, 12),
    data=st.data(),
)
def test_counts_sum_to_the_ipc_and_no_image_is_taken_twice(
    pool: np.ndarray,
    original: np.ndarray,
    distribution: str,
    smoothing: None,
    shortage: str,
    intervals: int,
    data: st.DataObject,
) -> None:
    ipc = data.draw(st.integers(1, len(pool)))
    found = select_class(
        pool,
        original,
        ipc,
        default_rng(0),
        distribution=distribution,
        smoothing=smoothing,
        intervals=intervals,
        shortage="nearest" if shortage == "nearest" else "random",
    )
    assert found.target.sum() == (found.draw.taken + found.draw.filled).sum() == ipc
    assert len(set(found.draw.chosen.tolist())) == ipc
    assert found.available.sum() == len(pool)
    assert (found.draw.taken == np.minimum(found.target, found.available)).all()
    assert found.kl >= 0
    assert 0 <= found.wasserstein <= 1
    if not found.draw.filled.any():
        assert found.kl == found.wasserstein == 0


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_a_class_of_equal_scores_is_sampled_at_random(value: float) -> None:
    found = select_class(np.full(30, value), np.full(7, value), 10, default_rng(0))
    assert found.smoothed.pool_thresholds.degenerate
    assert len(found.draw.chosen) == 10


def test_the_most_preferred_images_of_each_interval_are_taken() -> None:
    order = np.array([8, 5, 2, 7, 4, 1, 6, 3, 0])
    draw = draw_by_interval(EVEN, np.array([1, 2, 0]), order)
    assert draw.chosen.tolist() == [2, 4, 5]
    assert draw.taken.tolist() == [1, 2, 0]


def test_missing_images_come_from_all_that_are_left_in_order_of_preference() -> None:
    draw = draw_by_interval(EVEN, np.array([0, 5, 0]), np.arange(9)[::-1], "random")
    assert draw.chosen.tolist() == [3, 4, 5, 7, 8]
    assert draw.filled.tolist() == [0, 0, 2]


def test_missing_images_come_from_the_nearest_interval_the_easier_first() -> None:
    draw = draw_by_interval(EVEN, np.array([0, 7, 0]), np.arange(9), "nearest")
    assert draw.filled.tolist() == [3, 0, 1]
    draw = draw_by_interval(EVEN, np.array([0, 0, 5]), np.arange(9), "nearest")
    assert draw.filled.tolist() == [0, 2, 0]


def test_seeds_change_the_draw_and_the_same_seed_repeats_it() -> None:
    scores = np.linspace(0, 1, 100)
    draws = [select_class(scores, scores, 10, default_rng(seed)).draw.chosen.tolist() for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]


def test_sampling_follows_the_originals_where_the_pool_covers_them() -> None:
    hard, flat = np.linspace(0, 1, 400) ** 0.5, np.linspace(0, 1, 1000)
    found = select_class(flat, hard, 100, default_rng(0), smoothing=None)
    assert found.draw.taken.tolist() == [1, 3, 5, 7, 9, 11, 13, 15, 17, 19]
    assert flat[found.draw.chosen].mean() == pytest.approx(hard.mean(), abs=0.02)


@pytest.mark.parametrize("ipc", [0, 6])
def test_an_ipc_that_the_pool_cannot_give_is_refused(ipc: int) -> None:
    with pytest.raises(ValueError, match=f"cannot select {ipc} of 5 images"):
        select_class(np.zeros(5), np.zeros(5), ipc, default_rng(0))
    with pytest.raises(ValueError, match="cannot take 6 of 5"):
        draw_by_interval(np.zeros(5, dtype=int), np.array([6]), np.arange(5))


def test_a_score_that_is_not_a_number_is_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        select_class(np.array([0.1, np.nan]), np.array([0.1]), 1, default_rng(0))
