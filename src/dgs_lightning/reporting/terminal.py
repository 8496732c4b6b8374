"""The results of a run on the terminal. Nothing here is slow to import: a finished run only prints them."""

from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as RichTable

from dgs_lightning.errors import printable
from dgs_lightning.reporting.folder import read_run
from dgs_lightning.reporting.formats import Grid
from dgs_lightning.reporting.overview import (
    FULL_COLUMN,
    INTERVAL,
    OF_ARS,
    OF_LRS,
    SMOOTHED,
    UNAUGMENTED_COLUMN,
    results_grid,
    scores_grid,
)
from dgs_lightning.reporting.recognition import recognition
from dgs_lightning.reporting.summary import read_summary
from dgs_lightning.runs import layout

WIDE = (  # columns that a terminal has no room for
    *(INTERVAL, SMOOTHED, "Training noise", "Sets", "Trainings"),
    *(FULL_COLUMN, UNAUGMENTED_COLUMN, OF_LRS, OF_ARS),
)
UNLIMITED = 10_000  # characters in a line
_FILES = (layout.SUMMARY, layout.SUMMARY_TEXT, layout.PAGE, layout.TABLES, layout.FIGURES, layout.DISTILLED)


def print_summary(folder: str | Path) -> None:
    """Print a run's table of results, how well its classifiers recognise the images, and the paths of its files."""
    run = read_run(folder)
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = UNLIMITED  # a file has room for whole names
    summary = read_summary(run)
    for grid in (results_grid(summary, run), scores_grid(summary, run)):
        if grid.rows:
            console.print(to_terminal(grid))
    sentences, warnings = recognition(run)
    for line in (*sentences, *(f"Warning: {warning}" for warning in warnings)):
        console.print(printable(line), soft_wrap=True)
    for path in filter(Path.exists, (run.folder / name for name in _FILES)):
        console.print(printable(path), soft_wrap=True)


def to_terminal(grid: Grid) -> RichTable:
    """The results for a terminal of 80 columns: with few columns, and with values that all rows share in the title."""
    headings = grid.headings
    columns = [p for p, name in enumerate(headings) if name in ("IPC", "Network", "Sets", "Trainings")]
    shared = [p for p in columns if len({row[p] for row in grid.rows}) == 1]
    shown = [p for p, name in enumerate(headings) if name not in WIDE and p not in shared]
    title = printable(", ".join(f"{headings[p]}: {grid.rows[0][p]}" for p in shared))
    table = RichTable(title=title, title_justify="left", box=SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    for p in shown:
        table.add_column(headings[p], justify="left" if p < grid.labels else "right", no_wrap=p > 0)
    for row in grid.rows:
        table.add_row(*(printable(row[p]) for p in shown))
    return table
