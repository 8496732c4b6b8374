"""Ranges of settings: a number outside is refused in words, before anything is read or built."""

import re
from collections.abc import Mapping
from typing import Any, ClassVar

from dgs_lightning.errors import InputError

_INTERVAL = re.compile(r"([\[(])(\S+), (\S+)([\])])")


def check_ranges(settings: Mapping[str, Any], ranges: Mapping[str, str], where: object = None) -> None:
    """Refuse numbers outside their ranges; of a list each is looked at, and anything but numbers is let through.

    Args:
        settings: Values by name.
        ranges: Intervals by name, such as ``[1, 1000]``, ``(0, 1]`` or ``[0, inf)``.
        where: The file that they are in.

    Raises:
        InputError: If a number is outside its range, as NaN always is.
    """
    for name, interval in ranges.items():
        value = settings.get(name)
        for number in value if isinstance(value, list | tuple) else [value]:
            if isinstance(number, int | float) and not is_inside(number, interval):
                raise InputError(
                    name if where is None else f"{where}: {name}",
                    found=str(value),
                    expected=in_words(interval),
                    remedy="Correct the setting",
                )


class Ranged:
    """What has settings with ranges, which can be checked before it is built, and are when it is.

    Attributes:
        RANGES: Intervals by the name of the setting.
    """

    RANGES: ClassVar[Mapping[str, str]] = {}

    @classmethod
    def check_settings(cls, settings: Mapping[str, Any]) -> None:
        """Refuse settings that cannot go with anything.

        Raises:
            InputError: If one is out of its range.
        """
        check_ranges(settings, cls.RANGES)


def is_inside(number: float, interval: str) -> bool:
    """Whether a number lies in an interval; NaN lies in none."""
    left, low, high, right = _parts(interval)
    above = float(low) <= number if left == "[" else float(low) < number
    below = number <= float(high) if right == "]" else number < float(high)
    return above and below


def in_words(interval: str) -> str:
    """An interval as an error names it: ``at least 1``, or ``a number in (0, 1]``."""
    left, low, high, right = _parts(interval)
    if high != "inf":
        return f"at least {low}, at most {high}" if left + right == "[]" else f"a number in {interval}"
    if low == "-inf":
        return "a finite number"
    return f"{'at least' if left == '[' else 'a finite number above'} {low}"


def _parts(interval: str) -> tuple[str, ...]:
    matched = _INTERVAL.fullmatch(interval)
    assert matched is not None, interval
    return matched.groups()
