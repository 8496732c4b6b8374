"""The page that shows what was measured, and its figure."""

import ast
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, LogLocator, NullLocator, StrMethodFormatter
from program import Figures
from topics import Curves, Growth, Measured, Show

from dgs_lightning.reporting.style import DISTILLED, ORIGINAL, new_figure, styled

INTRODUCTION = """\
# Benchmarks

`make benchmarks` measures everything again and writes this page; `python benchmarks/run_all.py --only scoring` measures
one of its topics. Most programs contain a plain reference: what you would write without this package, as each topic
says. Both are measured in the same run, in turns, and the numbers are medians. A ratio says how many times faster this
project is than the reference. Programs that measure images instead of speed are in [Results](results.md).
"""
MACHINE = ("processor", "GPU", "cores", "threads", "memory", "python")  # what is named first
SHORT = "**These are figures of the short form: they say nothing about speed.**\n"


def page(measured: Sequence[Measured], short: bool) -> str:
    """The page in Markdown.

    Args:
        measured: What was measured.
        short: Whether it is the short form.
    """
    grown = ", ".join(f"{each.topic.title} over {growth.name}" for each, growth in growing(measured))
    parts = [
        INTRODUCTION,
        *([SHORT] if short else []),
        f"![{grown}](images/growth.png)\n",
        "*This project and its plain references, for inputs of growing size. Both axes are logarithmic, so the distance"
        " between the curves is the ratio.*\n",
        *map(section, measured),
    ]
    return "\n".join(parts)


def growing(measured: Sequence[Measured]) -> list[tuple[Measured, Growth]]:
    """The topics that were measured over what grows."""
    return [(each, each.topic.growth) for each in measured if each.topic.growth and each.growth]


def section(measured: Measured) -> str:
    """A topic: its program's documentation, its tables, and the machine."""
    topic, growth = measured.topic, measured.topic.growth
    parts = [f"## {topic.title}\n", documentation(topic.program)]
    if not (measured.cases or measured.growth):
        return "\n".join([*parts, "Not measured yet.\n"])
    if measured.cases:
        cases = {f"{case} (`{topic.cases[case]}`)": figures for case, figures in measured.cases.items()}
        parts.append(figure_table(topic.title, topic.columns, cases))
    if growth and measured.growth:
        values = {f"{value:,}": figures for value, figures in measured.growth.items()}
        parts.append(figure_table(f"{growth.name} (`{growth.others}`)", topic.columns, values))
    places = [*(name for name in MACHINE if name in measured.on), *measured.on]
    named = ", ".join(f"{name} {measured.on[name]}" for name in dict.fromkeys(places))
    return "\n".join([*parts, f"*Measured on: {named}.*\n"])


def documentation(program: str) -> str:
    """What a program says of itself, in Markdown."""
    source = (Path(__file__).parent / program).read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(source)) or "").replace("``", "`") + "\n"


def figure_table(heading: str, columns: Mapping[str, Show], rows: Mapping[str, Figures]) -> str:
    """A table with a row for each set of figures."""
    return table((heading, *columns), ([row, *(show(rows[row]) for show in columns.values())] for row in rows))


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown, all columns but the first aligned right."""
    rule = ["---", *["---:"] * (len(headings) - 1)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (headings, rule, *rows))


@styled
def draw_growth(measured: Sequence[Measured], path: Path) -> None:
    """Write the figure of all that grows as PNG."""
    grown = growing(measured)
    drawing = new_figure(2.6 * len(grown), 2.9)
    for axes, (each, growth) in zip(drawing.subplots(1, len(grown), squeeze=False)[0], grown, strict=True):
        draw_curves(axes, growth.curves, each.growth)
        axes.set(title=each.topic.title, xlabel=growth.name, ylabel=growth.curves.unit)
    drawing.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    path.parent.mkdir(parents=True, exist_ok=True)
    drawing.savefig(path, dpi=160, metadata={"Software": None})


def draw_curves(axes: Axes, curves: Curves, growth: Mapping[int, Figures]) -> None:
    """This project's curve and the reference's, on logarithmic axes."""
    for figure, name, color, line in (
        (curves.own, "this project", DISTILLED, "-"),
        (curves.reference, "plain reference", ORIGINAL, "--"),
    ):
        points = [curves.factor * figures[figure] for figures in growth.values()]
        axes.plot(list(growth), points, line, marker="o", markersize=4, color=color, label=name)
    axes.set(xscale="log", yscale="log")
    low, high = axes.dataLim.intervaly
    axes.set_ylim(low / 1.6, high * 1.6)
    axes.xaxis.set_major_locator(FixedLocator(list(growth)))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 30 * low else (1,)))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(StrMethodFormatter("{x:,g}"))
