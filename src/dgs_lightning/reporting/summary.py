"""An experiment in one table: accuracies, difficulty, cost and versions, as JSON, as Markdown and on a terminal."""

import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table as RichTable
from scipy.stats import wasserstein_distance

from dgs_lightning.data.cards import versions
from dgs_lightning.reporting.formats import markdown_table
from dgs_lightning.reporting.names import METHODS, NETWORKS, show_network, show_row, split_variant, table_order
from dgs_lightning.reporting.runs import FULL, ORIGINAL, Cost, Difficulties, Evaluation, Run
from dgs_lightning.reporting.statistics import Comparison, compare_paired, confidence_interval, summarize_repeats

NOTE = (
    "Top-1 accuracy in %: the best of a run's evaluations on the validation set, as the literature reports it, and the "
    "last; mean ± sample standard deviation over the runs, and the 95 % interval of the last's mean. Difficulty: mean "
    "over the set. Distance: Wasserstein-1 distance between the difficulties of the set and of the original images of "
    "a class, mean over the classes."
)
INTERVAL = "95 % interval"
HEADINGS = ("Method", "IPC", "Network", "Runs", "Best", "Last", INTERVAL, "Difficulty", "Distance")
COMPARISON_HEADINGS = ("With", "Without", "IPC", "Network", "Difference", INTERVAL, "Seeds won", "p")
COST_HEADINGS = ("Stage", "Seconds", "Images", "Images a second", "Device")
# With difficulty guidance, and what it is measured against: the same images or the same generation without it.
PAIRS = (("dgs_ori", "random"), ("dit_dgs", "dit"), ("minimax_dgs", "minimax"), ("pool_dgs", "pool"), ("dag", "mgd3"))


@dataclass(frozen=True, slots=True)
class Row:
    """One distilled set and one network trained on it.

    Attributes:
        method: Row of the experiment: a method's slug or the name of a variant.
        ipc: Images per class; None for the full data set.
        network: Downstream network; None where none was trained yet.
        repeats: Number of trainings.
        accuracy_last_mean: Mean of the accuracies at the end of training, in ``[0, 1]``.
        accuracy_last_std: Their sample standard deviation; None with fewer than two repeats.
        accuracy_best_mean: Mean of the best accuracies of each training.
        accuracy_best_std: Their sample standard deviation.
        mean_difficulty: Mean difficulty of the set's images; None where they are not scored.
        distribution_distance: See :func:`~dgs_lightning.reporting.summary.distribution_distance`.
    """

    method: str
    ipc: int | None
    network: str | None
    repeats: int
    accuracy_last_mean: float | None
    accuracy_last_std: float | None
    accuracy_best_mean: float | None
    accuracy_best_std: float | None
    mean_difficulty: float | None
    distribution_distance: float | None


def distribution_distance(distilled: Difficulties, original: Difficulties) -> float | None:
    """How far a set's difficulties are from the original images'.

    Args:
        distilled: Difficulties of the set by label.
        original: Difficulties of the original images by label.

    Returns:
        The Wasserstein-1 distance of a class's difficulties, mean over the classes that both have, in ``[0, 1]``;
        None where they share none.
    """
    common = [label for label in distilled if label in original]
    distances = [wasserstein_distance(distilled[label], original[label]) for label in common]
    return float(np.mean(distances)) if distances else None


def summary_rows(run: Run) -> list[Row]:
    """The rows of a run by IPC, network and method; sets that no network was trained on have one without accuracies."""
    groups: dict[tuple[str, int | None, str | None], list[Evaluation]] = defaultdict(list)
    for evaluation in run.evaluations:
        groups[evaluation.row, evaluation.ipc, evaluation.network].append(evaluation)
    trained = {(row, ipc) for row, ipc, _ in groups}
    groups.update({(row, ipc, None): [] for row, ipc in run.distilled if (row, ipc) not in trained})

    def order(key: tuple[str, int | None, str | None]) -> tuple[Any, ...]:
        row, ipc, network = key
        method, variant = split_variant(row, run.variants)
        return ipc is None, ipc or 0, table_order(NETWORKS, network or ""), table_order(METHODS, method), variant

    return [_row(run, *key, groups[key]) for key in sorted(groups, key=order)]


def _row(run: Run, row: str, ipc: int | None, network: str | None, evaluations: Sequence[Evaluation]) -> Row:
    difficulties = run.difficulties(FULL if ipc is None else f"{row}-ipc{ipc}")
    return Row(
        row,
        ipc,
        network,
        len(evaluations),
        *_mean_and_std([evaluation.accuracy_last for evaluation in evaluations]),
        *_mean_and_std([evaluation.accuracy_best for evaluation in evaluations]),
        float(np.concatenate(list(difficulties.values())).mean()) if difficulties else None,
        distribution_distance(difficulties, run.difficulties(ORIGINAL)),
    )


def _mean_and_std(values: Sequence[float]) -> tuple[float | None, float | None]:
    if not values:
        return None, None
    repeats = summarize_repeats(values)
    return repeats.mean, repeats.sample_std


def summarize(run: Run) -> dict[str, Any]:
    """Everything that ``summary.json`` holds."""
    legible = {pool: run.legible(pool) for pool in run.pools}
    return {
        "experiment": run.name,
        "seed": run.seed,
        "rows": [asdict(row) for row in summary_rows(run)],
        "seconds": {cost.stage: cost.seconds for cost in run.costs},
        "versions": versions(),
        "pool_legible": {pool: share for pool, share in legible.items() if share is not None},
    }


def show_summary_row(row: Mapping[str, Any], variants: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """Cells of a row of ``summary.json`` under ``HEADINGS``."""

    def accuracy(which: str) -> str:
        mean, std = row[f"accuracy_{which}_mean"], row[f"accuracy_{which}_std"]
        return "" if mean is None else f"{100 * mean:.1f}" + ("" if std is None else f" ± {100 * std:.1f}")

    def interval() -> str:
        mean, std = row["accuracy_last_mean"], row["accuracy_last_std"]
        if std is None:
            return ""
        return " to ".join(f"{100 * end:.1f}" for end in confidence_interval(mean, std, row["repeats"]))

    def number(value: float | None) -> str:
        return "" if value is None else f"{value:.3f}"

    return (
        show_row(row["method"], variants),
        "all" if row["ipc"] is None else str(row["ipc"]),
        show_network(row["network"] or ""),
        str(row["repeats"]),
        accuracy("best"),
        accuracy("last"),
        interval(),
        number(row["mean_difficulty"]),
        number(row["distribution_distance"]),
    )


def paired_comparisons(run: Run) -> dict[tuple[str, str, int, str], Comparison]:
    """Last accuracies with difficulty guidance against those without, seed by seed, in percentage points.

    Returns:
        By the two methods, IPC and network; pairs that share no seed are left out.
    """
    by_seed: dict[tuple[str, int | None, str], dict[int, float]] = defaultdict(dict)
    for e in run.evaluations:
        by_seed[e.row, e.ipc, e.network][e.seed] = 100 * e.accuracy_last
    comparisons = {}
    for first, second in PAIRS:
        for row, ipc, network in sorted(key for key in by_seed if key[0] == first and key[1] is not None):
            ours, theirs = by_seed[row, ipc, network], by_seed.get((second, ipc, network), {})
            if ipc is not None and ours.keys() & theirs.keys():
                comparisons[first, second, ipc, network] = compare_paired(ours, theirs)
    return comparisons


def cost_rows(costs: Iterable[Cost]) -> list[tuple[str, str, str, str, str]]:
    """Cells of the cost table: stage (repeated ones together), seconds, images, images a second, device."""
    rows = []
    for kind, group in itertools.groupby(costs, key=lambda cost: cost.stage.split("/")[0]):
        members = list(group)
        together = kind in ("evaluation", "estimator")
        for stage, parts in (
            [(f"{kind}, {len(members)} runs", members)] if together else [(c.stage, [c]) for c in members]
        ):
            seconds, images = sum(c.seconds for c in parts), sum(c.images or 0 for c in parts)
            devices = ", ".join(sorted({c.device for c in parts if c.device}))
            speed = f"{images / seconds:.1f}" if images and seconds else ""
            rows.append((stage, f"{seconds:.1f}", str(images or ""), speed, devices))
    return rows


def summary_markdown(run: Run, summary: Mapping[str, Any]) -> str:
    """The summary as Markdown: rows, paired comparisons, legibility of the pools, costs, versions."""
    parts = [f"# {run.settings.get('title') or run.name}", ""]
    if run.unfinished:
        parts += [f"**Not finished:** {', '.join(run.unfinished)}. The rest follows.", ""]
    rows = [show_summary_row(row, run.variants) for row in summary["rows"]]
    parts += [NOTE, "", *markdown_table(HEADINGS, rows, 3), ""]
    if comparisons := paired_comparisons(run):
        parts += ["## Paired comparisons", "", "Last accuracy on the same seeds, in percentage points.", ""]
        parts += [
            *markdown_table(COMPARISON_HEADINGS, [comparison_cells(*item) for item in comparisons.items()], 4),
            "",
        ]
    if summary["pool_legible"]:
        shares = ", ".join(f"{pool} {share:.1%}" for pool, share in summary["pool_legible"].items())
        parts += [f"Legible, by an independent classifier trained on the original images: {shares}.", ""]
    if run.costs:
        parts += ["## Cost", "", *markdown_table(COST_HEADINGS, cost_rows(run.costs), 1), ""]
    parts.append(f"Seed {summary['seed']}. " + ", ".join(f"{n} {v}" for n, v in summary["versions"].items()) + ".")
    return "\n".join(parts) + "\n"


def comparison_cells(key: tuple[str, str, int, str], comparison: Comparison) -> tuple[str, ...]:
    """Cells of a paired comparison."""
    first, second, ipc, network = key
    difference, interval = comparison.difference, comparison.difference.interval
    return (
        METHODS[first],
        METHODS[second],
        str(ipc),
        show_network(network),
        f"{difference.mean:+.1f}",
        "" if interval is None else f"{interval[0]:+.1f} to {interval[1]:+.1f}",
        f"{comparison.wins} of {difference.count}",
        "" if comparison.p_value is None else f"{comparison.p_value:.2f}",
    )


def summary_table(summary: Mapping[str, Any], variants: Mapping[str, Mapping[str, Any]]) -> RichTable:
    """The rows as a table for the terminal, in 80 columns: what all share is its title, and intervals are left out."""
    rows = [show_summary_row(row, variants) for row in summary["rows"]]
    shared = [
        p for p, name in enumerate(HEADINGS) if name in ("Network", "Runs") and len({row[p] for row in rows}) == 1
    ]
    shown = [p for p, name in enumerate(HEADINGS) if name != INTERVAL and p not in shared]
    title = ", ".join(f"{HEADINGS[p]}: {rows[0][p]}" for p in shared)
    table = RichTable(title=title, title_justify="left", box=SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    for position in shown:
        table.add_column(HEADINGS[position], justify="left" if position < 3 else "right", no_wrap=position > 0)
    for row in rows:
        table.add_row(*(row[position] for position in shown))
    return table
