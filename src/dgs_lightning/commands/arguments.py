"""What the command lines share: the options of whatever takes an experiment, and how a parser's complaint reads."""

import argparse
import importlib
import re
from typing import NoReturn

from dgs_lightning.bounds import place_in_groups
from dgs_lightning.errors import InputError

# How jsonargparse says that a class has no such parameter, or that a group has no such form.
_UNKNOWN = re.compile(
    r"""Parser key "(?P<key>[\w.]+)":.*Problem with given class_path '(?P<module>[\w.]+)\.(?P<name>\w+)':\s+"""
    r"""(Option '(?P<option>\w+)' is not accepted|"""
    r"""Parser key "(?P<group>\w+)":\s+(- )?(Unable to load config|Expected a path))""",
    re.DOTALL,
)


class Parser(argparse.ArgumentParser):
    """A parser whose complaints are errors like all others."""

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


def complaint(error: BaseException) -> str:
    """What jsonargparse complains about, in one line, without its listings of types and values."""
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
