"""Findings of the doctor, each with what to do about it."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dgs_lightning.errors import InputError, printable

COLOURS = {"ok": "green", "warning": "yellow", "problem": "red"}


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check.

    Args:
        level: ``ok``; ``warning``: the run goes on, but its result or duration may surprise; ``problem``: it will fail.
        what: What was found.
        remedy: What to do; empty if all is well.
    """

    level: Literal["ok", "warning", "problem"]
    what: str
    remedy: str = ""


ok, warning, problem = partial(Finding, "ok"), partial(Finding, "warning"), partial(Finding, "problem")


def of_error(error: InputError, prefix: str = "") -> Finding:
    """The problem that a run would stop with."""
    where, found, expected, remedy = error.parts
    return problem(f"{prefix}{where}: found {found}, expected {expected}", remedy)


def error_of(check: Callable[..., Any], *arguments: object) -> InputError | None:
    """The error that a function raises about its arguments, if it raises one."""
    try:
        check(*arguments)
    except InputError as error:
        return error
    return None


def show(findings: Sequence[Finding]) -> int:
    """Print findings, and return the exit status: 1 if there is a problem, else 0.

    On a terminal they are a table. Elsewhere each finding has a line, and a further one for what to do, so that paths
    stay whole.
    """
    console = Console(highlight=False, markup=False, emoji=False)
    _print_table(console, findings) if console.is_terminal else _print_lines(console, findings)
    counts = Counter(finding.level for finding in findings)
    console.print(", ".join(f"{counts[level]} {level}" for level in COLOURS))  # type: ignore[index]
    return int("problem" in counts)


def _print_table(console: Console, findings: Sequence[Finding]) -> None:
    table = Table("", "found", "what to do", box=None, padding=(0, 2, 0, 0))
    for finding in findings:
        texts = (Text(printable(text)) for text in (finding.what, finding.remedy))
        table.add_row(Text(finding.level, COLOURS[finding.level]), *texts)
    console.print(table)


def _print_lines(console: Console, findings: Sequence[Finding]) -> None:
    for finding in findings:
        what_to_do = [f"{'':9}what to do: {finding.remedy}"] if finding.remedy else []
        for line in (f"{finding.level:9}{finding.what}", *what_to_do):
            console.print(printable(line), soft_wrap=True)
