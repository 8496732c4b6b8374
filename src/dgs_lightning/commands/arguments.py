"""What the command lines share: options, config files merged into one, and the errors of parsers in one line."""

import argparse
import importlib
import json
import re
from typing import Any, NoReturn

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace

from dgs_lightning.bounds import place_in_groups
from dgs_lightning.configs import load_config, merge, remove_callbacks
from dgs_lightning.errors import InputError

Settings = dict[str, Any]
CALLBACKS = "--trainer.callbacks"

# How jsonargparse says that a class has no such parameter, or that a group has no such form.
_UNKNOWN = re.compile(
    r"""Parser key "(?P<key>[\w.]+)":.*Problem with given class_path '(?P<module>[\w.]+)\.(?P<name>\w+)':\s+"""
    r"""(Option '(?P<option>\w+)' is not accepted"""
    r"""|Parser key "(?P<group>\w+)":\s+(- )?(Unable to load config|Expected a path))""",
    re.DOTALL,
)


class Parser(argparse.ArgumentParser):
    """A parser whose errors are :class:`InputError`, like all others."""

    def error(self, message: str) -> NoReturn:
        """Refuse the command line.

        Raises:
            InputError: Always.
        """
        raise InputError(
            "arguments", found=message, expected=f"what '{self.prog} --help' lists", remedy="Correct the command"
        )


def experiment_parser(command: str, description: str) -> Parser:
    """Parser of ``dgs COMMAND EXPERIMENT [--output DIR] [--set KEY=VALUE ...]``."""
    parser = Parser(prog=f"dgs {command}", description=description)
    parser.add_argument("experiment", help="a YAML file, or a shipped experiment such as quickstart")
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
        return InputError(f"{unknown['key']}.{setting}", found=found, expected=place, remedy="Move it")
    if (place := place_in_groups(kind, setting)) is None:
        return None
    return InputError(
        f"{unknown['key']}.{setting}",
        found="a setting without its group",
        expected=f"{unknown['key']}.{place}",
        remedy="Rename it",
    )


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
    raise InputError("settings", found=found, expected=f"what '{command} --help' lists", remedy="Correct that setting")


def with_one_config(args: list[str]) -> list[str]:
    """Arguments in which all files after ``--config`` or ``-c`` are merged into one YAML text, which comes first.

    A later file changes an earlier one. Other arguments change the files, wherever they stand. Callbacks that arguments
    name are added to those of the files.

    Raises:
        InputError: If a file is missing or broken, or there is no callback that an argument removes.
    """
    settings: Settings = {}
    others: list[str] = []
    own: list[Any] = []  # the callbacks that arguments name
    any_config = False
    rest = iter(args)
    for arg in rest:
        flag, equals, value = arg.partition("=")
        if flag in ("--config", "-c"):
            settings, any_config = merge(settings, load_config(value if equals else next(rest, ""))), True
        elif flag == "--trainer":
            text = value if equals else next(rest, "")
            trainer = _yaml_value(text)
            trainer = trainer if isinstance(trainer, dict) else load_config(text)
            settings, any_config = merge(settings, {"trainer": trainer}), True
        elif flag in (CALLBACKS, f"{CALLBACKS}+"):
            own += _callbacks_in(value if equals else next(rest, ""))
        elif flag.startswith(f"{CALLBACKS}.") and own and "flags" in own[-1]:
            own[-1]["flags"].append(arg if equals else f"{arg}={next(rest, '')}")  # a setting of the callback before
        else:
            others.append(arg)
    settings = remove_callbacks(merge(settings, {"trainer": {"callbacks": own}} if own else {}))
    if own:
        # jsonargparse reads the values of flags by their types, so the whole list is given as flags.
        for entry in settings["trainer"].pop("callbacks"):
            others += entry["flags"] if isinstance(entry, dict) and "flags" in entry else [_flag(entry)]
    return ["--config", yaml.safe_dump(settings, sort_keys=False), *others] if any_config else others


def _callbacks_in(value: str) -> list[Any]:
    """Callbacks that the value of ``--trainer.callbacks`` names, each with the flag that adds it, and removals."""
    entries = _yaml_value(value)
    entries = [] if entries is None else entries if isinstance(entries, list) else [entries]
    names = [entry.get("class_path") if isinstance(entry, dict) else entry for entry in entries]
    return [
        entry if isinstance(entry, dict) and "remove" in entry else {"class_path": name, "flags": [_flag(entry)]}
        for entry, name in zip(entries, names, strict=True)
    ]


def _yaml_value(text: str) -> Any:  # noqa: ANN401
    """The value of a YAML text; the text itself where it is none."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _flag(callback: Any) -> str:  # noqa: ANN401
    """The flag that adds a callback."""
    return f"{CALLBACKS}+={callback if isinstance(callback, str) else json.dumps(callback)}"
