"""Tables as text: Markdown, CSV and LaTeX."""

import csv
import io
import itertools
from collections.abc import Iterable, Sequence

from dgs_lightning.reporting.published import Setting
from dgs_lightning.reporting.tables import Cell, Table


def to_markdown(table: Table) -> str:
    """The table as GitHub-flavoured Markdown, with its title and note."""

    def text(cell: Cell) -> str:
        own = f"**{cell.own_text}**" if cell.best else cell.own_text
        return " ".join(filter(None, (own, cell.paper_text)))

    lines = [
        f"**Table {table.number}. {table.title}.** {table.note}",
        "",
        *markdown_table(
            table.headings,
            [[*labels, *map(text, cells)] for labels, cells in table.rows],
            len(table.headings) - len(table.rows[0][1]),
        ),
    ]
    return "\n".join(lines) + "\n"


def markdown_table(headings: Sequence[str], rows: Iterable[Sequence[str]], texts: int) -> list[str]:
    """Lines of a table whose first columns are texts and the others numbers."""
    rule = ["---"] * texts + ["---:"] * (len(headings) - texts)
    lines = [headings, rule, *rows]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]


def to_csv(table: Table) -> str:
    """The table as CSV with one line a cell: setting, our mean and deviation, the paper's, and the difference."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*Setting._fields, "mean", "std", "published_mean", "published_std", "difference", "best"])
    for cell in itertools.chain.from_iterable(cells for _, cells in table.rows):
        if cell.ours or cell.paper:
            scores = [*(cell.ours or ("", "")), *(cell.paper or ("", ""))]
            writer.writerow([*cell.setting, *scores, cell.difference, int(cell.best)])
    return out.getvalue()


def to_latex(table: Table) -> str:
    """The table as a LaTeX ``table`` for the package booktabs."""

    def text(cell: Cell) -> str:
        own = cell.own_text.replace("±", r"$\pm$")
        own = rf"\textbf{{{own}}}" if cell.best else own
        paper = cell.paper_text.replace(" -", " $-$").replace(" +", " $+$")
        return " ".join(filter(None, (own, rf"{{\scriptsize {paper}}}" if paper else "")))

    width = len(table.rows[0][1])
    lines = [
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{_escape(table.title)}. {_escape(table.note)}}}",
        rf"  \label{{tab:{table.slug}}}",
        rf"  \begin{{tabular}}{{{'l' * (len(table.headings) - width)}{'r' * width}}}",
        r"    \toprule",
        rf"    {' & '.join(map(_escape, table.headings))} \\",
        r"    \midrule",
        *(rf"    {' & '.join([*map(_escape, labels), *map(text, cells)])} \\" for labels, cells in table.rows),
        r"    \bottomrule",
        r"  \end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _escape(text: str) -> str:
    """Text with LaTeX's special characters escaped."""
    special = {character: f"\\{character}" for character in "%&_#${}"}
    special |= {"\\": r"\textbackslash{}", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "±": r"$\pm$"}
    return "".join(special.get(character, character) for character in text)
