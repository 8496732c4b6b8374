"""Tables as text: Markdown, CSV and LaTeX."""

import csv
import io
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from dgs_lightning.errors import printable
from dgs_lightning.reporting.ddranking import NUMBERS
from dgs_lightning.reporting.published import Setting
from dgs_lightning.reporting.tables import Cell, Ratio, Table
from dgs_lightning.runs.layout import FULL


class Grid(NamedTuple):
    """A table of plain texts."""

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    labels: int  # number of columns, from the first, that are aligned left; the others are aligned right
    note: str = ""  # how to read the table, one thing a line
    title: str = ""


def without_empty(grid: Grid) -> Grid:
    """The table without the columns in which all rows are empty; a table without rows stays as it is."""
    kept = [place for place in range(len(grid.headings)) if any(row[place] for row in grid.rows)]
    if not grid.rows:
        return grid
    headings, *rows = ([line[place] for place in kept] for line in (grid.headings, *grid.rows))
    return grid._replace(
        headings=headings, rows=[tuple(row) for row in rows], labels=sum(place < grid.labels for place in kept)
    )


def to_markdown(table: Table) -> str:
    """The table as GitHub-flavoured Markdown, with its title and note."""

    def text(cell: Cell) -> str:
        own = f"**{cell.own_text}**" if cell.best else cell.own_text
        return " ".join(filter(None, (own, cell.paper_text)))

    rows = [[*map(markdown, labels), *map(text, cells)] for labels, cells in table.rows]
    lines = _markdown_lines([*map(markdown, table.headings)], rows, table.labels)
    return "\n".join([f"**{markdown(table.full_title)}.** {markdown(table.note)}", "", *lines, ""])


def markdown(text: str) -> str:
    """Text that Markdown shows as it is: nothing in it is markup, HTML or the end of a line."""
    text = printable(" ".join(text.split())).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"[\\`*\[\]|~$]|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", text)


def markdown_table(grid: Grid) -> list[str]:
    """The lines of a table in Markdown."""
    headings, *rows = ([*map(markdown, line)] for line in (grid.headings, *grid.rows))
    return _markdown_lines(headings, rows, grid.labels)


def _markdown_lines(headings: Sequence[str], rows: Sequence[Sequence[str]], labels: int) -> list[str]:
    rule = ["---"] * labels + ["---:"] * (len(headings) - labels)
    return ["| " + " | ".join(line) + " |" for line in (headings, rule, *rows)]


def to_csv(table: Table) -> str:
    """The table as CSV, one line for each cell: setting, our mean and deviation, the paper's, and the difference.

    In Table 1, ``ratio`` is the share of the training images that a set keeps, in ``[0, 1]``.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    more = ["ratio", "published_ratio"] if table.ratios else []
    writer.writerow([*Setting._fields, "mean", "std", "published_mean", "published_std", "difference", "best", *more])
    for cell in itertools.chain.from_iterable(cells for _, cells in table.rows):
        if cell.ours or cell.paper:
            scores = [*(cell.ours or ("", "")), *(cell.paper or ("", ""))]
            ratio = Ratio() if cell.setting.method == FULL else table.ratios.get(cell.setting.ipc, Ratio())
            writer.writerow([*cell.setting, *scores, cell.difference, int(cell.best), *ratio[: len(more)]])
    return out.getvalue()


def scores_csv(rows: Iterable[Mapping[str, Any]]) -> str:
    """The scores of rows of a summary as CSV: a line for each row and number, which is empty where it is not known."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["method", "ipc", "network", "number", "mean", "std", "low", "high"])
    for row in rows:
        for name in dict.fromkeys(itertools.chain.from_iterable(NUMBERS.values())):
            if f"{name}_mean" in row:
                low, high = row[f"{name}_interval"] or (None, None)
                cells = row[f"{name}_mean"], row[f"{name}_std"], low, high
                writer.writerow([row["method"], row["ipc"], row["network"], name, *cells])
    return out.getvalue()


def grid_markdown(grid: Grid) -> str:
    """A table of plain texts as Markdown, with its title and note."""
    title = f"**{markdown(grid.title)}.** {markdown(grid.note)}"
    return "\n".join([title, "", *markdown_table(grid), ""])


def grid_latex(grid: Grid, slug: str) -> str:
    """A table of plain texts as a LaTeX ``table`` for the package booktabs, with a label of this name."""
    rows = [[*map(_escape, row)] for row in grid.rows]
    return _latex(f"{grid.title}. {grid.note}", slug, grid.labels, grid.headings, rows)


def to_latex(table: Table) -> str:
    """The table as a LaTeX ``table`` for the package booktabs."""

    def text(cell: Cell) -> str:
        own = cell.own_text.replace("±", r"$\pm$")
        own = rf"\textbf{{{own}}}" if cell.best else own
        paper = cell.paper_text.replace(" -", " $-$").replace(" +", " $+$")
        return " ".join(filter(None, (own, rf"{{\scriptsize {paper}}}" if paper else "")))

    rows = [[*map(_escape, labels), *map(text, cells)] for labels, cells in table.rows]
    return _latex(f"{table.title}. {table.note}", table.slug, table.labels, table.headings, rows)


def _latex(caption: str, slug: str, labels: int, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A LaTeX ``table``. The cells are LaTeX already, and the other texts are not."""
    lines = [
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{_escape(caption)}}}",
        rf"  \label{{tab:{slug}}}",
        rf"  \begin{{tabular}}{{{'l' * labels}{'r' * (len(headings) - labels)}}}",
        r"    \toprule",
        rf"    {' & '.join(map(_escape, headings))} \\",
        r"    \midrule",
        *(rf"    {' & '.join(row)} \\" for row in rows),
        r"    \bottomrule",
        r"  \end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _escape(text: str) -> str:
    """Text with LaTeX's special characters escaped."""
    special: dict[str, str | int | None] = {character: f"\\{character}" for character in "%&_#${}"}
    special |= {"\\": r"\textbackslash{}", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "±": r"$\pm$"}
    return text.translate(str.maketrans(special))
