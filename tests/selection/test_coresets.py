from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.random import default_rng
from torch import Tensor

from dgs_lightning.selection.coresets import (
    coverage_centric,
    herding,
    k_center_greedy,
    kmeans_coreset,
    random_coreset,
    right_first,
)
from dgs_lightning.selection.distribution import Counts, Floats

LINE = np.array([[0.0], [1.0], [2.0], [10.0], [11.0], [12.0]])
SCORES = st.lists(st.floats(0, 1), min_size=1, max_size=60).map(lambda values: np.array(values, dtype=np.float64))

METHODS: dict[str, Callable[[Floats, int], Counts]] = {
    "random": lambda x, ipc: random_coreset(len(x), ipc, default_rng(0)),
    "kcenter": k_center_greedy,
    "herding": herding,
    "kmeans": kmeans_coreset,
    "ccs": lambda x, ipc: coverage_centric(x, ipc, default_rng(0)),
    "right": lambda x, ipc: right_first(x > 0.5, x, ipc),
}


@settings(deadline=None, max_examples=30)
@given(scores=SCORES, name=st.sampled_from(list(METHODS)), data=st.data())
def test_every_method_selects_ipc_different_images(scores: Floats, name: str, data: st.DataObject) -> None:
    ipc = data.draw(st.integers(1, len(scores)))
    chosen = METHODS[name](scores, ipc)
    assert len(set(chosen.tolist())) == ipc
    assert set(chosen.tolist()) <= set(range(len(scores)))


@pytest.mark.parametrize("name", METHODS)
def test_more_images_than_there_are_cannot_be_selected(name: str) -> None:
    for ipc in (0, 4):
        with pytest.raises(ValueError, match=f"cannot select {ipc} of 3 images"):
            METHODS[name](np.zeros(3), ipc)


def test_k_center_starts_at_the_middle_and_goes_to_the_extremes() -> None:
    assert k_center_greedy(LINE, 3).tolist() == [2, 5, 0]


def test_k_center_covers_better_than_chance() -> None:
    points = default_rng(0).normal(size=(200, 2))

    def radius(chosen: Counts) -> float:
        return float(np.linalg.norm(points[:, None] - points[chosen], axis=2).min(axis=1).max())

    assert radius(k_center_greedy(points, 10)) < radius(random_coreset(200, 10, default_rng(0)))


def test_herding_keeps_the_mean() -> None:
    points = default_rng(0).normal(size=(200, 5))
    off = np.linalg.norm(points[herding(points, 10)].mean(axis=0) - points.mean(axis=0))
    at_random = points[random_coreset(200, 10, default_rng(0))].mean(axis=0) - points.mean(axis=0)
    assert off < 0.5 * np.linalg.norm(at_random)


def test_herding_by_hand() -> None:
    assert herding(np.array([[0.0], [1.0], [5.0]]), 2).tolist() == [1, 2]  # mean 2: first 1, then 3 = 2 * 2 - 1 -> 5


def test_kmeans_takes_one_image_of_each_cluster() -> None:
    assert sorted(kmeans_coreset(LINE, 2).tolist()) == [1, 4]


def test_kmeans_of_equal_images_takes_different_ones() -> None:
    assert sorted(kmeans_coreset(np.zeros((4, 2)), 3).tolist()) == [0, 1, 2]


def test_features_may_be_images() -> None:
    images = default_rng(0).random((6, 3, 4, 4), dtype=np.float32)
    assert k_center_greedy(images, 3).tolist() == k_center_greedy(images.reshape(6, -1), 3).tolist()


def test_ccs_drops_the_hardest_and_covers_the_rest() -> None:
    scores = np.linspace(0, 1, 101)
    chosen = scores[coverage_centric(scores, 10, default_rng(0), hard_cutoff=0.3, strata=10)]
    assert (chosen[:-1] // 0.071).tolist() == list(range(9))  # strata of width 0.071 over what is left, 0 to 0.71
    assert chosen.max() <= 0.71


def test_ccs_serves_the_smallest_stratum_first_and_shares_its_rest() -> None:
    scores = np.concatenate([np.full(20, 0.0), np.full(1, 0.5), np.full(9, 1.0)])
    chosen = scores[coverage_centric(scores, 9, default_rng(0), hard_cutoff=0.0, strata=3)]
    assert [int((chosen == v).sum()) for v in (0.0, 0.5, 1.0)] == [4, 1, 4]


def test_ccs_drops_fewer_where_the_ipc_needs_them() -> None:
    assert coverage_centric(np.linspace(0, 1, 10), 10, default_rng(0)).tolist() == list(range(10))
    with pytest.raises(ValueError, match="hard_cutoff"):
        coverage_centric(np.linspace(0, 1, 10), 5, default_rng(0), hard_cutoff=1.0)


@pytest.mark.golden
@pytest.mark.parametrize("case", ["plenty", "few", "none", "exact"])
def test_recognised_images_are_taken_and_filled_as_in_the_release_of_cao2(
    case: str, generative: Callable[[str], dict[str, Tensor]]
) -> None:
    values = generative("cao2.npz")
    logits, label, ipc = (values[f"select_{case}_{name}"] for name in ("logits", "class", "ipc"))
    confidence, predicted = logits.double().softmax(dim=1).max(dim=1)
    right = (predicted == label).numpy()
    assert np.flatnonzero(right).tolist() == values[f"select_{case}_correct"].tolist()
    for name, unsure in (("confident", False), ("unsure", True)):
        chosen = right_first(right, confidence.numpy(), int(ipc), unsure=unsure)
        assert chosen.tolist() == values[f"select_{case}_{name}"].tolist()
