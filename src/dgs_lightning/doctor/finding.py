"""What the doctor says: findings, each with what to do about it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dgs_lightning.errors import InputError

Level = Literal["ok", "warning", "problem"]
COLOURS = {"ok": "green", "warning": "yellow", "problem": "red"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Args:
        level: ``ok``, ``warning`` (the run goes on, but its result or duration may surprise), or ``problem`` (the run
            will fail).
        what: What was found.
        remedy: What to do; nothing where all is well.
    """

    level: Level
    what: str
    remedy: str = ""


def ok(what: str) -> Finding:
    """A finding that all is well, or a fact to know."""
    return Finding("ok", what)


def warning(what: str, remedy: str) -> Finding:
    """A finding that the run survives."""
    return Finding("warning", what, remedy)


def problem(what: str, remedy: str) -> Finding:
    """A finding that the run does not survive."""
    return Finding("problem", what, remedy)


def of_error(error: InputError) -> Finding:
    """The problem that a run would stop with."""
    where, found, expected, remedy = error.parts
    return problem(f"{where}: found {found}, expected {expected}", remedy)


def show(findings: Sequence[Finding]) -> int:
    """Print findings as a table.

    Returns:
        Exit status: 1 where there is a problem, else 0.
    """
    table = Table("", "found", "what to do", box=None, padding=(0, 2, 0, 0))
    for finding in findings:
        table.add_row(Text(finding.level, COLOURS[finding.level]), Text(finding.what), Text(finding.remedy))
    console = Console(highlight=False)
    console.print(table)
    counts = Counter(finding.level for finding in findings)
    console.print(", ".join(f"{counts[level]} {level}" for level in get_args(Level)))
    return int("problem" in counts)
