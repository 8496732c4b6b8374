"""A run's summary as text, for Markdown, the page and the terminal."""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from dgs_lightning.errors import counted, listed_with_number
from dgs_lightning.reporting.folder import RunFolder
from dgs_lightning.reporting.formats import Grid, markdown, markdown_table, without_empty
from dgs_lightning.reporting.names import show
from dgs_lightning.reporting.notes import comparison_notes, result_notes, score_notes
from dgs_lightning.reporting.recognition import recognition
from dgs_lightning.reporting.records import Cost
from dgs_lightning.reporting.summary import paired_comparisons, row_score

INTERVAL, SMOOTHED = "95 % interval", "Smoothed distance"
SCORES_TITLE = "DD-Ranking: label-robust score (LRS) and augmentation-robust score (ARS)"
COMPARISON_HEADINGS = ("With", "Without", "IPC", "Network", "Difference", INTERVAL, "Pairs won", "p")
COST_HEADINGS = ("Stage", "Seconds", "Images", "Images a second", "Device")
FULL_COLUMN, UNAUGMENTED_COLUMN = "Full", "IOR, no augmentation"
OF_LRS, OF_ARS = f"LRS, {INTERVAL}", f"ARS, {INTERVAL}"
_ADDED_UP = ("evaluation", "estimator")  # kinds of stages that a run repeats many times


class Overview(NamedTuple):
    """The texts that ``summary.md`` and the page show of a run; a part without content is empty."""

    title: str
    unfinished: str  # names of the unfinished stages
    results: Grid
    scores: Grid  # of DD-Ranking
    comparisons: Grid  # methods with difficulty guidance beside those without
    recognised: Sequence[str]  # how well classifiers recognise the originals and the pools
    warnings: Sequence[str]  # why numbers of the run say little
    costs: Grid
    versions: str  # the run's seed, and the versions of the libraries


def overview(run: RunFolder, summary: Mapping[str, Any]) -> Overview:
    """The texts of a run, given the content of its ``summary.json``."""
    return Overview(
        run.title,
        listed_with_number(run.unfinished, "stage"),
        results_grid(summary, run),
        scores_grid(summary, run),
        _comparisons_grid(run),
        *recognition(run),
        costs_grid(run.costs),
        f"Seed {summary['seed']}. " + ", ".join(f"{n} {v}" for n, v in summary["versions"].items()) + ".",
    )


def _number(value: float | None, form: str = ".3f") -> str:
    return "" if value is None else format(value, form)


COLUMNS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {  # heading -> text of a row of the summary
    "IPC": lambda row: "all" if row["ipc"] is None else str(row["ipc"]),
    "Network": lambda row: show("network", row["network"] or ""),
    "Sets": lambda row: str(row["sets"] or ""),
    "Trainings": lambda row: str(row["trainings"] or ""),
    "Best": lambda row: str(row_score(row, "best") or ""),
    "Last": lambda row: str(row_score(row, "last") or ""),
    INTERVAL: lambda row: " to ".join(_number(100 * end, ".1f") for end in row["accuracy_last_interval"] or ()),
    "Training noise": lambda row: _number(row["training_share"], ".0%"),
    "Difficulty": lambda row: _number(row["mean_difficulty"]),
    "Distance": lambda row: _number(row["distribution_distance"]),
    SMOOTHED: lambda row: _number(row["smoothed_distance"]),
}


def results_grid(summary: Mapping[str, Any], run: RunFolder) -> Grid:
    """The rows of a summary; columns in which all rows are empty are left out."""
    texts = [(run.show(row["method"]), *(text(row) for text in COLUMNS.values())) for row in summary["rows"]]
    return without_empty(Grid(("Method", *COLUMNS), texts, 3, "\n".join(result_notes(summary, run))))


SCORE_COLUMNS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {  # the same for scores
    "IPC": lambda row: str(row["ipc"]),
    "Network": COLUMNS["Network"],
    FULL_COLUMN: lambda row: _spread(row, "full", ".1f", 100),
    "HLR": lambda row: _spread(row, "hlr", ".1f", 100),
    "IOR": lambda row: _spread(row, "ior", ".1f", 100),
    UNAUGMENTED_COLUMN: lambda row: _spread(row, "ior_unaugmented", ".1f", 100),
    "LRS": lambda row: _spread(row, "lrs", ".3f"),
    OF_LRS: lambda row: " to ".join(_number(end) for end in row.get("lrs_interval") or ()),
    "ARS": lambda row: _spread(row, "ars", ".3f"),
    OF_ARS: lambda row: " to ".join(_number(end) for end in row.get("ars_interval") or ()),
}


def _spread(row: Mapping[str, Any], name: str, form: str, times: float = 1) -> str:
    """Mean and standard deviation of a number of a row: ``0.188 ± 0.012``; empty where it is not known."""
    known = [times * value for kind in ("mean", "std") if (value := row.get(f"{name}_{kind}")) is not None]
    return " ± ".join(format(value, form) for value in known)


def scores_grid(summary: Mapping[str, Any], run: RunFolder) -> Grid:
    """DD-Ranking's scores of the rows of a summary; no rows where the run asks for none."""
    rows = [row for row in summary["rows"] if "scores_missing" in row and row["ipc"] is not None]
    texts = [(run.show(row["method"]), *(text(row) for text in SCORE_COLUMNS.values())) for row in rows]
    note = "\n".join(score_notes(rows, run)) if rows else ""
    return without_empty(Grid(("Method", *SCORE_COLUMNS), texts, 3, note, SCORES_TITLE))


def _comparisons_grid(run: RunFolder) -> Grid:
    rows, comparisons = [], paired_comparisons(run)
    for (first, second, ipc, network), comparison in comparisons.items():
        difference = comparison.difference
        rows.append(
            (
                run.show(first),
                run.show(second),
                str(ipc),
                show("network", network),
                f"{difference.mean:+.1f}",
                " to ".join(f"{end:+.1f}" for end in difference.interval or ()),
                f"{comparison.wins} of {difference.count}" if difference.count > 1 else "",
                "" if comparison.p_value is None else f"{comparison.p_value:.2f}",
            )
        )
    tested = any(comparison.difference.count > 1 for comparison in comparisons.values())
    note = "\n".join(comparison_notes(run, tested))
    return without_empty(Grid(COMPARISON_HEADINGS, rows, 4, note, "With and without difficulty guidance"))


def costs_grid(costs: Iterable[Cost]) -> Grid:
    """Time, images and devices of stages; repeated stages share one row."""
    rows = []
    for kind, group in itertools.groupby(costs, key=lambda cost: cost.stage.split("/")[0]):
        members = list(group)
        added_up = [(f"{kind}, {counted(len(members), 'run')}", members)]
        for stage, parts in added_up if kind in _ADDED_UP else [(cost.stage, [cost]) for cost in members]:
            seconds, images = sum(c.seconds for c in parts), sum(c.images or 0 for c in parts)
            devices = ", ".join(sorted({c.device for c in parts if c.device}))
            speed = f"{images / seconds:.1f}" if images and seconds else ""
            rows.append((stage, f"{seconds:.1f}", str(images or ""), speed, devices))
    return without_empty(Grid(COST_HEADINGS, rows, 1))


def overview_markdown(shown: Overview) -> str:
    """The texts of a run as Markdown."""
    parts = [f"# {markdown(shown.title)}", ""]
    if shown.unfinished:
        parts += [f"**Not finished:** {markdown(shown.unfinished)}.", ""]
    for warning in shown.warnings:
        parts += [f"**Warning:** {markdown(warning)}", ""]
    parts += [*markdown_table(shown.results), "", *_listed(shown.results.note), ""]
    for grid in (shown.scores, shown.comparisons):
        if grid.rows:
            parts += [f"## {grid.title}", "", *markdown_table(grid), "", *_listed(grid.note), ""]
    for sentence in shown.recognised:
        parts += [markdown(sentence), ""]
    if shown.costs.rows:
        parts += ["## Cost", "", *markdown_table(shown.costs), ""]
    return "\n".join([*parts, shown.versions, ""])


def _listed(note: str) -> list[str]:
    """The lines of a note as a list in Markdown."""
    return [f"- {markdown(line)}" for line in note.splitlines()]
