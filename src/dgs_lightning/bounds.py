"""Limits and groups of settings: they stand in the signature and are checked before anything is read or built.

A limit stands around the whole type of a parameter. A group is a small frozen dataclass that is one parameter:

    >>> @dataclass(frozen=True)
    ... class Average(Group):
    ...     decay: Annotated[float, Between(0, 1, open="right")] = 0.9999
    >>> class MyTask(LightningModule):
    ...     def __init__(self, depth: Annotated[int | None, AtLeast(1)] = None, average: Average = Average()) -> None:
    ...         super().__init__()
    ...         save_settings(self)
    ...         self.average = Average.of(average)
    ...
    ...     @classmethod
    ...     def check_combination(cls, settings: Mapping[str, Any]) -> None:  # where settings depend on each other
    ...         if settings["depth"] == 1 and settings["average"]["decay"] > 0:
    ...             raise InputError("depth", found="1", expected="2 with an average", remedy="Set average.decay to 0")
    >>> MyTask(average=Average(decay=0.5)).hparams
    "average": {'decay': 0.5}
    "depth":   None
    >>> check_bounds(MyTask, {"average": {"decay": 1.0}})
    Traceback (most recent call last):
    dgs_lightning.errors.InputError: average.decay: found 1.0, expected at least 0, below 1. Correct the setting.

The command line and YAML show a group as nested keys: ``--model.average.decay=0.5``, or ``average: {decay: 0.5}`` in
``init_args``. ``hparams`` hold a group as a plain dictionary, and so do checkpoints, which are read with
``weights_only=True``. ``Group.of`` makes a group of the dictionary, which ``load_from_checkpoint`` passes. A class
reads the settings of a group from its own attribute (``self.average``).
"""

import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from math import inf
from typing import Annotated, Any, ClassVar, Literal, Self, get_args, get_origin

from dgs_lightning.errors import InputError


class Between:
    """Numbers between two others, both included unless ``open`` names them. NaN and infinity are always outside.

    Args:
        low: The smallest number.
        high: The largest number.
        open: The end that is itself outside.
    """

    def __init__(self, low: float, high: float, open: Literal["left", "right", "both"] | None = None) -> None:
        self.low, self.high = low, high
        self.outside = {"left": (low,), "right": (high,), "both": (low, high), None: ()}[open] + (inf, -inf)

    def allows(self, value: object) -> bool:
        """Whether a value is inside. A value that is not a number is."""
        return not isinstance(value, int | float) or (self.low <= value <= self.high and value not in self.outside)

    def __repr__(self) -> str:
        """The limits in words, for errors and ``--help``."""
        low = f"{'above' if self.low in self.outside else 'at least'} {self.low}"
        high = f"{'below' if self.high in self.outside else 'at most'} {self.high}"
        ends = [low if self.low > -inf else "", high if self.high < inf else ""]
        return ", ".join(filter(None, ends if ends[1] else ["a finite number", ends[0]]))


class AtLeast(Between):
    """Finite numbers from ``low`` on."""

    def __init__(self, low: float) -> None:
        super().__init__(low, inf)


class Above(Between):
    """Finite numbers larger than ``low``."""

    def __init__(self, low: float) -> None:
        super().__init__(low, inf, open="left")


class OneOf:
    """Some values and no others. A plain ``Literal`` type is checked in the same way."""

    def __init__(self, *values: object) -> None:
        self.values = values

    def allows(self, value: object) -> bool:
        """Whether a value is one of them."""
        return value in self.values

    def __repr__(self) -> str:
        """The values in words."""
        return f"one of {', '.join(map(str, self.values))}"


FINITE = Between(-inf, inf)


@dataclass(frozen=True)
class Group:
    """Base of a group of settings: a frozen dataclass whose fields may have limits.

    Raises:
        InputError: If a setting is outside its limits, or settings do not go together.
    """

    def __post_init__(self) -> None:
        """Check the settings."""
        check_bounds(type(self), vars(self))

    @classmethod
    def of(cls, value: Self | Mapping[str, Any]) -> Self:
        """The group that is given, or the one that a plain dictionary describes."""
        return cls(**value) if isinstance(value, Mapping) else value


def check_bounds(owner: Callable[..., Any], settings: Mapping[str, Any], prefix: str = "") -> None:
    """Check settings against the signature of a class or function: each value, then those of groups, then all together.

    A class checks settings that depend on each other in a classmethod ``check_combination``. It gets all settings, with
    the defaults of missing ones, and groups as dictionaries.

    Args:
        owner: The class or function. Parameters that a class inherits count, too.
        settings: Values by name. Each value of a list is checked; ``None`` passes.
        prefix: Text before the names in errors.

    Raises:
        InputError: If a value is outside its limits, or settings do not go together.
    """
    settings = {name: _plain(value) for name, value in settings.items()}
    for name, parameter in _parameters(owner).items():
        value = settings.setdefault(name, _plain(parameter.default))
        for limit in _limits(parameter.annotation):
            check_value(f"{prefix}{name}", value, limit)
        if isinstance(value, Mapping) and (group := _group(parameter.annotation)):
            check_bounds(group, value, f"{prefix}{name}.")
    if check_combination := getattr(owner, "check_combination", None):
        try:
            check_combination(settings)
        except InputError as error:
            where, found, expected, remedy = error.parts
            raise InputError(f"{prefix}{where}", found=found, expected=expected, remedy=remedy) from None


def check_value(name: str, value: object, limit: Between | OneOf) -> None:
    """Check one value, or each number of a list; ``None`` passes.

    Raises:
        InputError: If it is outside the limit.
    """
    for item in value if isinstance(value, list | tuple) and isinstance(limit, Between) else [value]:
        if item not in (None, inspect.Parameter.empty) and not limit.allows(item):
            raise InputError(name, found=str(value), expected=str(limit), remedy="Correct the setting")


def with_defaults(owner: Callable[..., Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a class or function, completed by the defaults of the missing ones. Groups are dictionaries."""
    complete = {name: _plain(value) for name, value in settings.items()}
    for name, parameter in _parameters(owner).items():
        value = complete.setdefault(name, _plain(parameter.default))
        if value is inspect.Parameter.empty:
            del complete[name]
        elif isinstance(value, Mapping) and (group := _group(parameter.annotation)):
            complete[name] = with_defaults(group, value)
    return complete


def save_settings(module: Any, *, logger: bool = True) -> None:  # noqa: ANN401
    """Save and check the settings of a LightningModule or LightningDataModule: call it first in the constructor.

    It is ``module.save_hyperparameters()`` with groups as plain dictionaries.

    Raises:
        InputError: If :func:`check_bounds` refuses them.
    """
    module.save_hyperparameters(frame=sys._getframe(1), logger=logger)
    groups = {name: _plain(value) for name, value in module.hparams.items() if isinstance(value, Group)}
    module.save_hyperparameters(groups, logger=logger)
    check_bounds(type(module), module.hparams)


def limits(owner: Callable[..., Any], prefix: str = "") -> Iterator[tuple[str, Between | OneOf]]:
    """The limits of a class or function, each with the name of its setting, such as ``optimizer.lr``."""
    for name, parameter in _parameters(owner).items():
        yield from ((f"{prefix}{name}", limit) for limit in _limits(parameter.annotation))
        if group := _group(parameter.annotation):
            yield from limits(group, f"{prefix}{name}.")


def place_in_groups(owner: Callable[..., Any], name: str) -> str | None:
    """New place of a setting that was no part of a group before: ``optimizer.lr`` for ``lr``.

    The place is known where exactly one group of the class has a field of that name. For the name of a group itself,
    it is the list of its fields: ``optimizer.{kind, lr}``. A class names the places of fields that also have a new name
    in ``RENAMED``.
    """
    if place := getattr(owner, "RENAMED", {}).get(name):
        return str(place)
    kinds = {key: _group(parameter.annotation) for key, parameter in _parameters(owner).items()}
    groups = {key: [field.name for field in fields(kind)] for key, kind in kinds.items() if kind}
    if name in groups:
        return f"{name}.{{{', '.join(groups[name])}}}"
    places = [f"{key}.{name}" for key, names in groups.items() if name in names]
    return places[0] if len(places) == 1 else None


def _parameters(owner: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Parameters of a function, or of a class and of those that it inherits from."""
    bases = reversed(owner.__mro__) if isinstance(owner, type) else []
    constructors = [vars(base)["__init__"] for base in bases if "__init__" in vars(base)]
    found: dict[str, inspect.Parameter] = {}
    for function in constructors or [owner]:
        with suppress(NameError):  # types that are imported for type checkers alone
            found |= inspect.signature(function, eval_str=True).parameters
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {name: each for name, each in found.items() if name != "self" and each.kind not in variable}


def _limits(hint: object) -> Iterator[Between | OneOf]:
    if get_origin(hint) is Annotated:
        yield from (part for part in get_args(hint)[1:] if isinstance(part, Between | OneOf))
    elif get_origin(hint) is Literal:
        yield OneOf(*get_args(hint))


def _group(hint: object) -> type[Group] | None:
    """The group of a type such as ``Optimizer`` or ``Optimizer | None``."""
    kinds = [kind for kind in (hint, *get_args(hint)) if isinstance(kind, type) and issubclass(kind, Group)]
    return kinds[0] if kinds else None


def _plain(value: object) -> object:
    return asdict(value) if isinstance(value, Group) else value


# ---- the older form, until nothing uses it ---------------------------------------------------------------------------

_INTERVAL = re.compile(r"([\[(])(\S+), (\S+)([\])])")


def check_ranges(settings: Mapping[str, Any], ranges: Mapping[str, str], where: object = None) -> None:
    """Refuse numbers outside intervals that are written as text. Write limits in the signature instead."""
    for name, interval in ranges.items():
        matched = _INTERVAL.fullmatch(interval)
        assert matched is not None, interval
        left, low, high, right = matched.groups()
        ends: dict[str, Literal["left", "right", "both"] | None] = {"(]": "left", "[)": "right", "()": "both"}
        limit = Between(float(low), float(high), open=ends.get(left + right))
        check_value(name if where is None else f"{where}: {name}", settings.get(name), limit)


class Ranged:
    """A class with ``RANGES``. Write limits in the signature instead."""

    RANGES: ClassVar[Mapping[str, str]] = {}

    @classmethod
    def check_settings(cls, settings: Mapping[str, Any]) -> None:
        """Refuse numbers outside ``RANGES``."""
        check_ranges(settings, cls.RANGES)
