"""What repeats say: mean, spread, 95 % interval, and two methods compared seed by seed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t, ttest_rel

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Repeats:
    """Mean and spread of n repeats.

    Attributes:
        count: Number of repeats.
        mean: Their mean.
        sample_std: Standard deviation with divisor n - 1; None for a single repeat. (The literature of dataset
            distillation has divisor n.)
        interval: 95 % interval of the mean by Student's t; None for a single repeat.
    """

    count: int
    mean: float
    sample_std: float | None
    interval: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two methods on the same seeds.

    Attributes:
        difference: Repeats of the first method's value minus the second's.
        wins: Number of seeds on which the first is larger.
        p_value: Two-sided, of the paired t-test; None for a single seed, and where all differences are equal.
    """

    difference: Repeats
    wins: int
    p_value: float | None


def summarize_repeats(values: Sequence[float]) -> Repeats:
    """Mean, spread and interval of repeats.

    Raises:
        ValueError: If there is none.
    """
    count = len(values)
    if not count:
        raise ValueError("No repeats: a mean needs at least one. Leave out what has not been run.")
    mean = float(np.mean(values))
    if count == 1:
        return Repeats(count, mean, None, None)
    sample = float(np.std(values, ddof=1))
    return Repeats(count, mean, sample, confidence_interval(mean, sample, count))


def confidence_interval(mean: float, sample_std: float, count: int) -> tuple[float, float]:
    """95 % interval of the mean of two or more repeats, by Student's t."""
    half = float(t.ppf((1 + CONFIDENCE) / 2, count - 1)) * sample_std / count**0.5
    return mean - half, mean + half


def compare_paired(first: Mapping[int, float], second: Mapping[int, float]) -> Comparison:
    """Compare two methods on the seeds that both were run with.

    Args:
        first: Value by seed.
        second: Value by seed.

    Raises:
        ValueError: If they have no seed in common.
    """
    seeds = sorted(first.keys() & second.keys())
    if not seeds:
        raise ValueError(
            "No seed in common: a paired comparison needs the same seeds. Run both with one list of seeds."
        )
    ours, theirs = np.array([first[seed] for seed in seeds]), np.array([second[seed] for seed in seeds])
    difference = ours - theirs
    varied = len(seeds) > 1 and bool(np.ptp(difference) > 0)
    p_value = float(ttest_rel(ours, theirs).pvalue) if varied else None
    return Comparison(summarize_repeats(difference.tolist()), int((difference > 0).sum()), p_value)
