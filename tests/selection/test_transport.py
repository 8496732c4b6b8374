"""Transport, against cases worked out by hand, all sets of a small pool, and SciPy's distance."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.random import default_rng
from scipy.stats import wasserstein_distance

from dgs_lightning.selection.distribution import Floats
from dgs_lightning.selection.transport import closest_set, least_sums, rank_costs

SCORE = st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.25, 0.5, 1.0]))


def tenths(*numbers: int) -> Floats:
    return np.array(numbers) / 10


def chosen(pool: Floats, original: Floats, ipc: int, seed: int = 0) -> list[float]:
    return sorted(pool[closest_set(pool, original, ipc, default_rng(seed))].tolist())


def test_costs_and_choice_of_a_case_worked_out_by_hand() -> None:
    # Originals 0, 3, 6 (all in tenths), two ranks. Q(u) is 0, 3, 6 on thirds of u; a rank is a half.
    # Rank 1 is u < 1/2: Q is 0 for 1/3 and 3 for 1/6, so x costs |x| / 3 + |x - 3| / 6 = (2 |x| + |x - 3|) / 6.
    # Rank 2 is u > 1/2: Q is 3 for 1/6 and 6 for 1/3, so x costs (|x - 3| + 2 |x - 6|) / 6.
    #   x        1             2             4             7
    #   rank 1   (2 + 2)/6     (4 + 1)/6     (8 + 1)/6     (14 + 4)/6
    #   rank 2   (2 + 10)/6    (1 + 8)/6     (1 + 4)/6     (4 + 2)/6
    # 1 and 4 cost (4 + 5)/6 = 9/6; 1 and 7, 10/6; 2 and 4, 10/6; 2 and 7, 11/6; 1 and 2, 13/6; 4 and 7, 15/6.
    pool, original = tenths(7, 1, 4, 2), tenths(3, 6, 0)
    costs = np.array([[4, 12], [5, 9], [9, 5], [18, 6]]) / 6 / 10
    np.testing.assert_allclose(rank_costs(np.sort(pool), original, 2), costs, atol=1e-15)
    # Sums at rank 2: image 2 follows 1 (4 + 9), image 4 follows 1 (4 + 5), image 7 follows 1 (4 + 6).
    np.testing.assert_allclose(least_sums(costs), np.array([[4, 5, 9, 18], [np.inf, 13, 9, 10]]) / 6 / 10)
    assert closest_set(pool, original, 2, default_rng(0)).tolist() == [1, 2]
    assert wasserstein_distance(tenths(1, 4), original) == pytest.approx(9 / 6 / 10)


def test_an_image_that_two_ranks_want_is_taken_once() -> None:
    # Q is 4 everywhere, so 4 costs 0 at both ranks. 4 and 7 cost (0 + 3)/2, 0 and 4 cost (4 + 0)/2, 0 and 7 cost 7/2.
    assert chosen(tenths(0, 4, 7), tenths(4, 4), 2) == [0.4, 0.7]


def test_the_best_image_of_each_rank_alone_is_not_the_best_set() -> None:
    # One rank for each of 0, 5 and 6. The nearest images, taken in this order, are 0 (0), 6 (1) and 9 (3): 4 in all.
    # Each in its rank, 0, 4 and 6 cost 0 + 1 + 0. The pool has no better set.
    assert chosen(tenths(0, 4, 6, 9), tenths(0, 5, 6), 3) == [0.0, 0.4, 0.6]


def test_a_single_image_is_a_median() -> None:
    assert chosen(tenths(0, 1, 2, 9), tenths(1, 1, 1, 1, 9, 9, 9), 1) == [0.1]
    # Any difficulty between the two middle originals, 2 and 8, costs (|x - 2| + |x - 8|)/2 = 3: both images are drawn.
    drawn = {chosen(tenths(1, 3, 7, 9), tenths(2, 8), 1, seed)[0] for seed in range(30)}
    assert drawn == {0.3, 0.7}


@settings(deadline=None, max_examples=80)
@given(
    pool=st.lists(SCORE, min_size=1, max_size=8).map(np.array),
    original=st.lists(SCORE, min_size=1, max_size=12).map(np.array),
    seed=st.integers(0, 5),
    data=st.data(),
)
def test_no_set_of_a_small_pool_is_nearer(pool: Floats, original: Floats, seed: int, data: st.DataObject) -> None:
    ipc = data.draw(st.integers(1, len(pool)))
    positions = closest_set(pool, original, ipc, default_rng(seed))
    assert len(set(positions.tolist())) == ipc
    least = min(wasserstein_distance(pool[list(subset)], original) for subset in combinations(range(len(pool)), ipc))
    assert wasserstein_distance(pool[positions], original) == pytest.approx(least, abs=1e-11)


def test_the_sum_of_costs_is_scipys_distance() -> None:
    rng = default_rng(0)
    pool, original = rng.random(40), rng.random(130) ** 2
    ordered = np.sort(pool)
    assert np.trace(rank_costs(ordered, original, 40)) == pytest.approx(wasserstein_distance(pool, original), abs=1e-12)
    sums = least_sums(rank_costs(ordered, original, 7))
    found = pool[closest_set(pool, original, 7, rng)]
    assert sums[-1].min() == pytest.approx(wasserstein_distance(found, original), abs=1e-12)


def test_images_of_equal_difficulty_are_drawn_by_the_seed_alike() -> None:
    pool, original = tenths(3, 3, 3, 3, 9), tenths(3, 3, 9)
    draws = [closest_set(pool, original, 3, default_rng(seed)).tolist() for seed in range(600)]
    assert draws[0] == closest_set(pool, original, 3, default_rng(0)).tolist()
    assert all(4 in draw for draw in draws)
    pairs = [draws.count([a, b, 4]) for a, b in combinations(range(4), 2)]
    assert min(pairs) > 70  # 100 of 600 for each of the 6 pairs; below 70 is more than 3 standard deviations away
    assert max(pairs) < 130


def test_a_pool_without_originals_is_thinned_out_evenly() -> None:
    # Ranks are thirds of the pool; the middle image of each third costs least, (1 + 0 + 1) / 9 of a step.
    assert chosen(tenths(0, 1, 2, 3, 4, 5, 6, 7, 8), tenths(0, 1, 2, 3, 4, 5, 6, 7, 8), 3) == [0.1, 0.4, 0.7]


def test_an_impossible_selection_says_what_to_change() -> None:
    for ipc in (0, 4):
        with pytest.raises(ValueError, match=f"cannot select {ipc} of 3 images"):
            closest_set(np.zeros(3), np.zeros(3), ipc, default_rng(0))
    with pytest.raises(ValueError, match="no original difficulties"):
        closest_set(np.zeros(3), np.zeros(0), 1, default_rng(0))
    with pytest.raises(ValueError, match=r"lie in \[0, 1\]"):
        closest_set(np.array([0.5, np.nan]), np.zeros(3), 1, default_rng(0))
