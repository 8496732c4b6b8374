"""What the command lines share: options, config files merged into one, and the errors of parsers in one line."""

import argparse
import importlib
import json
import re
from contextlib import suppress
from itertools import takewhile
from typing import Any, NoReturn

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace, get_loader, set_loader

from dgs_lightning.bounds import place_in_groups
from dgs_lightning.configs import add_callbacks, load_config, merge, remove_callbacks
from dgs_lightning.documents.texts import Unreadable, parse_yaml, yaml_text
from dgs_lightning.errors import InputError

Settings = dict[str, Any]
CALLBACKS = "--trainer.callbacks"
# Settings of a command that may stand first, without their names.
PLACES = {"import": ("path", "output"), "export": ("source",)}
YAML = "limited yaml"  # jsonargparse's mode for YAML within the limits of this package

# How jsonargparse says that a class has no such parameter, or that a group has no such form.
_UNKNOWN = re.compile(
    r"""Parser key "(?P<key>[\w.]+)":.*Problem with given class_path '(?P<module>[\w.]+)\.(?P<name>\w+)':\s+"""
    r"""(Option '(?P<option>\w+)' is not accepted"""
    r"""|Parser key "(?P<group>\w+)":\s+(- )?(Unable to load config|Expected a path))""",
    re.DOTALL,
)


def _limited_yaml(text: str) -> Any:  # noqa: ANN401
    """A YAML text as jsonargparse reads it, if it is within the limits of this package.

    ``null`` alone means that there is no value: ``~`` and ``#1`` may be names of folders.
    """
    parse_yaml(text)
    value = get_loader("yaml")(text)
    return text if value is None and text.strip().lower() not in ("null", "") else value


set_loader(YAML, _limited_yaml, (yaml.YAMLError, Unreadable))


class Parser(argparse.ArgumentParser):
    """A parser whose errors are :class:`InputError`, like all others."""

    def error(self, message: str) -> NoReturn:
        """Refuse the command line.

        Raises:
            InputError: Always.
        """
        raise InputError.setting("arguments", message, f"what '{self.prog} --help' lists", "Correct the command")


def experiment_parser(
    command: str,
    description: str,
    what: str = "experiment",
    words: str = "a YAML file, or a shipped experiment such as quickstart",
    *,
    needed: bool = True,
) -> Parser:
    """Parser of ``dgs COMMAND EXPERIMENT [--output DIR] [--set KEY=VALUE ...]``.

    Args:
        command: Name of the command.
        description: What it does.
        what: What the first argument names.
        words: The same in words.
        needed: Whether the first argument must be given.
    """
    parser = Parser(prog=f"dgs {command}", description=description)
    parser.add_argument(what, nargs=None if needed else "?", help=words)
    parser.add_argument("--output", metavar="DIR", help="folder of the run (default: runs/NAME)")
    parser.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], help="change a setting; may be repeated"
    )
    return parser


def short_message(error: BaseException) -> str:
    """Message of an error of jsonargparse in one line, without its lists of types and values."""
    lines = [line.strip().removeprefix("- ") for line in str(error).splitlines()]
    noise = ("Does not validate against", "Subtypes:", "Errors:", "Given value", "Expected a <class 'NoneType'>")
    telling = [line.rstrip(".:") for line in lines if line and not line.startswith(noise)]
    return ": ".join(telling)[:300]


def moved_setting(error: BaseException) -> InputError | None:
    """An error with the new place of a setting, where jsonargparse refuses it because it is part of a group now."""
    if (unknown := _UNKNOWN.search(str(error))) is None:
        return None
    kind = getattr(importlib.import_module(unknown["module"]), unknown["name"])
    setting = unknown["option"] or unknown["group"]
    if (place := getattr(kind, "MOVED", {}).get(setting)) is not None:
        found = f"a setting that {unknown['name']} does not have"
        return InputError(f"{unknown['key']}.{setting}", found, place, "Move it")
    if (place := place_in_groups(kind, setting)) is None:
        return None
    found, expected = "a setting without its group", f"{unknown['key']}.{place}"
    return InputError(f"{unknown['key']}.{setting}", found, expected, "Rename it")


def parse(parser: ArgumentParser, args: list[str], command: str) -> Namespace:
    """Arguments as a parser reads them.

    Raises:
        InputError: If a setting is unknown, of the wrong type, or missing.
    """
    try:
        return parser.parse_args(args)
    except ArgumentError as error:
        found, moved = short_message(error), moved_setting(error)
    if moved is not None:
        raise moved
    raise InputError("settings", found, f"what '{command} --help' lists", "Correct that setting")


def with_names(command: str, args: list[str]) -> list[str]:
    """Arguments in which the folders that stand first are named: runs of a report, and ``PLACES`` of other commands."""
    first = list(takewhile(lambda arg: not arg.startswith("-"), args))
    if command == "report" and first:
        return [f"--runs={json.dumps(first)}", *args[len(first) :]]
    names = PLACES.get(command, ())[: len(first)]
    return [*(f"--{name}={arg}" for name, arg in zip(names, first, strict=False)), *args[len(names) :]]


def with_one_config(args: list[str]) -> list[str]:
    """Arguments in which all files after ``--config`` or ``-c`` are merged into one YAML text, which comes first.

    A later file changes an earlier one. Other arguments change the files, wherever they stand. Callbacks that arguments
    name are added to those of the files.

    Raises:
        InputError: If a file is missing or broken, or there is no callback that an argument removes.
    """
    settings: Settings = {}
    own: list[Any] = []  # the callbacks that arguments name
    of_last: list[str] = []  # arguments with settings of the last callback of the files
    others: list[str] = []
    rest = iter(args)
    for arg in rest:
        flag, equals, value = arg.partition("=")
        if flag in ("--config", "-c"):
            settings = merge(settings, load_config(value if equals else next(rest, "")))
        elif flag == "--trainer":
            text = value if equals else next(rest, "")
            trainer = _yaml_value(text)
            settings = merge(settings, {"trainer": trainer if isinstance(trainer, dict) else load_config(text)})
        elif flag in (CALLBACKS, f"{CALLBACKS}+"):
            own += _callbacks_in(value if equals else next(rest, ""))
        elif flag.startswith(f"{CALLBACKS}."):  # a setting of the callback before
            named = [entry for entry in own if "flags" in entry]
            (named[-1]["flags"] if named else of_last).append(arg if equals else f"{arg}={next(rest, '')}")
        else:
            others.append(arg)
    settings = remove_callbacks(settings)
    if own:
        trainer = settings.get("trainer") or {}
        others += _callback_flags(trainer.get("callbacks") or [], own, of_last)
        settings = {**settings, "trainer": {**trainer, "callbacks": None}}
    else:
        others += of_last
    return ["--config", yaml_text(settings), *others] if settings else others


def _callback_flags(shipped: list[Any], own: list[Any], of_last: list[str]) -> list[str]:
    """Flags that add all callbacks, since jsonargparse knows the types of the values of flags.

    Raises:
        InputError: If one is to be removed that is not there.
    """
    shipped = [_with_flags(entry) for entry in shipped]
    if shipped:
        shipped[-1]["flags"] += of_last
    merged = remove_callbacks({"trainer": {"callbacks": add_callbacks(shipped, own)}})["trainer"]["callbacks"]
    return [flag for entry in merged for flag in entry["flags"]]


def _callbacks_in(value: str) -> list[Any]:
    """Callbacks that the value of ``--trainer.callbacks`` names, each with the flag that adds it, and removals."""
    entries = _yaml_value(value)
    entries = [] if entries is None else entries if isinstance(entries, list) else [entries]
    return [entry if isinstance(entry, dict) and "remove" in entry else _with_flags(entry) for entry in entries]


def _yaml_value(text: str) -> Any:  # noqa: ANN401
    """The value of a YAML text; the text itself where it is none."""
    with suppress(Unreadable):
        return parse_yaml(text)
    return text


def _with_flags(callback: Any) -> Settings:  # noqa: ANN401
    """A callback as its class and the flags that add it."""
    name = callback.get("class_path") if isinstance(callback, dict) else callback
    return {"class_path": name, "flags": [f"{CALLBACKS}+={name if name is callback else json.dumps(callback)}"]}
