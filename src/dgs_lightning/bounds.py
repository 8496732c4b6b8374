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
    >>> MyTask(average=Average(decay=0.5)).hparams
    "average": {'decay': 0.5}
    "depth":   None
    >>> check_bounds(MyTask, {"average": {"decay": 1.0}})
    Traceback (most recent call last):
    dgs_lightning.errors.InputError: average.decay: found 1.0, expected at least 0, below 1. Correct the setting.

The command line and YAML show a group as nested keys: ``--model.average.decay=0.5``, or ``average: {decay: 0.5}`` in
``init_args``. ``hparams`` and checkpoints hold a group as a plain dictionary, so that ``weights_only=True`` can read
them. ``load_from_checkpoint`` passes the dictionary, and ``Group.of`` makes it a group again.
"""

import inspect
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from math import inf
from typing import Annotated, Any, Literal, Self, get_args, get_origin

from dgs_lightning.errors import InputError


class Between:
    """Numbers from ``low`` to ``high``, without the ends that ``open`` names. NaN and infinity are always outside."""

    def __init__(self, low: float, high: float = inf, open: Literal["left", "right", "both"] | None = None) -> None:
        self.low, self.high = low, high
        self.outside = {"left": (low,), "right": (high,), "both": (low, high), None: ()}[open] + (inf, -inf)

    def allows(self, value: object) -> bool:
        """Whether a value is inside. Values that are not numbers count as inside."""
        return not isinstance(value, int | float) or (self.low <= value <= self.high and value not in self.outside)

    def __repr__(self) -> str:
        low = f"{'above' if self.low in self.outside else 'at least'} {self.low}"
        high = f"{'below' if self.high in self.outside else 'at most'} {self.high}"
        ends = [low if self.low > -inf else "", high if self.high < inf else ""]
        return ", ".join(filter(None, ends if ends[1] else ["a finite number", ends[0]]))


AtLeast = Between  # with ``low`` alone: finite numbers from ``low`` on
FINITE = Between(-inf)


class Above(Between):
    """Finite numbers larger than ``low``."""

    def __init__(self, low: float) -> None:
        super().__init__(low, open="left")


class OneOf:
    """Some values and no others. A plain ``Literal`` type is checked in the same way."""

    def __init__(self, *values: object) -> None:
        self.values = values

    def allows(self, value: object) -> bool:
        """Whether a value is one of them."""
        return value in self.values

    def __repr__(self) -> str:
        return f"one of {', '.join(map(str, self.values))}"


@dataclass(frozen=True)
class Group:
    """Base of a group of settings: a frozen dataclass that :func:`check_bounds` checks when it is built."""

    def __post_init__(self) -> None:
        check_bounds(type(self), vars(self))

    @classmethod
    def of(cls, value: Self | Mapping[str, Any]) -> Self:
        """A group, from itself or from a plain dictionary."""
        return cls(**value) if isinstance(value, Mapping) else value


def check_bounds(owner: Callable[..., Any], settings: Mapping[str, Any], prefix: str = "") -> None:
    """Check settings against the signature of a class or function: each value, then groups, then the combination.

    The classmethod ``check_combination`` of a class or group, if it has one, gets all its settings: the given ones, the
    defaults of the others, and groups as dictionaries.

    Args:
        owner: The class or function. Inherited parameters of a class are checked as well.
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
            raise InputError(f"{prefix}{where}", found, expected, remedy) from None


def check_value(name: str, value: object, limit: Between | OneOf) -> None:
    """Raise an InputError if a value, or a number of a list, is outside the limit; ``None`` passes."""
    for item in value if isinstance(value, list | tuple) and isinstance(limit, Between) else [value]:
        if item not in (None, inspect.Parameter.empty) and not limit.allows(item):
            raise InputError.setting(name, value, str(limit))


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
    """Save and check the settings of a task or datamodule, groups as dictionaries: call it first in the constructor."""
    module.save_hyperparameters(frame=sys._getframe(1), logger=logger)
    groups = {name: _plain(value) for name, value in module.hparams.items() if isinstance(value, Group)}
    module.save_hyperparameters(groups, logger=logger)
    check_bounds(type(module), module.hparams)


def place_in_groups(owner: Callable[..., Any], name: str) -> str | None:
    """New place of a setting that moved into a group: ``optimizer.lr`` for ``lr``.

    It is found if exactly one group of the class has a field of that name, or ``RENAMED`` of the class names it. For
    the name of a group itself, it is the list of its fields: ``optimizer.{kind, lr}``.
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


def _limits(hint: object) -> list[Between | OneOf]:
    if get_origin(hint) is Annotated:
        return [part for part in get_args(hint) if isinstance(part, Between | OneOf)]
    return [OneOf(*get_args(hint))] if get_origin(hint) is Literal else []


def _group(hint: object) -> type[Group] | None:
    """The group of a type such as ``Optimizer`` or ``Optimizer | None``."""
    kinds = (kind for kind in (hint, *get_args(hint)) if isinstance(kind, type) and issubclass(kind, Group))
    return next(kinds, None)


def _plain(value: object) -> object:
    return asdict(value) if isinstance(value, Group) else value
