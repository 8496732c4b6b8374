"""Changes of an experiment on the command line: ``--set KEY=VALUE``."""

from collections.abc import Mapping
from typing import Any

from dgs_lightning.documents.texts import Unreadable, check_plain, parse_yaml
from dgs_lightning.errors import InputError, short

Settings = dict[str, Any]


def parsed_change(change: str, kinds: Mapping[str, Any]) -> tuple[str, Settings]:
    """The key of ``a.b=value``, and the mapping that it stands for; ``kinds`` are the types of all settings.

    Raises:
        InputError: If it has another form, or its value is not plain.
    """
    key, equals, text = (part.strip() for part in change.partition("="))
    if not equals or not key:
        raise InputError.setting("--set", repr(change), "key=value", "Write it as '--set ipc=10'")
    try:
        settings = nested(key, _value(text, kinds.get(key)))
        check_plain(settings)
    except Unreadable as error:
        expected, remedy = error.expected or "a YAML value", "Correct the value, or put it in quotes"
        raise InputError.setting(f"--set {short(change)}", error.found, expected, remedy) from None
    return key, settings


def _value(text: str, kind: Any) -> object:  # noqa: ANN401
    """The value that a typed text stands for.

    A setting that holds a text gets the text itself: ``no``, ``2024`` and ``photos #2`` are names as good as others.
    Only ``null`` unsets it. Elsewhere, the text is YAML; but what YAML takes for a text without quotes is not cut at
    ``#`` either.
    """
    if kind in (str, str | None):
        if not text:
            raise Unreadable("", "nothing", "a text, or null for a setting that may have no value")
        return None if text == "null" else text
    value = parse_yaml(text)
    return text if isinstance(value, str) and not text.startswith(("'", '"')) else value


def nested(key: str, value: Any) -> Settings:  # noqa: ANN401
    """The mapping that a dotted key and its value stand for."""
    for part in reversed(key.split(".")):
        value = {part: value}
    return dict(value)
