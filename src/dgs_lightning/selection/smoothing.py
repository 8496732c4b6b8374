"""Distribution smoothing: the logarithm of Eq. 7, the thresholds of Eq. 8, and the settings of both and of Eq. 9."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Annotated, Any, Literal

import numpy as np

from dgs_lightning.bounds import Above, AtLeast, Between, Group
from dgs_lightning.errors import InputError
from dgs_lightning.selection.distribution import Floats, check_scores


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


def log_transform(scores: Floats) -> Floats:
    r"""Logarithm, scaled so that the smallest score becomes 0 and the largest 1.

    .. math:: f = \frac{\ln(P / \min P)}{\ln(\max P / \min P)}

    Eq. 7.

    Args:
        scores: Positive numbers, not all equal, shape ``(N,)``.

    Returns:
        Values in ``[0, 1]``, among them 0 and 1, in the order of ``scores``.
    """
    return scaled_logarithm(scores, scores.min(), scores.max())


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
    positive = without_zeros(scores, settings)
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
        thresholds: From :func:`~dgs_lightning.selection.search.fit_thresholds`.
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


def without_zeros(scores: Floats, settings: SmoothingSettings) -> Floats:
    """A copy of the scores ``(N,)`` without zeros, as the settings ``zeros`` and ``epsilon`` say."""
    if settings.zeros == "add":
        return scores + settings.epsilon
    zero = scores < np.finfo(np.float64).tiny  # ratios to subnormal numbers overflow
    return np.where(zero, settings.epsilon, scores)


def scaled_logarithm(values: Floats, low: Floats, high: Floats) -> Floats:
    """Logarithm of positive values, scaled so that ``low`` becomes 0 and ``high`` 1, and clipped there (Eq. 7)."""
    result: Floats = np.clip(np.log(values / low) / np.log(high / low), 0, 1)
    return result
