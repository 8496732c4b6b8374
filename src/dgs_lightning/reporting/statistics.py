"""Statistics of repeated measurements: mean, spread, 95 % interval, and a comparison of two methods pair by pair."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Repeats:
    """Number n, mean and standard deviation of repeated measurements."""

    count: int
    mean: float
    sample_std: float | None  # divisor n - 1, but n in the literature of dataset distillation; None for one repeat

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval of the mean by Student's t; None for a single repeat."""
        if self.sample_std is None:
            return None
        from scipy.stats import t  # slow to import

        half = float(t.ppf((1 + CONFIDENCE) / 2, self.count - 1)) * self.sample_std / self.count**0.5
        return self.mean - half, self.mean + half


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two methods compared on pairs of values."""

    difference: Repeats  # for each pair, the first method's value minus the second's
    wins: int  # number of pairs whose first value is larger
    p_value: float | None  # two-sided, of the paired t-test; None for one pair, or if all differences are equal


def summarize_repeats(values: Sequence[float]) -> Repeats:
    """Mean and spread of repeats. No values raise a ValueError."""
    if not values:
        raise ValueError("a mean needs at least one repeat; leave out settings that were not run")
    std = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Repeats(len(values), float(np.mean(values)), std)


def summarize_draws(values: Mapping[int, Sequence[float]]) -> Repeats:
    """Mean and spread of trainings by the draw of their set.

    With several draws, the draws are the measurements: each is the mean of its trainings, so that the spread has both
    the chance of the draw and the chance of training. With one draw, the trainings are the measurements, and the spread
    has the chance of training alone. No values raise a ValueError.

    Args:
        values: The trainings of each draw.
    """
    if len(values) == 1:
        return summarize_repeats(next(iter(values.values())))
    return summarize_repeats([summarize_repeats(trainings).mean for trainings in values.values()])


def training_share(values: Mapping[int, Sequence[float]]) -> float | None:
    """Share of the chance of training in the variance of one training, in ``[0, 1]``; the rest is chance of the draw.

    It is estimated by a one-way analysis of variance with random effects: the variance within the draws is that of
    training. The variance of the means of the draws has a part of it, which is subtracted.

    Args:
        values: The trainings of each draw.

    Returns:
        The share. None with fewer than two draws, with fewer than two trainings in each of them, or without variance.
    """
    groups = [np.asarray(trainings, dtype=np.float64) for trainings in values.values()]
    free = sum(len(group) - 1 for group in groups)
    if len(groups) < 2 or not free:
        return None
    training = float(sum(((group - group.mean()) ** 2).sum() for group in groups) / free)
    of_means = float(np.var([group.mean() for group in groups], ddof=1))
    draw = max(0.0, of_means - training * float(np.mean([1 / len(group) for group in groups])))
    return training / (training + draw) if training + draw else None


def compare_paired(first: Mapping[int, float], second: Mapping[int, float]) -> Comparison:
    """Compare two methods on the pairs that both have; none raises a ValueError.

    Args:
        first: Value of the first method by the number of the pair, which is a draw or a seed.
        second: Value of the second method by the number of the pair.
    """
    pairs = sorted(first.keys() & second.keys())
    if not pairs:
        raise ValueError("a paired comparison needs the same draws or seeds; run both methods with the same ones")
    ours, theirs = np.array([first[pair] for pair in pairs]), np.array([second[pair] for pair in pairs])
    from scipy.stats import ttest_rel  # slow to import

    difference = ours - theirs
    varied = len(pairs) > 1 and bool(np.ptp(difference) > 0)
    p_value = float(ttest_rel(ours, theirs).pvalue) if varied else None
    return Comparison(summarize_repeats(difference.tolist()), int((difference > 0).sum()), p_value)
