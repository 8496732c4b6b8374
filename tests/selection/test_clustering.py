import numpy as np
import pytest

from dgs_lightning.selection.clustering import interval_centers, kmeans_centers

LINE = np.array([[0.0], [2.0], [10.0], [12.0], [100.0]])


def test_centres_are_the_means_of_the_clusters() -> None:
    assert sorted(kmeans_centers(LINE[:4], 2).ravel().tolist()) == [1.0, 11.0]


def test_fewer_points_than_centres_are_used_themselves_over_again() -> None:
    assert kmeans_centers(LINE[:2], 5).ravel().tolist() == [0.0, 2.0, 0.0, 2.0, 0.0]


def test_equal_points_give_equal_centres_without_a_warning() -> None:
    assert kmeans_centers(np.ones((5, 3)), 2).tolist() == [[1.0] * 3] * 2


def test_the_same_seed_gives_the_same_centres() -> None:
    points = np.random.default_rng(0).normal(size=(300, 8))
    np.testing.assert_array_equal(kmeans_centers(points, 7, seed=0), kmeans_centers(points, 7, seed=0))


def test_centres_are_found_within_their_interval() -> None:
    centers, found = interval_centers(LINE, np.array([0, 0, 1, 1, 2]), np.array([1, 1, 1]))
    assert centers.ravel().tolist() == [1.0, 11.0, 100.0]
    assert found.tolist() == [0, 1, 2]


def test_an_interval_with_fewer_images_than_centres_uses_the_images() -> None:
    centers, found = interval_centers(LINE, np.array([0, 0, 1, 1, 2]), np.array([0, 1, 2]))
    assert centers.ravel().tolist() == [11.0, 100.0, 100.0]
    assert found.tolist() == [1, 2, 2]


def test_an_interval_without_images_uses_the_nearest_that_has_some() -> None:
    intervals = np.array([0, 0, 0, 0, 4])
    _, found = interval_centers(LINE, intervals, np.array([0, 0, 1, 1, 0]))
    assert found.tolist() == [0, 4]


def test_no_points_have_no_centres() -> None:
    with pytest.raises(ValueError, match="no points"):
        kmeans_centers(np.empty((0, 3)), 2)
    with pytest.raises(ValueError, match="no points"):
        interval_centers(np.empty((0, 3)), np.empty(0, dtype=int), np.array([1, 1]))
