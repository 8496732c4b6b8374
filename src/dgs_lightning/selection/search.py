"""The exact search for the thresholds of distribution smoothing, Eq. 9."""

from dataclasses import dataclass, replace

import numpy as np

from dgs_lightning.selection.distribution import Counts, Floats, histogram, interval_edges
from dgs_lightning.selection.smoothing import SmoothingSettings, Thresholds, scaled_logarithm, smooth, without_zeros

MAX_CANDIDATES = 512
"""Largest number of values that are tried for one threshold. In a longer range, this many values are evenly spaced."""
DIRECT = 32
"""Number of values up to which all pairs are compared. Of more, whole blocks of pairs are excluded first."""
SPLIT = 4  # parts of a block's side


@dataclass(frozen=True)
class Smoothed:
    """Pool and originals of a class after smoothing, with their thresholds."""

    pool: Floats  # difficulties in [0, 1], (N,)
    original: Floats  # difficulties in [0, 1], (M,)
    pool_thresholds: Thresholds
    original_thresholds: Thresholds


def fit_thresholds(scores: Floats, ipc: int, settings: SmoothingSettings, intervals: int = 10) -> Thresholds:
    r"""Thresholds that bring the smoothed histogram near to both that of the scores and a uniform one.

    .. math:: b, t = \arg\min_{b,t} \lambda D_{KL}(f \| P) + (1 - \lambda) D_{KL}(f \| U)

    Eq. 9 over histograms of ``intervals`` bins. The search is exact. For each pair, the bin edges of the smoothed
    scores are mapped back to scores, and the sorted scores below each edge are counted. Of pairs that are equal to 12
    decimals, the one with the smallest ``bottom`` is taken, and of these the one with the smallest ``top``.

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
    search = _Search(
        _Ordered.of(scores, settings), candidates, _terms(histogram(scores, intervals), settings), settings
    )
    bottom, top = search.possible()
    objective = np.round(search.objective(bottom, top), 12)
    best = objective.min(initial=np.inf)
    if not np.isfinite(best):
        return Thresholds(0, 0, degenerate=True)
    b, t = min(zip(bottom[objective == best].tolist(), top[objective == best].tolist(), strict=True))
    return Thresholds(int(candidates[b]), int(candidates[t]), degenerate=False)


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
    pairs = np.meshgrid(candidates, candidates, indexing="ij")
    return _histograms(_Ordered.of(scores, settings), *pairs, settings, intervals)


@dataclass(frozen=True)
class _Ordered:
    """Sorted scores without zeros, and for the different ones their logarithms and ranks."""

    scores: Floats  # (N,)
    different: Floats  # (D,)
    logs: Floats  # (D + 1,), the last one infinite
    rank: Counts  # number of smaller scores, (D + 1,), the last one N

    @classmethod
    def of(cls, scores: Floats, settings: SmoothingSettings) -> "_Ordered":
        ordered = np.sort(without_zeros(scores, settings))
        different, first = np.unique(ordered, return_index=True)
        return cls(ordered, different, np.append(np.log(different), np.inf), np.append(first, len(ordered)))

    @property
    def slack(self) -> float:
        """How near to an edge, in logarithms, rounding may decide on which side a score lies."""
        return 1e-12 * max(1.0, -float(self.logs[0]))


@dataclass(frozen=True)
class _Search:
    """Eq. 9 for pairs of thresholds, which are given as positions among the candidates."""

    ordered: _Ordered
    candidates: Counts  # (R,)
    terms: Floats  # of the objective, by bin and count, (K, N + 1)
    settings: SmoothingSettings

    def objective(self, bottom: Counts, top: Counts) -> Floats:
        """The objective in nats, for pairs ``(B,)``; infinite if it is undefined."""
        pairs = self.candidates[bottom], self.candidates[top]
        counts = _histograms(self.ordered, *pairs, self.settings, len(self.terms))
        value = sum(term[count] for term, count in zip(self.terms, counts, strict=True))
        return np.where(counts.any(axis=0), value, np.inf)

    def possible(self) -> tuple[Counts, Counts]:
        """Pairs among which the best is: all of a few, else those of the blocks that a bound does not exclude."""
        count, side = len(self.candidates), 1
        while side * DIRECT < count and self.settings.extremes == "clip":
            side *= SPLIT
        bottom, top = _grid(np.arange(0, count, side))
        best = np.inf
        while side > 1:
            best = self.objective(bottom, top).min(initial=best)
            bound = self.bound(bottom, top, side)
            kept = np.isfinite(bound) & (bound <= best + 1e-10)  # far more than rounding changes
            side //= SPLIT
            parts = _grid(np.arange(0, SPLIT * side, side))
            bottom, top = ((x[kept, None] + part).ravel() for x, part in zip((bottom, top), parts, strict=True))
            inside = (bottom < count) & (top < count)
            bottom, top = bottom[inside], top[inside]
        return bottom, top

    def bound(self, bottom: Counts, top: Counts, side: int) -> Floats:
        """Lower bound of the objective in blocks of ``side * side`` pairs, of which the first ones ``(B,)`` are given.

        Each edge moves up with ``bottom`` and down with ``top``. So the number of scores below it lies between those of
        two corners of the block, and the count of each bin lies in a range. The terms are convex in the count: the
        least of a range is at its point nearest to the least of all.
        """
        last = len(self.candidates) - 1
        corners = ((bottom, np.minimum(top + side - 1, last)), (np.minimum(bottom + side - 1, last), top))
        least, most = (self._below(*corner, sign) for corner, sign in zip(corners, (-1, 1), strict=True))
        fewest, largest = np.maximum(least[1:] - most[:-1], 0), most[1:] - least[:-1]
        nearest = np.clip(self.terms.argmin(axis=1)[:, None], fewest, largest)
        bound: Floats = np.take_along_axis(self.terms, nearest, axis=1).sum(axis=0)
        return bound

    def _below(self, bottom: Counts, top: Counts, sign: int) -> Counts:
        """Fewest (-1) or most (1) scores below each edge, with the ends of the scale, shape ``(K + 1, B)``."""
        scores, edges = self.ordered.scores, interval_edges(len(self.terms))[:, None]
        low, high = np.log(scores[self.candidates[bottom]]), np.log(scores[len(scores) - 1 - self.candidates[top]])
        pulled = low + edges * (high - low) + 2 * sign * self.ordered.slack
        inner = self.ordered.rank[np.searchsorted(self.ordered.logs, pulled, "left" if sign < 0 else "right")]
        return _with_ends(inner, len(scores))


def _grid(positions: Counts) -> tuple[Counts, Counts]:
    """All pairs of some positions ``(R,)``, each ``(R * R,)``."""
    return np.repeat(positions, len(positions)), np.tile(positions, len(positions))


def _histograms(ordered: _Ordered, bottom: Counts, top: Counts, settings: SmoothingSettings, intervals: int) -> Counts:
    """Histograms ``(K, ...)`` of the smoothed scores, for pairs of any shape; zeros if the pair is not defined."""
    scores, count = ordered.scores, len(ordered.scores)
    low, high = scores[bottom], scores[count - 1 - top]
    if settings.extremes == "zero":
        low = np.where(bottom + top > 0, min(settings.epsilon, scores[0]), low)
    equal = (bottom + top >= count) | (low >= high)
    below = _count_below(ordered, low, np.where(equal, 2 * low, high), interval_edges(intervals))
    if settings.extremes == "zero":  # the levelled scores lie below every edge
        below = np.clip(below, bottom, count - top) + top
    counts: Counts = np.diff(_with_ends(below, count), axis=0)
    counts[:, equal] = 0
    return counts


def _with_ends(below: Counts, count: int) -> Counts:
    """Scores below each edge, from the inner edges ``(K - 1, ...)`` to all, ``(K + 1, ...)``: first none, last all."""
    result = np.zeros((len(below) + 2, *below.shape[1:]), dtype=np.int64)
    result[1:-1], result[-1] = below, count
    return result


def _count_below(ordered: _Ordered, low: Floats, high: Floats, edges: Floats) -> Counts:
    """Number of scores whose logarithm, scaled from low to high, is below each edge, shape ``(edges, ...)``.

    The edge ``e`` lies at ``ln low + e (ln high - ln low)`` in log space. For scores that are within rounding error of
    an edge, the logarithm itself is computed, so that the counts always equal the histograms of smoothed scores.
    """
    logs, slack = ordered.logs, ordered.slack
    pulled = (np.log(low).ravel() + np.outer(edges, np.log(high) - np.log(low))).ravel()
    position = np.searchsorted(logs, pulled - slack)
    doubtful = np.flatnonzero(logs[position] <= pulled + slack)
    while doubtful.size:
        edge, cell = np.divmod(doubtful, low.size)
        smoothed = scaled_logarithm(ordered.different[position[doubtful]], low.flat[cell], high.flat[cell])
        doubtful = doubtful[smoothed < edges[edge]]
        position[doubtful] += 1
        doubtful = doubtful[logs[position[doubtful]] <= pulled[doubtful] + slack]
    counts: Counts = ordered.rank[position].reshape(len(edges), *low.shape)
    return counts


def _terms(reference: Counts, settings: SmoothingSettings) -> Floats:
    """Term of each bin in the objective of Eq. 9, in nats, for all possible counts: shape ``(K, N + 1)``.

    The term of a bin depends only on its count. ``reference`` are the counts ``(K,)`` of the scores before smoothing.
    """
    bins, total, epsilon = len(reference), reference.sum(), settings.density_epsilon
    p, q = ((n / total + epsilon) / (1 + bins * epsilon) for n in (reference[:, None], np.arange(total + 1)))
    terms = np.zeros((bins, total + 1))
    for weight, target in ((settings.weight, p), (1 - settings.weight, np.full((1, 1), 1 / bins))):
        if weight > 0:
            terms += weight * (
                _relative_entropy(q, target) if settings.divergence == "forward" else _relative_entropy(target, q)
            )
    return terms


def _relative_entropy(p: Floats, q: Floats) -> Floats:
    """Terms ``p ln(p / q)`` of a divergence, for shares whose shapes go together; each logarithm is taken once."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(p > 0, p * (np.log(p) - np.log(q)), 0.0)
