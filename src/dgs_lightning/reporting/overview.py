"""A run's summary as text, for Markdown, the page and the terminal."""

import itertools
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from rich.box import SIMPLE_HEAD
from rich.table import Table as RichTable

from dgs_lightning.reporting.folder import Cost, RunFolder
from dgs_lightning.reporting.formats import Grid, markdown_table
from dgs_lightning.reporting.names import show
from dgs_lightning.reporting.statistics import Repeats
from dgs_lightning.reporting.summary import paired_comparisons, row_score

NOTE = (
    "Best and Last are top-1 accuracies on the validation set, in %: Best is from a training's best evaluation, as the "
    "literature reports it, and Last is from its end. Both are mean ± sample standard deviation over the runs. The "
    "interval is that of the mean of Last. Difficulty is the mean over the set. Distance is the Wasserstein-1 distance "
    "between the difficulties of the set and of the original images, averaged over the classes."
)
COMPARISON_NOTE = "Difference of the Last accuracies on the same seeds, in percentage points; p is of a paired t-test."
INTERVAL = "95 % interval"
HEADINGS = ("Method", "IPC", "Network", "Runs", "Best", "Last", INTERVAL, "Difficulty", "Distance")
COMPARISON_HEADINGS = ("With", "Without", "IPC", "Network", "Difference", INTERVAL, "Seeds won", "p")
COST_HEADINGS = ("Stage", "Seconds", "Images", "Images a second", "Device")
_ADDED_UP = ("evaluation", "estimator")  # kinds of stages that a run repeats many times


class Overview(NamedTuple):
    """The texts that ``summary.md`` and the page show of a run; a part without content is empty."""

    title: str
    unfinished: str  # names of the unfinished stages
    results: Grid
    comparisons: Grid  # methods with difficulty guidance beside those without
    legible: str  # the judge's opinion of the pools
    costs: Grid
    versions: str  # the run's seed, and the versions of the libraries


def overview(run: RunFolder, summary: Mapping[str, Any]) -> Overview:
    """The texts of a run, given the content of its ``summary.json``."""
    shares = ", ".join(f"{show('method', pool)} {share:.1%}" for pool, share in summary["pool_legible"].items())
    return Overview(
        run.title,
        ", ".join(run.unfinished),
        results_grid(summary, run),
        _comparisons_grid(run),
        f"Pool images whose class an independent classifier recognizes: {shares}." if shares else "",
        costs_grid(run.costs),
        f"Seed {summary['seed']}. " + ", ".join(f"{n} {v}" for n, v in summary["versions"].items()) + ".",
    )


def results_grid(summary: Mapping[str, Any], run: RunFolder) -> Grid:
    """The rows of a summary."""
    rows = []
    for row in summary["rows"]:
        ends = Repeats(row["repeats"], row["accuracy_last_mean"], row["accuracy_last_std"]).interval
        numbers = (row["mean_difficulty"], row["distribution_distance"])
        rows.append(
            (
                run.show(row["method"]),
                "all" if row["ipc"] is None else str(row["ipc"]),
                show("network", row["network"] or ""),
                str(row["repeats"]),
                str(row_score(row, "best") or ""),
                str(row_score(row, "last") or ""),
                " to ".join(f"{100 * end:.1f}" for end in ends or ()),
                *("" if number is None else f"{number:.3f}" for number in numbers),
            )
        )
    return Grid(HEADINGS, rows, 3, NOTE)


def _comparisons_grid(run: RunFolder) -> Grid:
    rows = []
    for (first, second, ipc, network), comparison in paired_comparisons(run).items():
        difference = comparison.difference
        rows.append(
            (
                show("method", first),
                show("method", second),
                str(ipc),
                show("network", network),
                f"{difference.mean:+.1f}",
                " to ".join(f"{end:+.1f}" for end in difference.interval or ()),
                f"{comparison.wins} of {difference.count}",
                "" if comparison.p_value is None else f"{comparison.p_value:.2f}",
            )
        )
    return Grid(COMPARISON_HEADINGS, rows, 4, COMPARISON_NOTE, "With and without difficulty guidance")


def costs_grid(costs: Iterable[Cost]) -> Grid:
    """Time, images and devices of stages; repeated stages share one row."""
    rows = []
    for kind, group in itertools.groupby(costs, key=lambda cost: cost.stage.split("/")[0]):
        members = list(group)
        added_up = [(f"{kind}, {len(members)} runs", members)]
        for stage, parts in added_up if kind in _ADDED_UP else [(cost.stage, [cost]) for cost in members]:
            seconds, images = sum(c.seconds for c in parts), sum(c.images or 0 for c in parts)
            devices = ", ".join(sorted({c.device for c in parts if c.device}))
            speed = f"{images / seconds:.1f}" if images and seconds else ""
            rows.append((stage, f"{seconds:.1f}", str(images or ""), speed, devices))
    return Grid(COST_HEADINGS, rows, 1)


def overview_markdown(shown: Overview) -> str:
    """The texts of a run as Markdown."""
    parts = [f"# {shown.title}", ""]
    if shown.unfinished:
        parts += [f"**Not finished:** {shown.unfinished}.", ""]
    parts += [shown.results.note, "", *markdown_table(shown.results), ""]
    if shown.comparisons.rows:
        title, note = shown.comparisons.title, shown.comparisons.note
        parts += [f"## {title}", "", note, "", *markdown_table(shown.comparisons), ""]
    if shown.legible:
        parts += [shown.legible, ""]
    if shown.costs.rows:
        parts += ["## Cost", "", *markdown_table(shown.costs), ""]
    return "\n".join([*parts, shown.versions, ""])


def to_terminal(grid: Grid) -> RichTable:
    """The results for a terminal of 80 columns: without intervals, and with values that all rows share in the title."""
    columns = [HEADINGS.index(name) for name in ("Network", "Runs")]
    shared = [p for p in columns if len({row[p] for row in grid.rows}) == 1]
    shown = [p for p, name in enumerate(HEADINGS) if name != INTERVAL and p not in shared]
    title = ", ".join(f"{HEADINGS[p]}: {grid.rows[0][p]}" for p in shared)
    table = RichTable(title=title, title_justify="left", box=SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    for p in shown:
        table.add_column(HEADINGS[p], justify="left" if p < grid.labels else "right", no_wrap=p > 0)
    for row in grid.rows:
        table.add_row(*(row[p] for p in shown))
    return table
