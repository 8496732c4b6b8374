"""Statistics of repeated runs: mean, spread, 95 % interval, and a comparison of two methods seed by seed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t, ttest_rel

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
        half = float(t.ppf((1 + CONFIDENCE) / 2, self.count - 1)) * self.sample_std / self.count**0.5
        return self.mean - half, self.mean + half


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two methods compared on the same seeds."""

    difference: Repeats  # for each seed, the first method's value minus the second's
    wins: int  # number of seeds on which the first value is larger
    p_value: float | None  # two-sided, of the paired t-test; None for one seed, or if all differences are equal


def summarize_repeats(values: Sequence[float]) -> Repeats:
    """Mean and spread of repeats. No values raise a ValueError."""
    if not values:
        raise ValueError("a mean needs at least one repeat; leave out settings that were not run")
    std = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Repeats(len(values), float(np.mean(values)), std)


def compare_paired(first: Mapping[int, float], second: Mapping[int, float]) -> Comparison:
    """Compare the values of two methods, given by seed, on the seeds that both have; none raises a ValueError."""
    seeds = sorted(first.keys() & second.keys())
    if not seeds:
        raise ValueError("a paired comparison needs the same seeds; run both methods with the same seeds")
    ours, theirs = np.array([first[seed] for seed in seeds]), np.array([second[seed] for seed in seeds])
    difference = ours - theirs
    varied = len(seeds) > 1 and bool(np.ptp(difference) > 0)
    p_value = float(ttest_rel(ours, theirs).pvalue) if varied else None
    return Comparison(summarize_repeats(difference.tolist()), int((difference > 0).sum()), p_value)
