"""K-means centres of a class, or of each of its difficulty intervals, for guidance and coresets."""

import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from dgs_lightning.selection.distribution import Counts

Points = NDArray[np.floating]


def kmeans_centers(points: Points, count: int, seed: int = 0) -> Points:
    """K-means centres of a set of points.

    With no more points than centres, the points are returned, repeated as needed. The centres of a class are
    its modes in mode guidance (Chan-Santiago et al., "MGD3", ICML 2025).

    Args:
        points: Flattened latents or features, shape ``(N, D)``.
        count: Number of centres.
        seed: Seed of the k-means++ start.

    Returns:
        Centres, shape ``(count, D)``.

    Raises:
        ValueError: If there is no point.
    """
    if not len(points):
        raise ValueError("there are no points to cluster; leave the class out or give it images")
    if len(points) <= count:
        return points[np.arange(count) % len(points)]
    from sklearn.cluster import KMeans  # only here: it takes a second to import

    kmeans = KMeans(count, random_state=seed, n_init="auto")
    with alone():
        kmeans.fit(points)
    centers: Points = kmeans.cluster_centers_
    return centers


@contextmanager
def alone() -> Iterator[None]:
    """Let k-means compute on one core, without warnings, until the block ends."""
    from sklearn.exceptions import ConvergenceWarning  # only here, too

    with threadpool_limits(1), warnings.catch_warnings():  # threads add in any order, which changes the last digits
        warnings.simplefilter("ignore", ConvergenceWarning)  # with fewer distinct points than centres, some coincide
        yield


@contextmanager
def classes_in_threads(count: int) -> Iterator[ThreadPoolExecutor]:
    """Threads that each cluster another class, on one core each, so that the centres are those of one thread.

    Limits and warnings belong to the whole process, and so are set before the threads begin and reset after their end;
    only the number of OpenMP's threads is a thread's own.
    """
    with alone(), ThreadPoolExecutor(count, initializer=threadpool_limits, initargs=(1,)) as threads:
        yield threads


def interval_centers(points: Points, intervals: Counts, counts: Counts, seed: int = 0) -> tuple[Points, Counts]:
    """K-means centres within each difficulty interval of a class (Algorithm 2, lines 3 to 6).

    An interval without images takes its centres from the nearest interval with images; of two, from the easier one.

    Args:
        points: Flattened latents, shape ``(N, D)``.
        intervals: Difficulty interval of each point, shape ``(N,)``.
        counts: Number of centres of each interval, shape ``(K,)``: the sampling distribution.
        seed: Seed of the k-means++ starts.

    Returns:
        Centres, shape ``(counts.sum(), D)``, from the easiest interval to the hardest, and the interval of each.

    Raises:
        ValueError: If there is no point.
    """
    if not len(points):
        raise ValueError("there are no points to cluster; leave the class out or give it images")
    occupied = np.unique(intervals)
    wanted = np.arange(len(counts))
    nearest = occupied[np.abs(occupied[None, :] - wanted[:, None]).argmin(axis=1)]
    found = np.sort(np.repeat(nearest, counts))
    used, moved = np.unique(found, return_counts=True)
    centers = [kmeans_centers(points[intervals == k], int(n), seed) for k, n in zip(used, moved, strict=True)]
    return np.concatenate(centers), found
