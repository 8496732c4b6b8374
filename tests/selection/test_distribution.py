import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import entropy, wasserstein_distance

from dgs_lightning.selection.distribution import (
    DISTRIBUTIONS,
    PUBLISHED,
    divergence,
    histogram,
    interval_of,
    largest_remainder,
    level,
    published_distribution,
    sampling_distribution,
    wasserstein,
)

COUNTS = st.lists(st.integers(0, 2000), min_size=1, max_size=20).filter(any)


def test_a_score_on_an_edge_belongs_to_the_upper_interval() -> None:
    edges = np.array([0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
    assert interval_of(edges).tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9]
    assert interval_of(np.nextafter(edges[1:-1], 0)).tolist() == list(range(9))


def test_the_number_of_intervals_is_free() -> None:
    assert histogram(np.array([0.0, 0.24, 0.25, 0.5, 1.0]), 4).tolist() == [2, 1, 1, 1]
    assert histogram(np.array([0.0, 0.5, 1.0]), 1).tolist() == [3]
    with pytest.raises(ValueError, match="at least one interval, got 0"):
        histogram(np.array([0.5]), 0)


@pytest.mark.parametrize("scores", [[0.5, np.nan], [-0.1], [1.1], [np.inf], [[0.1, 0.2]]])
def test_what_is_no_difficulty_is_refused(scores: list[float]) -> None:
    with pytest.raises(ValueError, match="difficult"):
        histogram(np.array(scores))


def test_the_largest_remainders_get_what_is_left_and_ties_go_to_the_lower_interval() -> None:
    assert largest_remainder([1, 1, 1], 4).tolist() == [2, 1, 1]
    assert largest_remainder([6, 3, 1], 7).tolist() == [4, 2, 1]  # quotas 4.2, 2.1, 0.7
    assert largest_remainder([0.1, 0.2, 0.3], 6).tolist() == [1, 2, 3]  # decimals are meant as written


@given(COUNTS, st.integers(0, 3000))
def test_shares_are_whole_sum_to_the_total_and_miss_the_quota_by_less_than_one(weights: list[int], total: int) -> None:
    shares = largest_remainder(weights, total)
    assert shares.sum() == total
    assert (np.abs(shares - np.array(weights) * total / sum(weights)) < 1).all()


@pytest.mark.parametrize(("weights", "total"), [([0, 0], 3), ([1, -1], 3), ([1.0, np.nan], 3), ([1, 1], -1)])
def test_weights_that_cannot_be_scaled_are_refused(weights: list[float], total: int) -> None:
    with pytest.raises(ValueError, match=r"weights|share out"):
        largest_remainder(weights, total)


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("ipc", [10, 20, 50])
def test_published_vectors_are_kept_as_they_are(name: str, ipc: int) -> None:
    assert tuple(published_distribution(name, ipc)) == PUBLISHED[name][ipc]
    assert sum(PUBLISHED[name][ipc]) == ipc


def test_another_ipc_scales_the_vector_nearest_in_ratio() -> None:
    assert published_distribution("cliff", 100).tolist() == [40, 30, 6, 6, 4, 4, 4, 2, 2, 2]  # from 50
    assert published_distribution("cliff", 5).tolist() == [3, 2, 0, 0, 0, 0, 0, 0, 0, 0]  # from 10: 3, 1.5, 0, 0.5
    assert published_distribution("hill", 1).sum() == 1


def test_another_number_of_intervals_spreads_the_vector() -> None:
    assert published_distribution("slope", 50, intervals=5).tolist() == [20, 12, 10, 6, 2]
    assert published_distribution("ground", 10, intervals=20).sum() == 10
    assert published_distribution("ground", 20, intervals=20).tolist() == [1] * 20


def test_uniform_levels_what_the_pool_has() -> None:
    assert level(np.array([10, 0, 1, 5]), 8).tolist() == [4, 0, 1, 3]
    with pytest.raises(ValueError, match="cannot take 3 of 2"):
        level(np.array([1, 1]), 3)


@given(COUNTS, st.data())
def test_every_distribution_sums_to_the_ipc(pool: list[int], data: st.DataObject) -> None:
    counts = np.array(pool)
    ipc = data.draw(st.integers(1, int(counts.sum())))
    for name in DISTRIBUTIONS:
        assert sampling_distribution(name, ipc, counts[::-1], counts).sum() == ipc


def test_scale_follows_the_originals_and_pool_the_pool() -> None:
    original, pool = np.array([1, 3]), np.array([3, 1])
    assert sampling_distribution("scale", 4, original, pool).tolist() == [1, 3]
    assert sampling_distribution("pool", 4, original, pool).tolist() == [3, 1]


def test_own_numbers_are_taken_as_they_are_or_scaled() -> None:
    pool = np.array([5, 5, 5])
    assert sampling_distribution([3, 0, 1], 4, pool, pool).tolist() == [3, 0, 1]
    assert sampling_distribution([0.5, 0.25, 0.25], 8, pool, pool).tolist() == [4, 2, 2]
    with pytest.raises(ValueError, match="one number for each of the 3 intervals"):
        sampling_distribution([1, 2], 3, pool, pool)


def test_an_unknown_distribution_lists_the_known() -> None:
    with pytest.raises(ValueError, match="scale, hill, ground, slope, cliff, pool, uniform"):
        sampling_distribution("hills", 3, np.arange(10), np.arange(10))


def test_only_the_vectors_of_the_paper_are_published() -> None:
    with pytest.raises(ValueError, match="unknown distribution 'scale'; choose one of hill, ground, slope, cliff"):
        published_distribution("scale", 10)


def test_distances_agree_with_scipy() -> None:
    reached, target = np.array([4, 0, 1, 5]), np.array([1, 1, 4, 4])
    p, q = reached / 10 + 1e-4, target / 10 + 1e-4
    assert divergence(reached, target) == pytest.approx(entropy(p, q, base=2))
    centres = np.array([0.125, 0.375, 0.625, 0.875])
    assert wasserstein(reached, target) == pytest.approx(wasserstein_distance(centres, centres, reached, target))
    assert divergence(target, target) == wasserstein(target, target) == 0
