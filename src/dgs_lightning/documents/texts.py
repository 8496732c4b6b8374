"""JSON and YAML texts as plain values, within limits that no file of this program or of an honest user reaches.

Plain values are texts, numbers, true and false, null, lists, and mappings with texts as keys.
"""

import json
import re
from copy import deepcopy
from functools import lru_cache
from math import isfinite
from typing import Any

import yaml

from dgs_lightning.errors import short

JSON_SIZE, YAML_SIZE = 100_000_000, 1_000_000  # bytes of a file
DEPTH = 100  # of lists and mappings in each other
VALUES = 100_000  # of a YAML text whose aliases are written out
LARGEST = 2**64  # whole numbers are smaller, with either sign
_SURROGATE = re.compile("[\ud800-\udfff]")


class Unreadable(ValueError):
    """A text that is no plain value, or a value that is not of the declared type.

    Args:
        place: Where in the text: a line, or a dotted path. Empty for the whole.
        found: What is there.
        expected: What should be there.
    """

    def __init__(self, place: str, found: str, expected: str = "") -> None:
        super().__init__(place, found, expected)
        self.place, self.found, self.expected = place, found, expected

    def __str__(self) -> str:
        place = f"{self.place}: " if self.place else ""
        return f"{place}{self.found}" + (f" instead of {self.expected}" if self.expected else "")


def parse_json(text: str) -> object:
    """The plain value of a JSON text.

    Raises:
        Unreadable: If it is no JSON, is nested too deeply, or has NaN, infinity or half of a character in it.
    """
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise Unreadable(f"line {error.lineno}", error.msg, "JSON") from None
    except RecursionError:
        raise _too_deep("") from None
    except ValueError:
        raise _too_large("") from None  # Python converts no number of more than 4,300 digits
    check_plain(content, infinite=False)
    return content


def parse_yaml(text: str) -> object:
    """The plain value of a YAML text. Dates stay texts.

    Raises:
        Unreadable: If it is no YAML, is nested too deeply, is too large with its aliases written out, contains itself,
            or has values that are not plain.
    """
    return deepcopy(_parsed(text))


@lru_cache(maxsize=128)  # an experiment expands the same configs for each of its rows
def _parsed(text: str) -> object:
    try:
        content = yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise Unreadable(line, error.problem or "broken YAML", "YAML") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise Unreadable("", getattr(error, "reason", "broken YAML"), "YAML") from None
    except ValueError:
        raise _too_large("") from None
    check_plain(content)
    return content


def yaml_text(value: object) -> str:
    """A plain value as YAML, with its keys in their order. Every reader finds texts in it as texts, ``3e5`` as well."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def check_plain(value: object, place: str = "", depth: int = 0, *, infinite: bool = True) -> None:
    """Check that a value is plain.

    Args:
        value: The value.
        place: Its dotted path.
        depth: Number of lists and mappings around it.
        infinite: Whether numbers may be infinite or not a number.

    Raises:
        Unreadable: If it is not.
    """
    if depth > DEPTH:
        raise _too_deep(place)
    if isinstance(value, str):
        if "\0" in value:
            raise Unreadable(place, "a zero character", "text")
        if _SURROGATE.search(value):
            raise Unreadable(place, "half of a character (a lone surrogate)", "text that UTF-8 can hold")
    elif isinstance(value, list):
        for number, part in enumerate(value):
            check_plain(part, f"{place}[{number}]", depth + 1, infinite=infinite)
    elif isinstance(value, dict):
        for key, part in value.items():
            if not isinstance(key, str):
                raise Unreadable(place, f"the key {short(repr(key))}", "texts as keys: write it in quotes")
            check_plain(key, place)
            check_plain(part, inside(place, key), depth + 1, infinite=infinite)
    elif isinstance(value, float):
        if not (infinite or isfinite(value)):
            raise Unreadable(place, str(value), "a finite number")
    elif isinstance(value, int):
        if abs(value) >= LARGEST:
            raise _too_large(place)
    elif value is not None:
        raise Unreadable(place, f"a value of type {type(value).__name__}", "text, numbers, lists and mappings")


def inside(place: str, key: str) -> str:
    """Place of a key's value in the mapping at a place."""
    key = key if len(key) <= 100 else f"{key[:100]}..."
    return f"{place}.{key}" if place else key


def _too_deep(place: str) -> Unreadable:
    return Unreadable(place[:200], f"more than {DEPTH} lists or mappings in each other", "a simpler value")


def _too_large(place: str) -> Unreadable:
    return Unreadable(place, "a number with too many digits", "whole numbers of at most 64 bits")


class _Loader(yaml.SafeLoader):
    """Stops before aliases or brackets take much time or memory."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0
        self._sizes: dict[int, int] = {}  # id of a finished node -> values in it, with its aliases written out

    def compose_node(self, parent: yaml.Node | None, index: object) -> yaml.Node | None:
        """The node at the next event of the parser."""
        event: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call]
        mark: Any = event.start_mark
        self._depth += 1
        if self._depth > DEPTH + 1:
            raise yaml.MarkedYAMLError(problem=_too_deep("").found, problem_mark=mark)
        node = super().compose_node(parent, index)  # type: ignore[arg-type]
        self._depth -= 1
        if isinstance(event, yaml.AliasEvent) and id(node) not in self._sizes:
            raise yaml.MarkedYAMLError(problem="a value that contains itself", problem_mark=mark)
        if id(node) not in self._sizes:
            self._sizes[id(node)] = 1 + sum(self._sizes[id(part)] for part in _parts(node))
        if self._sizes[id(node)] > VALUES:
            problem = f"more than {VALUES:,} values with the aliases written out"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=mark)
        return node


def _parts(node: yaml.Node | None) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return node.value if isinstance(node, yaml.SequenceNode) else []


_Loader.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in resolvers if not tag.endswith(":timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


class _Dumper(yaml.SafeDumper):
    """Puts texts in quotes that look like numbers to jsonargparse's reader of YAML, not only those of PyYAML's."""


_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?[\d_.]+[eE][-+]?\d+"), list("-+.0123456789"))
