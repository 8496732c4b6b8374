"""Difficulty-guided sampling of one class: images that follow the sampling distribution (Algorithm 1)."""

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
from dgs_lightning.selection.search import Smoothed, smooth_pair
from dgs_lightning.selection.smoothing import PRESETS, SmoothingSettings, Thresholds

Shortage = Literal["random", "nearest"]


@dataclass(frozen=True)
class Draw:
    """Images drawn by interval."""

    chosen: Counts  # positions in the pool, ascending
    taken: Counts  # number of images from each interval that count towards its target, (K,)
    filled: Counts  # number of images from each interval that replace missing ones of other intervals, (K,)


@dataclass(frozen=True)
class ClassSelection:
    """The selection from one class. All counts are by interval of the smoothed difficulty."""

    smoothed: Smoothed  # pool and originals, with their thresholds
    target: Counts  # the sampling distribution, (K,)
    available: Counts  # number of images of the pool, (K,)
    draw: Draw
    kl: float  # divergence of the selected images from the target, in bits
    wasserstein: float  # mean shift of difficulty from the target, in [0, 1]


def draw_by_interval(intervals: Counts, target: Counts, order: Counts, shortage: Shortage = "random") -> Draw:
    """Draw the target's number of different images from each interval, and replace the images that an interval lacks.

    Args:
        intervals: Interval of each image, shape ``(N,)``.
        target: Number of images to take from each interval, shape ``(K,)``.
        order: Positions of the images, the preferred ones first, shape ``(N,)``.
        shortage: What replaces a missing image: the first of all remaining images in ``order`` (``random``, as in the
            paper), or an image of the nearest interval that has any left, of two the easier (``nearest``).

    Raises:
        ValueError: If there are fewer images than ``target.sum()``.
    """
    if target.sum() > len(intervals):
        raise ValueError(f"cannot take {target.sum()} of {len(intervals)} images; lower the IPC or enlarge the pool")
    ordered = intervals[order]
    within = np.empty_like(ordered)  # rank of each image in its interval
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
        pool: Difficulties of the image pool, shape ``(N,)``, in the order of the images' names. The result depends on
            this order, so it must not depend on the order of the files on disk.
        original: Difficulties of the original images, shape ``(M,)``; those of the pool if there are no originals.
        ipc: Images to select.
        rng: Source of the random draw, for this class alone.
        distribution: See :func:`~dgs_lightning.selection.distribution.sampling_distribution`.
        smoothing: Settings of Eq. 7 to 9, or ``None`` to use the difficulties without smoothing.
        intervals: Number K of intervals.
        shortage: What replaces missing images, see :func:`draw_by_interval`.

    Raises:
        ValueError: If the IPC is below 1 or above the size of the pool, a set is empty, a score is not in ``[0, 1]``,
            or the distribution is unknown.
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
    """Number of images from each interval, if each missing image is replaced by one from the nearest interval."""
    filled, left = np.zeros_like(left), left.copy()
    intervals = np.arange(len(left))
    for wanted in np.repeat(intervals, missing):
        distance = np.where(left > 0, np.abs(intervals - wanted), len(left))
        nearest = int(np.argmin(distance))
        filled[nearest] += 1
        left[nearest] -= 1
    return filled
