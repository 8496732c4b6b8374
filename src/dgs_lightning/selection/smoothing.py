"""Distribution smoothing: the logarithm with thresholds of Eq. 7 and 8, and the exact search for them of Eq. 9."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

import numpy as np
from scipy.special import rel_entr

from dgs_lightning.selection.distribution import Counts, Floats, check_scores, histogram, interval_edges

MAX_CANDIDATES = 512
"""Most values tried for one threshold; a longer range is searched at as many values, evenly spaced."""


@dataclass(frozen=True)
class SmoothingSettings:
    """The forks at which paper and released code part; the defaults are the preset ``paper``.

    Attributes:
        extremes: What Eq. 8 does to the ``b`` easiest and ``t`` hardest images. ``clip`` gives them the value of the
            next one inwards. ``zero`` is the Heaviside step read literally: all of them, the hardest too, become the
            easiest.
        zeros: How logarithms of 0 are avoided. ``add`` adds ``epsilon`` to every score (Eq. 8). ``replace`` puts
            ``epsilon`` in place of exact zeros only, which is meant for scores of four decimals: among finer ones a
            zero would count as harder than those in ``(0, epsilon)``.
        epsilon: The small value of Eq. 8. A smaller one spreads the easiest images wider.
        floor: Smallest smoothed score; a positive one keeps it away from 0 and moves no image to another interval.
        divergence: Direction of both divergences of Eq. 9. ``forward`` is D(f || P) and D(f || U): intervals that the
            originals of f leave empty are costly to fill. ``reverse`` is D(P || f) and D(U || f): an interval that f
            leaves empty is costly.
        density_epsilon: Added to the interval shares in Eq. 9. With 0 an empty interval makes the divergence infinite,
            and where all thresholds do, the search falls back to (0, 0).
        weight: Weight lambda of the deviation from P; the rest goes to the deviation from uniform. Towards 1 smoothing
            changes less.
        thresholds: ``separate`` fits one pair on the pool and one on the originals (Algorithm 1). ``shared`` fits one
            on the pool and applies the same two counts to the originals.
        search_fraction: Share of a set that either threshold may reach, at least one value. ``None`` tries
            ``0 .. IPC // 2 - 1`` in both; 0.1 is the share which that range has of a pool of 5 x IPC images.
    """

    extremes: Literal["clip", "zero"] = "clip"
    zeros: Literal["add", "replace"] = "add"
    epsilon: float = 1e-4
    floor: float = 0.0
    divergence: Literal["forward", "reverse"] = "forward"
    density_epsilon: float = 1e-4
    weight: float = 0.5
    thresholds: Literal["separate", "shared"] = "separate"
    search_fraction: float | None = 0.1

    def __post_init__(self) -> None:
        """Refuse values for which the equations are undefined."""
        for name, allowed in {
            "extremes": ("clip", "zero"),
            "zeros": ("add", "replace"),
            "divergence": ("forward", "reverse"),
            "thresholds": ("separate", "shared"),
        }.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}")
        for name in ("epsilon", "floor", "density_epsilon", "weight", "search_fraction"):
            value = getattr(self, name)
            if not isinstance(value, int | float) and not (value is None and name == "search_fraction"):
                raise ValueError(f"{name} must be a number, got {value!r}")
        if not self.epsilon > 0:
            raise ValueError(f"epsilon must be above 0, got {self.epsilon}; 0 has no logarithm")
        if not 0 <= self.floor < 1 or not self.density_epsilon >= 0:
            raise ValueError(f"need floor in [0, 1) and density_epsilon >= 0, got {self.floor}, {self.density_epsilon}")
        if not 0 <= self.weight <= 1:
            raise ValueError(f"weight must lie in [0, 1], got {self.weight}")
        if self.search_fraction is not None and not 0 <= self.search_fraction <= 0.5:
            raise ValueError(f"search_fraction must lie in [0, 0.5], got {self.search_fraction}; the ends would meet")


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
"""Settings by name: as the paper has it, and as its released code does."""


def smoothing_settings(preset: str, forks: Mapping[str, float | str | None] | None = None) -> SmoothingSettings:
    """A preset with some of its forks changed.

    Args:
        preset: ``paper`` or ``released``.
        forks: New values by field name of :class:`SmoothingSettings`.

    Raises:
        ValueError: If the preset or a fork is unknown, or a value is out of range.
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

    Attributes:
        bottom: Number b of the easiest images that are levelled.
        top: Number t of the hardest.
        degenerate: Smoothing does not do what it should. No pair had a finite divergence, so that (0, 0) was taken: the
            scores are all equal, or (without ``density_epsilon``) an interval stays empty whatever the thresholds. Or
            thresholds shared with a larger set leave none of this one, and its scores stay as they are.
    """

    bottom: int
    top: int
    degenerate: bool


@dataclass(frozen=True)
class Smoothed:
    """Pool and originals of a class after smoothing, with what smoothed them.

    Attributes:
        pool: Difficulties of the pool, in ``[0, 1]``, shape ``(N,)``.
        original: Difficulties of the originals, likewise, shape ``(M,)``.
        pool_thresholds: The pair that smoothed the pool.
        original_thresholds: The pair that smoothed the originals.
    """

    pool: Floats
    original: Floats
    pool_thresholds: Thresholds
    original_thresholds: Thresholds


def log_transform(scores: Floats) -> Floats:
    r"""Logarithm with a base that fits the data.

    .. math:: f = \frac{\ln(P / \min P)}{\ln(\max P / \min P)}

    Eq. 7.

    Args:
        scores: Positive, not all equal, shape ``(N,)``.

    Returns:
        Values in ``[0, 1]`` with both ends taken, in the order of ``scores``.
    """
    return _logarithm(scores, scores.min(), scores.max())


def level_extremes(scores: Floats, bottom: int, top: int, settings: SmoothingSettings) -> Floats:
    r"""The scores without their extremes, and positive.

    .. math:: P'(n) = H(n - b) \, P(n) \, H(N - n - t) + \epsilon

    Eq. 8, with the forks ``extremes``, ``zeros`` and ``epsilon``. Of equal scores the earlier counts as the easier.

    Args:
        scores: Difficulties in ``[0, 1]``, shape ``(N,)``, in any order.
        bottom: Number b of easiest images to level.
        top: Number t of hardest, with ``bottom + top < N``.
        settings: The forks.

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

    Scores that do not differ between the thresholds cannot be spread and are returned as they are.

    Args:
        scores: Difficulties in ``[0, 1]``, shape ``(N,)``.
        thresholds: From :func:`fit_thresholds`.
        settings: The forks.

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
    r"""Thresholds that smooth most while deviating least.

    .. math:: b, t = \arg\min_{b,t} \lambda D_{KL}(f \| P) + (1 - \lambda) D_{KL}(f \| U)

    Eq. 9 over histograms of ``intervals`` bins, with the forks of ``settings``. All pairs are tried at once: each bin
    edge of the transform is pulled back to score space, where the sorted scores are counted up to it. Of pairs that
    are equally good to 12 digits the one with the smallest bottom, then top, is taken.

    Args:
        scores: Difficulties in ``[0, 1]``, shape ``(N,)``.
        ipc: Images per class, the search range where ``search_fraction`` is ``None``.
        settings: The forks.
        intervals: Number K of bins.

    Returns:
        The pair, marked where the search degenerates.

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
    """Fit and smooth the pool and the originals of one class (Algorithm 1, lines 2 to 6).

    Args:
        pool: Difficulties of the pool, shape ``(N,)``.
        original: Difficulties of the originals, shape ``(M,)``.
        ipc: Images per class.
        settings: The forks; ``thresholds`` says whether each set gets its own pair.
        intervals: Number of bins of Eq. 9.

    Returns:
        Both sets smoothed, in their own order.

    Raises:
        ValueError: As :func:`fit_thresholds` does.
    """
    of_pool = fit_thresholds(pool, ipc, settings, intervals)
    if settings.thresholds == "separate":
        of_original = fit_thresholds(original, ipc, settings, intervals)
    else:
        too_many = of_pool.bottom + of_pool.top >= len(original)
        of_original = replace(of_pool, degenerate=of_pool.degenerate or too_many)
    return Smoothed(smooth(pool, of_pool, settings), smooth(original, of_original, settings), of_pool, of_original)


def threshold_histograms(scores: Floats, candidates: Counts, settings: SmoothingSettings, intervals: int) -> Counts:
    """Histogram of the smoothed scores for every pair of candidate thresholds, exact, without smoothing any score.

    Args:
        scores: Difficulties in ``[0, 1]``, shape ``(N,)``.
        candidates: Thresholds to pair, shape ``(R,)``, each below N.
        settings: The forks.
        intervals: Number K of bins.

    Returns:
        Counts by bin, bottom and top, shape ``(K, R, R)``; zeros where nothing differs between the thresholds.
    """
    count = len(scores)
    ordered = np.sort(_positive(scores, settings))
    bottom, top = np.meshgrid(candidates, candidates, indexing="ij")
    low, high = ordered[bottom], ordered[count - 1 - top]
    if settings.extremes == "zero":
        low = np.where(bottom + top > 0, min(settings.epsilon, ordered[0]), low)
    equal = (bottom + top >= count) | (low >= high)
    below = _count_below(ordered, low, np.where(equal, 2 * low, high), interval_edges(intervals))
    if settings.extremes == "zero":  # the levelled ones lie below every edge
        below = np.clip(below, bottom, count - top) + top
    counts = np.diff(below, axis=0, prepend=0, append=count)
    counts[:, equal] = 0
    return counts


def _count_below(ordered: Floats, low: Floats, high: Floats, edges: Floats) -> Counts:
    """How many of the ordered values the logarithm from low to high sends below each edge, shape ``(edges, R, R)``.

    The edge ``e`` lies at ``ln low + e (ln high - ln low)`` in log space. A value within rounding of it is put through
    the logarithm itself, so that counting here and binning smoothed scores never disagree.
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
    """What Eq. 9 minimises, in nats, for histograms ``(K, ...)``; infinite where undefined.

    A bin's term depends on its count alone, so that the terms of all possible counts are worked out once.
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
