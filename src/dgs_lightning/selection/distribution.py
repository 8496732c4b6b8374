"""Difficulty intervals, histograms, and the sampling distribution: how many images to take from each interval."""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

PUBLISHED: Mapping[str, Mapping[int, tuple[int, ...]]] = MappingProxyType(
    {
        "hill": {
            10: (1, 0, 1, 0, 3, 3, 1, 0, 0, 1),
            20: (1, 1, 1, 2, 5, 5, 2, 1, 1, 1),
            50: (1, 3, 5, 6, 10, 10, 6, 5, 3, 1),
        },
        "ground": {10: (1,) * 10, 20: (2,) * 10, 50: (5,) * 10},
        "slope": {
            10: (3, 3, 1, 1, 0, 0, 1, 1, 0, 0),
            20: (5, 5, 2, 2, 1, 1, 1, 1, 1, 1),
            50: (10, 10, 6, 6, 5, 5, 3, 3, 1, 1),
        },
        "cliff": {
            10: (6, 3, 0, 1, 0, 0, 0, 0, 0, 0),
            20: (9, 6, 1, 1, 1, 1, 1, 0, 0, 0),
            50: (20, 15, 3, 3, 2, 2, 2, 1, 1, 1),
        },
    }
)
"""The predefined sampling distributions of Fig. 8, by name and IPC, from the easiest interval to the hardest."""

DISTRIBUTIONS = ("scale", *PUBLISHED, "pool", "uniform")
"""The names that :func:`sampling_distribution` knows."""


def check_scores(scores: Floats) -> None:
    """Check that an array holds difficulties.

    Raises:
        ValueError: If the array is not one-dimensional, or a score is NaN or outside ``[0, 1]``.
    """
    if scores.ndim != 1:
        raise ValueError(f"difficulties must be one-dimensional, got shape {scores.shape}; select class by class")
    if not ((scores >= 0) & (scores <= 1)).all():  # NaN compares false
        raise ValueError("every difficulty must lie in [0, 1] and none be NaN; score the images again")


def interval_edges(intervals: int) -> Floats:
    """Inner edges ``1/K, ..., (K-1)/K`` of K intervals of equal width, shape ``(K - 1,)``.

    Raises:
        ValueError: If ``intervals`` is below 1.
    """
    if intervals < 1:
        raise ValueError(f"need at least one interval, got {intervals}")
    return np.arange(1, intervals) / intervals


def interval_of(scores: Floats, intervals: int = 10) -> Counts:
    """Interval of each score. Interval ``k`` is ``[k/K, (k+1)/K)``, and the last one contains 1.

    Args:
        scores: Difficulties in ``[0, 1]``, shape ``(N,)``.
        intervals: Number K of intervals.

    Returns:
        Indices in ``0 .. K-1``, shape ``(N,)``.

    Raises:
        ValueError: If a score is not in ``[0, 1]``, or ``intervals`` is below 1.
    """
    check_scores(scores)
    return np.searchsorted(interval_edges(intervals), scores, side="right").astype(np.int64)


def histogram(scores: Floats, intervals: int = 10) -> Counts:
    """Number of scores in each interval, shape ``(K,)``. Arguments and errors are those of :func:`interval_of`."""
    return np.bincount(interval_of(scores, intervals), minlength=intervals).astype(np.int64)


def largest_remainder(weights: Sequence[float | Fraction] | Counts, total: int) -> Counts:
    """Whole numbers that sum to ``total`` and are as near as possible to the proportions of the weights.

    The computation is exact. Each interval gets its share, rounded down. The intervals with the largest remainders then
    get one more each until the sum is ``total``; of equal remainders, the lower interval comes first.

    Args:
        weights: Non-negative numbers, not all zero, shape ``(K,)``.
        total: The sum.

    Returns:
        Whole numbers, shape ``(K,)``.

    Raises:
        ValueError: If a weight is negative or not finite, all are zero, or ``total`` is negative.
    """
    if total < 0:
        raise ValueError(f"cannot share out {total} images; give an IPC of at least 1")
    try:
        plain = weights.tolist() if isinstance(weights, np.ndarray) else weights
        exact = [weight if isinstance(weight, int) else Fraction(str(weight)) for weight in plain]
    except ValueError:
        raise ValueError(f"weights must be finite numbers, got {list(weights)}") from None
    whole = sum(exact)
    if whole <= 0 or min(exact) < 0:
        raise ValueError("weights must be non-negative with at least one above zero; there is nothing to scale")
    quotas = [divmod(weight * total, whole) for weight in exact]
    shares = np.array([int(quota) for quota, _ in quotas], dtype=np.int64)
    by_remainder = sorted(range(len(quotas)), key=lambda k: (-quotas[k][1], k))
    shares[by_remainder[: total - int(shares.sum())]] += 1
    return shares


def published_distribution(name: str, ipc: int, intervals: int = 10) -> Counts:
    """A predefined distribution of Fig. 8, for any IPC and any number of intervals.

    At an IPC that Fig. 8 has, it is the published vector. At another IPC, the vector of the IPC with the nearest ratio
    (the smaller of two equally near) is scaled by :func:`largest_remainder`. For another number of intervals than ten,
    the images of each of the ten are first spread evenly over the interval.

    Args:
        name: ``hill``, ``ground``, ``slope`` or ``cliff``.
        ipc: Images per class, the sum of the result.
        intervals: Number K of intervals.

    Returns:
        Number of images from each interval, shape ``(K,)``.

    Raises:
        ValueError: If the name is unknown.
    """
    if name not in PUBLISHED:
        raise ValueError(f"unknown distribution {name!r}; choose one of {', '.join(PUBLISHED)}")
    vectors = PUBLISHED[name]
    nearest = min(vectors, key=lambda known: (max(Fraction(known, ipc), Fraction(ipc, known)), known))
    vector = np.array(vectors[nearest])
    parts = np.repeat(vector, intervals)  # each of the ten intervals is cut into K; ten parts make one of K intervals
    return largest_remainder(parts.reshape(intervals, len(vector)).sum(axis=1), ipc)


def level(available: Counts, total: int) -> Counts:
    """Take ``total`` images as evenly over the intervals as possible.

    Every interval gives the same number of images, or all its images if it has fewer. The remainder comes from the
    lower intervals, one image each.

    Args:
        available: Number of images in each interval, shape ``(K,)``.
        total: Images to take, at most ``available.sum()``.

    Returns:
        Number of images from each interval, shape ``(K,)``; their sum is ``total``.

    Raises:
        ValueError: If there are fewer images than ``total``.
    """
    if total > available.sum():
        raise ValueError(f"cannot take {total} of {available.sum()} images; lower the IPC or enlarge the pool")
    height = max(h for h in range(total + 1) if np.minimum(available, h).sum() <= total)
    taken = np.minimum(available, height)
    taken[np.flatnonzero(available > height)[: total - int(taken.sum())]] += 1
    return taken


def sampling_distribution(distribution: str | Sequence[float], ipc: int, original: Counts, pool: Counts) -> Counts:
    """How many images to take from each interval of a class: :math:`P_{samp}` of Algorithm 1.

    Args:
        distribution: ``scale``: the histogram of the originals, scaled to the IPC (the paper's choice); ``hill``,
            ``ground``, ``slope``, ``cliff``: see :func:`published_distribution`; ``pool``: the histogram of the pool,
            scaled; ``uniform``: as even over the intervals as the pool allows; or one number for each interval, scaled
            so that they sum to the IPC.
        ipc: Images per class.
        original: Histogram of the originals, shape ``(K,)``.
        pool: Histogram of the pool, shape ``(K,)``.

    Returns:
        Number of images from each interval, shape ``(K,)``; their sum is ``ipc``.

    Raises:
        ValueError: If the name is unknown, there are not K numbers, or there is nothing to scale.
    """
    if not isinstance(distribution, str):
        if len(distribution) != len(pool):
            raise ValueError(f"give one number for each of the {len(pool)} intervals, not {len(distribution)}")
        return largest_remainder(distribution, ipc)
    if distribution in PUBLISHED:
        return published_distribution(distribution, ipc, len(pool))
    match distribution:
        case "scale":
            return largest_remainder(original, ipc)
        case "pool":
            return largest_remainder(pool, ipc)
        case "uniform":
            return level(pool, ipc)
    raise ValueError(f"unknown distribution {distribution!r}; choose one of {', '.join(DISTRIBUTIONS)}")


def divergence(reached: Counts, target: Counts, epsilon: float = 1e-4) -> float:
    r"""Kullback-Leibler divergence :math:`D(reached \| target)` of two histograms in bits; 0 if they agree.

    Args:
        reached: Counts, shape ``(K,)``, at least one above zero.
        target: Counts, shape ``(K,)``, at least one above zero.
        epsilon: Added to both shares of every interval, so that an empty interval does not make the result infinite.

    Returns:
        A number of at least 0.
    """
    p, q = (_shares(counts) + epsilon for counts in (reached, target))
    p, q = p / p.sum(), q / q.sum()
    return max(float((p * np.log2(p / q)).sum()), 0.0)


def wasserstein(reached: Counts, target: Counts) -> float:
    """Wasserstein-1 distance of two histograms over the unit interval: the mean shift of difficulty, in ``[0, 1]``."""
    return float(np.abs(np.cumsum(_shares(reached) - _shares(target))).sum() / len(target))


def _shares(counts: Counts) -> Floats:
    shares: Floats = counts / counts.sum()
    return shares
