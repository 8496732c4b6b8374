"""Difficulty-guided sampling of one class: the images that follow the sampling distribution (Algorithm 1)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from dgs_lightning.selection.distribution import (
    Counts,
    Floats,
    divergence,
    histogram,
    interval_of,
    sampling_distribution,
    wasserstein,
)
from dgs_lightning.selection.smoothing import PRESETS, Smoothed, SmoothingSettings, Thresholds, smooth_pair

Shortage = Literal["random", "nearest"]


@dataclass(frozen=True)
class Draw:
    """Images drawn by interval.

    Attributes:
        chosen: Positions in the pool, ascending.
        taken: Images that met the target, by interval.
        filled: Images taken instead of missing ones, by the interval they come from.
    """

    chosen: Counts
    taken: Counts
    filled: Counts


@dataclass(frozen=True)
class ClassSelection:
    """What was selected from one class and how it came about; all counts by interval of the smoothed difficulty.

    Attributes:
        smoothed: Pool and originals after smoothing, with their thresholds.
        target: The sampling distribution, shape ``(K,)``.
        available: The pool's images, shape ``(K,)``.
        draw: The images selected.
        kl: Divergence in bits of what was reached from the target.
        wasserstein: Mean shift of difficulty from the target, in ``[0, 1]``.
    """

    smoothed: Smoothed
    target: Counts
    available: Counts
    draw: Draw
    kl: float
    wasserstein: float


def draw_by_interval(intervals: Counts, target: Counts, order: Counts, shortage: Shortage = "random") -> Draw:
    """Take from each interval as many images as the target says, and make up for what is missing.

    Args:
        intervals: Interval of each image, shape ``(N,)``.
        target: Images wanted by interval, shape ``(K,)``.
        order: Positions from the most to the least preferred, shape ``(N,)``.
        shortage: Missing images are taken from all that are left, in their order (``random``, the paper's way), or
            for each missing one from the nearest interval that has any left, the easier of two (``nearest``).

    Returns:
        As many images as the target's sum, none twice.

    Raises:
        ValueError: If there are fewer images than that.
    """
    if target.sum() > len(intervals):
        raise ValueError(f"cannot take {target.sum()} of {len(intervals)} images; lower the IPC or enlarge the pool")
    ordered = intervals[order]
    within = np.empty_like(ordered)  # rank of each image among those of its interval
    grouped = np.argsort(ordered, kind="stable")
    available = np.bincount(ordered, minlength=len(target))
    within[grouped] = np.arange(len(ordered)) - np.repeat(np.cumsum(available) - available, available)
    taken = np.minimum(target, available)
    if shortage == "random":
        left = np.flatnonzero(within >= taken[ordered])
        filled = np.bincount(ordered[left[: target.sum() - taken.sum()]], minlength=len(target))
    else:
        filled = _nearest(target - taken, available - taken)
    chosen = np.sort(order[within < (taken + filled)[ordered]])
    return Draw(chosen, taken, filled)


def select_class(
    pool: Floats,
    original: Floats,
    ipc: int,
    rng: np.random.Generator,
    *,
    distribution: str | Sequence[float] = "scale",
    smoothing: SmoothingSettings | None = PRESETS["paper"],
    intervals: int = 10,
    shortage: Shortage = "random",
) -> ClassSelection:
    """Difficulty-guided sampling of one class (Algorithm 1, lines 2 to 9).

    Args:
        pool: Difficulties of the image pool, shape ``(N,)``, in the order of the images' names: the result depends on
            the order, and should not on how files happen to be listed.
        original: Difficulties of the original images, shape ``(M,)``; the pool's own where there are none.
        ipc: Images to select.
        rng: Source of the random draw, for this class alone.
        distribution: See :func:`~dgs_lightning.selection.distribution.sampling_distribution`.
        smoothing: The forks of Eq. 7 to 9, or ``None`` to sample on raw difficulties.
        intervals: Number K of intervals.
        shortage: How missing images are made up for, see :func:`draw_by_interval`.

    Returns:
        The selection with its account.

    Raises:
        ValueError: If the IPC is below 1 or above the pool's size, a set is empty, a score not in ``[0, 1]``, or the
            distribution none.
    """
    if not 1 <= ipc <= len(pool):
        raise ValueError(f"cannot select {ipc} of {len(pool)} images; give an IPC from 1 to the size of the pool")
    if smoothing is None:
        smoothed = Smoothed(pool, original, Thresholds(0, 0, False), Thresholds(0, 0, False))
    else:
        smoothed = smooth_pair(pool, original, ipc, smoothing, intervals)
    position = interval_of(smoothed.pool, intervals)
    available = np.bincount(position, minlength=intervals)
    target = sampling_distribution(distribution, ipc, histogram(smoothed.original, intervals), available)
    draw = draw_by_interval(position, target, rng.permutation(len(pool)), shortage)
    reached = draw.taken + draw.filled
    return ClassSelection(smoothed, target, available, draw, divergence(reached, target), wasserstein(reached, target))


def _nearest(missing: Counts, left: Counts) -> Counts:
    """Images to take by interval so that each missing one is made up for by the nearest interval that has any left."""
    filled, left = np.zeros_like(left), left.copy()
    intervals = np.arange(len(left))
    for wanted in np.repeat(intervals, missing):
        distance = np.where(left > 0, np.abs(intervals - wanted), len(left))
        nearest = int(np.argmin(distance))
        filled[nearest] += 1
        left[nearest] -= 1
    return filled
