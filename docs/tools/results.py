"""Fills the tables of the pages from the records of runs in ``results/``: ``python docs/tools/results.py``.

A table stands between two comments. The first names the records, a part of the report (``results``, ``scores``,
``comparisons`` or ``costs``), and then, as far as they are not all, the columns, and the values that rows have in a
column, whether it is shown or not:

.. code-block:: text

    <!-- results/quickstart: results | Method | Last | IPC = 10 | Method = DiT or Minimax -->
    <!-- end -->
"""

import re
from functools import cache
from pathlib import Path

from dgs_lightning.errors import InputError
from dgs_lightning.reporting.formats import Grid, markdown_table
from dgs_lightning.reporting.kept import open_run
from dgs_lightning.reporting.overview import Overview, overview
from dgs_lightning.reporting.summary import summarize

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "docs/results.md")
PARTS = ("results", "scores", "comparisons", "costs")
TABLE = re.compile(r"(<!-- (results/\w+): (.+?) -->\n).*?(<!-- end -->)", re.DOTALL)


@cache
def _report(folder: str) -> Overview:
    run = open_run(ROOT / folder)
    return overview(run, summarize(run))


def table(folder: str, wanted: str) -> str:
    """The Markdown of a table.

    Args:
        folder: Folder of the records, from the root of the project.
        wanted: The part, the columns and the values.

    Raises:
        InputError: If there is no such part, column or row.
    """
    part, *others = (each.strip() for each in wanted.split("|"))
    if part not in PARTS:
        raise InputError.choice(folder, part, PARTS)
    grid: Grid = getattr(_report(folder), part)
    values = {name: text.split(" or ") for name, text in (each.split(" = ") for each in others if " = " in each)}
    names = [each for each in others if " = " not in each] or grid.headings
    for name in (*names, *values):
        if name not in grid.headings:
            raise InputError.choice(f"{folder}, {part}", name, grid.headings)
    places = list(map(grid.headings.index, names))
    column = grid.headings.index
    rows = [row for row in grid.rows if all(row[column(name)] in wanted for name, wanted in values.items())]
    missing = [v for name, wanted in values.items() for v in wanted if v not in {row[column(name)] for row in rows}]
    if missing or not rows:
        found = f"no row with {', '.join(missing)}" if missing else "no rows"
        raise InputError(f"{folder}, {part}", found, "at least one row", "Correct the comment before the table")
    shown = Grid(
        headings=[grid.headings[place] for place in places],
        rows=[[row[place] for place in places] for row in rows],
        labels=sum(place < grid.labels for place in places),
    )
    return "\n".join(markdown_table(shown))


def filled(page: str) -> str:
    """The text of a page with its tables filled."""
    return TABLE.sub(lambda found: f"{found[1]}\n{table(found[2], found[3])}\n\n{found[4]}", page)


if __name__ == "__main__":
    for page in PAGES:
        path = ROOT / page
        path.write_text(filled(path.read_text(encoding="utf-8")), encoding="utf-8")
