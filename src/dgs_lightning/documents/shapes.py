"""Checks of plain values against a declared type, such as a TypedDict for the card of an image set.

Types are ``str``, ``bool``, ``int``, ``float`` (whole numbers, too), ``None``, ``Any``, ``list[T]``, ``dict[str, T]``,
``tuple[T, ...]`` and ``tuple[T, U]`` for lists, ``Literal``, ``T | U``, and ``Annotated`` with limits of
:mod:`dgs_lightning.bounds`. A mapping is a TypedDict, which may have other keys, too, or a dataclass, which has no
other keys.
"""

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    NotRequired,
    Required,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

from dgs_lightning.documents.texts import Unreadable, inside
from dgs_lightning.errors import short

LONGEST_NAME = 255  # characters that a file system takes
_WORDS: Mapping[object, str] = {
    str: "text",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    NoneType: "null",
    list: "a list",
    tuple: "a list",
    dict: "a mapping",
}


class Filled:
    """A limit of lists and texts: they are not empty."""

    def allows(self, value: object) -> bool:
        """Whether there is something in a list or text."""
        return not isinstance(value, list | str) or bool(value)

    def __repr__(self) -> str:
        return "not empty"


class FolderName:
    """A limit of texts: they can be the name of one folder."""

    def allows(self, value: object) -> bool:
        """Whether a text is such a name. Values that are no texts count as such."""
        return not isinstance(value, str) or (
            value not in ("", ".", "..") and not {"/", "\0"} & set(value) and len(value) <= LONGEST_NAME
        )

    def __repr__(self) -> str:
        return "the name of a folder"


def check_shape(value: object, kind: Any, place: str = "") -> None:  # noqa: ANN401  (any type)
    """Check that a value is of a declared type.

    Args:
        value: The value.
        kind: The type.
        place: Dotted path of the value in its file.

    Raises:
        Unreadable: If it is not. The error names the first wrong place.
    """
    origin, parts = get_origin(kind), get_args(kind)
    if kind is Any:
        return
    if origin in (Union, UnionType):
        _check_alternatives(value, kind, place)
    elif origin is Annotated:
        try:
            check_shape(value, parts[0], place)
        except Unreadable as error:
            raise error if error.place != place else _mismatch(value, kind, place) from None
        if not all(limit.allows(value) for limit in parts[1:]):
            raise _mismatch(value, kind, place)
    elif origin is Literal:
        if not any(value == choice and type(value) is type(choice) for choice in parts):
            raise _mismatch(value, kind, place)
    elif not isinstance(value, _runtime_type(kind)) or (isinstance(value, bool) and kind in (int, float)):
        raise _mismatch(value, kind, place)
    else:
        for part, part_kind, part_place in _inside(value, kind, place):
            check_shape(part, part_kind, part_place)


def _runtime_type(kind: Any) -> Any:  # noqa: ANN401
    """The type that ``isinstance`` takes for a plain value of a declared type."""
    if is_typeddict(kind) or is_dataclass(kind):
        return dict
    known = get_origin(kind) or kind
    return {tuple: list, float: (int, float)}.get(known, known)


def _inside(value: object, kind: Any, place: str) -> Iterator[tuple[object, Any, str]]:  # noqa: ANN401
    """The values in a list or mapping, each with its declared type and its place."""
    origin, parts = get_origin(kind), get_args(kind)
    if is_typeddict(kind) or is_dataclass(kind):
        kinds, required, open_ended = _keys(kind)
        mapping = cast(dict[str, object], value)
        if missing := [name for name in required if name not in mapping]:
            raise Unreadable(inside(place, missing[0]), "nothing", words(kinds[missing[0]]))
        if unknown := [] if open_ended else [name for name in mapping if name not in kinds]:
            raise Unreadable(inside(place, unknown[0]), "an unknown key", f"one of {', '.join(kinds)}")
        yield from ((mapping[name], kinds[name], inside(place, name)) for name in kinds if name in mapping)
    elif origin is dict:
        yield from ((part, parts[1], inside(place, key)) for key, part in cast(dict[str, object], value).items())
    elif origin in (list, tuple):
        found = cast(list[object], value)
        fixed = origin is tuple and parts[-1] is not ...
        if fixed and len(found) != len(parts):
            raise Unreadable(place, f"{len(found)} values", f"{len(parts)} values")
        kinds_in_order = parts if fixed else parts[:1] * len(found)
        places = (f"{place}[{number}]" for number in range(len(found)))
        yield from zip(found, kinds_in_order, places, strict=True)


@cache
def _keys(kind: Any) -> tuple[Mapping[str, Any], list[str], bool]:  # noqa: ANN401
    """The types of a mapping's known keys, the keys that must be there, and whether there may be others."""
    hints = {
        name: get_args(hint)[0] if get_origin(hint) in (Required, NotRequired) else hint
        for name, hint in get_type_hints(kind, include_extras=True).items()
    }
    if is_typeddict(kind):
        required = kind.__required_keys__
    else:
        required = {field.name for field in fields(kind) if field.default is field.default_factory is MISSING}
    return hints, [name for name in hints if name in required], is_typeddict(kind)


def _check_alternatives(value: object, kind: Any, place: str) -> None:  # noqa: ANN401
    """Check that a value is of one of several types. The error is that of the type which comes closest."""
    errors = []
    for alternative in get_args(kind):
        try:
            return check_shape(value, alternative, place)
        except Unreadable as error:
            errors.append(error)
    closest = max(errors, key=lambda error: len(error.place))
    raise closest if closest.place != place else _mismatch(value, kind, place)


def _mismatch(value: object, kind: Any, place: str) -> Unreadable:  # noqa: ANN401
    shown = _WORDS[type(value)] if value is None or isinstance(value, list | dict) else short(repr(value)[:300])
    return Unreadable(place, shown, words(kind))


def words(kind: Any) -> str:  # noqa: ANN401
    """A declared type in words, such as ``text or null``."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return " or ".join(map(words, parts))
    if origin is Annotated:
        limits = (str(limit).removeprefix("a finite number").removeprefix(", ") for limit in parts[1:])
        return ", ".join(filter(None, [words(parts[0]), *limits]))
    if origin is Literal:
        return f"one of {', '.join(map(str, parts))}" if len(parts) > 1 else repr(parts[0])
    if is_typeddict(kind) or is_dataclass(kind):
        return _WORDS[dict]
    return _WORDS.get(origin or kind, "a value")
