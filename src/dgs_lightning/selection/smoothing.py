"""Distribution smoothing: the logarithm with thresholds of Eq. 7 and 8, and the exact search for them of Eq. 9."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Annotated, Any, Literal

import numpy as np
from scipy.special import rel_entr

from dgs_lightning.bounds import Above, AtLeast, Between, Group
from dgs_lightning.errors import InputError
from dgs_lightning.selection.distribution import Counts, Floats, check_scores, histogram, interval_edges

MAX_CANDIDATES = 512
"""Largest number of values that are tried for one threshold. In a longer range, this many values are evenly spaced."""


@dataclass(frozen=True)
class SmoothingSettings(Group):
    """Settings of Eq. 7 to 9 in which the paper and its released code differ. The defaults are the preset ``paper``.

    Attributes:
        extremes: What Eq. 8 does to the ``b`` easiest and ``t`` hardest images. ``clip`` sets them to the nearest score
            between the thresholds. ``zero`` takes the Heaviside step literally: all these images, the hardest too,
            become the easiest.
        zeros: How logarithms of 0 are avoided. ``add`` adds ``epsilon`` to every score (Eq. 8). ``replace`` replaces
            only exact zeros by ``epsilon``. It is meant for scores of four decimals: with finer scores, a zero would
            become harder than the scores in ``(0, epsilon)``.
        epsilon: The small value of Eq. 8. A smaller value spreads the easiest images more widely.
        floor: Smallest smoothed score. A positive value keeps scores above 0 and moves no image to another interval.
        divergence: Direction of both divergences of Eq. 9. ``forward`` is D(f || P) and D(f || U): it is costly if f
            fills intervals that are empty in P. ``reverse`` is D(P || f) and D(U || f): it is costly if f leaves an
            interval empty.
        density_epsilon: Added to the interval shares in Eq. 9. With 0, an empty interval makes the divergence
            infinite; if it is infinite for all thresholds, the result of the search is (0, 0).
        weight: Weight lambda of the divergence from P; that of the divergence from uniform is ``1 - lambda``. The
            nearer to 1, the less smoothing changes.
        thresholds: ``separate`` fits one pair on the pool and one on the originals (Algorithm 1). ``shared`` fits one
            pair on the pool and applies the same two counts to the originals.
        search_fraction: Largest share of a set that each threshold may level; at least one value is tried. ``None``
            tries ``0, ..., IPC // 2 - 1`` for both. In a pool of 5 x IPC images this range is a share of 0.1.
    """

    extremes: Literal["clip", "zero"] = "clip"
    zeros: Literal["add", "replace"] = "add"
    epsilon: Annotated[float, Above(0)] = 1e-4
    floor: Annotated[float, Between(0, 1, open="right")] = 0.0
    divergence: Literal["forward", "reverse"] = "forward"
    density_epsilon: Annotated[float, AtLeast(0)] = 1e-4
    weight: Annotated[float, Between(0, 1)] = 0.5
    thresholds: Literal["separate", "shared"] = "separate"
    search_fraction: Annotated[float | None, Between(0, 0.5)] = 0.1

    @classmethod
    def check_combination(cls, settings: Mapping[str, Any]) -> None:
        """Check that numbers are numbers: values of ``smoothing_forks`` in YAML may have any type."""
        for name in ("epsilon", "floor", "density_epsilon", "weight", "search_fraction"):
            value = settings[name]
            if not isinstance(value, int | float) and not (value is None and name == "search_fraction"):
                raise InputError.setting(name, repr(value), "a number")


PRESETS: Mapping[str, SmoothingSettings] = MappingProxyType(
    {
        "paper": SmoothingSettings(),
        "released": SmoothingSettings(
            zeros="replace",
            floor=1e-4,
            divergence="reverse",
            density_epsilon=0.0,
            thresholds="shared",
            search_fraction=None,
        ),
    }
)
"""Settings by name: those of the paper and those of its released code."""


def smoothing_settings(preset: str, forks: Mapping[str, float | str | None] | None = None) -> SmoothingSettings:
    """The settings of a preset, with changes.

    Args:
        preset: ``paper`` or ``released``.
        forks: New values by the name of the field of :class:`SmoothingSettings`.

    Raises:
        ValueError: If the preset or a field is unknown, or a value is outside its limits.
    """
    if preset not in PRESETS:
        raise ValueError(f"unknown smoothing {preset!r}; choose one of {', '.join(PRESETS)}")
    known = SmoothingSettings.__dataclass_fields__
    if unknown := sorted(set(forks or {}) - set(known)):
        raise ValueError(f"unknown smoothing setting {', '.join(unknown)}; known are {', '.join(known)}")
    return replace(PRESETS[preset], **(forks or {}))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Thresholds:
    """Result of Eq. 9.

    Smoothing is degenerate, which means that it failed, for one of two reasons. No pair has a finite divergence, and
    the result is (0, 0): all scores are equal, or (with ``density_epsilon`` 0) an interval is empty for all thresholds.
    Or the thresholds are those of a larger set and leave no image of this set; its scores then stay unchanged.
    """

    bottom: int  # number b of the easiest images that are levelled
    top: int  # number t of the hardest images that are levelled
    degenerate: bool


@dataclass(frozen=True)
class Smoothed:
    """Pool and originals of a class after smoothing, with their thresholds."""

    pool: Floats  # difficulties in [0, 1], (N,)
    original: Floats  # difficulties in [0, 1], (M,)
    pool_thresholds: Thresholds
    original_thresholds: Thresholds


def log_transform(scores: Floats) -> Floats:
    r"""Logarithm, scaled so that the smallest score becomes 0 and the largest 1.

    .. math:: f = \frac{\ln(P / \min P)}{\ln(\max P / \min P)}

    Eq. 7.

    Args:
        scores: Positive numbers, not all equal, shape ``(N,)``.

    Returns:
        Values in ``[0, 1]``, among them 0 and 1, in the order of ``scores``.
    """
    return _logarithm(scores, scores.min(), scores.max())


def level_extremes(scores: Floats, bottom: int, top: int, settings: SmoothingSettings) -> Floats:
    r"""Level the extremes of the scores, and make all scores positive.

    .. math:: P'(n) = H(n - b) \, P(n) \, H(N - n - t) + \epsilon

    Eq. 8, with the settings ``extremes``, ``zeros`` and ``epsilon``. Of equal scores, the earlier counts as easier.

    Args:
        scores: Difficulties in ``[0, 1]``, shape ``(N,)``, in any order.
        bottom: Number b of the easiest images to level.
        top: Number t of the hardest images to level, with ``bottom + top < N``.
        settings: Settings of the smoothing.

    Returns:
        Positive values, shape ``(N,)``, in the order of ``scores``.

    Raises:
        ValueError: If no image is left between the thresholds.
    """
    count = len(scores)
    if bottom < 0 or top < 0 or bottom + top >= count:
        raise ValueError(f"thresholds {bottom} and {top} leave none of {count} images; lower them")
    positive = _positive(scores, settings)
    order = np.argsort(positive, kind="stable")
    if settings.extremes == "clip":
        return np.clip(positive, positive[order[bottom]], positive[order[count - 1 - top]])
    easiest = min(settings.epsilon, positive[order[0]])
    positive[order[:bottom]] = easiest
    positive[order[count - top :]] = easiest
    return positive


def smooth(scores: Floats, thresholds: Thresholds, settings: SmoothingSettings) -> Floats:
    """Smoothed difficulties: Eq. 7 applied to Eq. 8.

    If no scores lie between the thresholds, or all that do are equal, the scores are returned unchanged.

    Args:
        scores: Difficulties in ``[0, 1]``, shape ``(N,)``.
        thresholds: From :func:`fit_thresholds`.
        settings: Settings of the smoothing.

    Returns:
        Values in ``[0, 1]``, shape ``(N,)``, in the order of ``scores``.

    Raises:
        ValueError: If a score is not in ``[0, 1]``.
    """
    check_scores(scores)
    if thresholds.bottom + thresholds.top >= len(scores):
        return scores
    levelled = level_extremes(scores, thresholds.bottom, thresholds.top, settings)
    if levelled.min() == levelled.max():
        return scores
    return np.maximum(log_transform(levelled), settings.floor)


def fit_thresholds(scores: Floats, ipc: int, settings: SmoothingSettings, intervals: int = 10) -> Thresholds:
    r"""Thresholds that bring the smoothed histogram near to both that of the scores and a uniform one.

    .. math:: b, t = \arg\min_{b,t} \lambda D_{KL}(f \| P) + (1 - \lambda) D_{KL}(f \| U)

    Eq. 9 over histograms of ``intervals`` bins. All pairs are tried at once: for each pair, the bin edges of the
    smoothed scores are mapped back to scores, and the sorted scores below each edge are counted. Of pairs that are
    equal to 12 decimals, the one with the smallest ``bottom`` is taken, and of these the one with the smallest ``top``.

    Args:
        scores: Difficulties in ``[0, 1]``, shape ``(N,)``.
        ipc: Images per class, which limit the search if ``search_fraction`` is ``None``.
        settings: Settings of the smoothing.
        intervals: Number K of bins.

    Raises:
        ValueError: If there is no score, or one is not in ``[0, 1]``.
    """
    if not len(scores):
        raise ValueError("there are no difficulties to smooth; leave the class out or score its images")
    limit = ipc // 2 if settings.search_fraction is None else round(settings.search_fraction * len(scores))
    limit = min(max(limit, 1), len(scores))
    candidates = np.unique(np.linspace(0, limit - 1, min(limit, MAX_CANDIDATES)).astype(np.int64))
    counts = threshold_histograms(scores, candidates, settings, intervals)
    objective = _objective(counts, histogram(scores, intervals), settings)
    best = int(np.argmin(np.round(objective, 12)))
    bottom, top = (int(candidates[i]) for i in np.unravel_index(best, objective.shape))
    return Thresholds(bottom, top, degenerate=not np.isfinite(objective.flat[best]))


def smooth_pair(pool: Floats, original: Floats, ipc: int, settings: SmoothingSettings, intervals: int = 10) -> Smoothed:
    """Fit and smooth the pool and the originals of one class, each in its own order (Algorithm 1, lines 2 to 6).

    Args:
        pool: Difficulties of the pool, shape ``(N,)``.
        original: Difficulties of the originals, shape ``(M,)``.
        ipc: Images per class.
        settings: Settings of the smoothing; ``thresholds`` says whether each set gets its own thresholds.
        intervals: Number of bins of Eq. 9.

    Raises:
        ValueError: If a set has no score, or one is not in ``[0, 1]``.
    """
    of_pool = fit_thresholds(pool, ipc, settings, intervals)
    if settings.thresholds == "separate":
        of_original = fit_thresholds(original, ipc, settings, intervals)
    else:
        too_many = of_pool.bottom + of_pool.top >= len(original)
        of_original = replace(of_pool, degenerate=of_pool.degenerate or too_many)
    return Smoothed(smooth(pool, of_pool, settings), smooth(original, of_original, settings), of_pool, of_original)


def threshold_histograms(scores: Floats, candidates: Counts, settings: SmoothingSettings, intervals: int) -> Counts:
    """Exact histograms of the smoothed scores for every pair of candidate thresholds, without smoothing any score.

    Args:
        scores: Difficulties in ``[0, 1]``, shape ``(N,)``.
        candidates: Values for both thresholds, shape ``(R,)``, each below N.
        settings: Settings of the smoothing.
        intervals: Number K of bins.

    Returns:
        Counts by bin, bottom and top, shape ``(K, R, R)``; zeros if all scores between the thresholds are equal.
    """
    count = len(scores)
    ordered = np.sort(_positive(scores, settings))
    bottom, top = np.meshgrid(candidates, candidates, indexing="ij")
    low, high = ordered[bottom], ordered[count - 1 - top]
    if settings.extremes == "zero":
        low = np.where(bottom + top > 0, min(settings.epsilon, ordered[0]), low)
    equal = (bottom + top >= count) | (low >= high)
    below = _count_below(ordered, low, np.where(equal, 2 * low, high), interval_edges(intervals))
    if settings.extremes == "zero":  # the levelled scores lie below every edge
        below = np.clip(below, bottom, count - top) + top
    counts = np.diff(below, axis=0, prepend=0, append=count)
    counts[:, equal] = 0
    return counts


def _count_below(ordered: Floats, low: Floats, high: Floats, edges: Floats) -> Counts:
    """Number of values whose logarithm, scaled from low to high, is below each edge, shape ``(edges, R, R)``.

    The edge ``e`` lies at ``ln low + e (ln high - ln low)`` in log space. For values that are within rounding error of
    an edge, the logarithm itself is computed, so that the counts always equal the histograms of smoothed scores.
    """
    values, first = np.unique(ordered, return_index=True)
    logs, first = np.append(np.log(values), np.inf), np.append(first, len(ordered))
    pulled = (np.log(low).ravel() + np.outer(edges, np.log(high) - np.log(low))).ravel()
    slack = 1e-12 * max(1.0, -float(logs[0]))
    position = np.searchsorted(logs, pulled - slack)
    doubtful = np.flatnonzero(logs[position] <= pulled + slack)
    while doubtful.size:
        edge, cell = np.divmod(doubtful, low.size)
        smoothed = _logarithm(values[position[doubtful]], low.flat[cell], high.flat[cell])
        doubtful = doubtful[smoothed < edges[edge]]
        position[doubtful] += 1
        doubtful = doubtful[logs[position[doubtful]] <= pulled[doubtful] + slack]
    counts: Counts = first[position].reshape(-1, *low.shape)
    return counts


def _objective(counts: Counts, reference: Counts, settings: SmoothingSettings) -> Floats:
    """The objective of Eq. 9 in nats, for histograms ``(K, ...)``; infinite if it is undefined.

    The term of a bin depends only on its count, so the terms of all possible counts are computed once.
    """
    bins, total, epsilon = len(reference), reference.sum(), settings.density_epsilon
    p, q = ((n / total + epsilon) / (1 + bins * epsilon) for n in (reference[:, None], np.arange(total + 1)))
    terms = np.zeros((bins, total + 1))
    for weight, target in ((settings.weight, p), (1 - settings.weight, np.full_like(p, 1 / bins))):
        if weight > 0:
            terms += weight * (rel_entr(q, target) if settings.divergence == "forward" else rel_entr(target, q))
    value = sum(term[count] for term, count in zip(terms, counts, strict=True))
    return np.where(counts.any(axis=0), value, np.inf)


def _positive(scores: Floats, settings: SmoothingSettings) -> Floats:
    """A copy of the scores without zeros."""
    if settings.zeros == "add":
        return scores + settings.epsilon
    zero = scores < np.finfo(np.float64).tiny  # ratios to subnormal numbers overflow
    return np.where(zero, settings.epsilon, scores)


def _logarithm(values: Floats, low: Floats, high: Floats) -> Floats:
    result: Floats = np.clip(np.log(values / low) / np.log(high / low), 0, 1)
    return result
