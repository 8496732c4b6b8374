"""The content of a run's ``summary.json``: accuracies, difficulty, cost and versions."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import wasserstein_distance

from dgs_lightning.data.cards import versions
from dgs_lightning.reporting.folder import Difficulties, Evaluation, RunFolder
from dgs_lightning.reporting.names import split_variant, table_order
from dgs_lightning.reporting.published import Accuracy, Score
from dgs_lightning.reporting.statistics import Comparison, compare_paired, summarize_repeats
from dgs_lightning.runs.layout import FULL, ORIGINAL, SetName
from dgs_lightning.runs.methods import METHODS

Trained = tuple[str, int | None, str | None]  # row, IPC and network; no network if none was trained on the set


def summarize(run: RunFolder) -> dict[str, Any]:
    """The content of ``summary.json``."""
    legible = {pool: run.legible(pool) for pool in run.pools}
    return {
        "experiment": run.name,
        "seed": run.seed,
        "rows": summary_rows(run),
        "seconds": {cost.stage: cost.seconds for cost in run.costs},
        "versions": versions(),
        "pool_legible": {pool: share for pool, share in legible.items() if share is not None},
    }


def trainings(run: RunFolder) -> dict[Trained, list[Evaluation]]:
    """The trainings of a run by IPC, network and method; a set without a trained network has an empty list."""
    groups: dict[Trained, list[Evaluation]] = defaultdict(list)
    for evaluation in run.evaluations:
        groups[evaluation.row, evaluation.ipc, evaluation.network].append(evaluation)
    trained = {(row, ipc) for row, ipc, _ in groups}
    groups.update({(name.row, name.ipc, None): [] for name in run.distilled if (name.row, name.ipc) not in trained})

    def order(key: Trained) -> tuple[Any, ...]:
        row, ipc, network = key
        method, variant = split_variant(row, run.variants)
        return ipc is None, ipc or 0, table_order("network", network or ""), table_order("method", method), variant

    return {key: groups[key] for key in sorted(groups, key=order)}


def summary_rows(run: RunFolder) -> list[dict[str, Any]]:
    """The rows of a run by IPC, network and method: one for each distilled set and each network trained on it.

    Returns:
        For each row ``method`` (the key of a method or the name of a variant), ``ipc`` (None for the full data set),
        ``network`` (None, and no accuracies, if none was trained yet), ``repeats`` (number of trainings); mean and
        sample standard deviation (None with fewer than two repeats) of the accuracy at the end of training
        (``accuracy_last_mean``, ``accuracy_last_std``) and of the best of each training (``accuracy_best_mean``,
        ``accuracy_best_std``), in ``[0, 1]``; ``mean_difficulty`` of the set's images and ``distribution_distance``
        (:func:`distribution_distance`), None if they are not scored.
    """
    rows = []
    for (row, ipc, network), evaluations in trainings(run).items():
        last, last_std = _mean_and_std([evaluation.accuracy_last for evaluation in evaluations])
        best, best_std = _mean_and_std([evaluation.accuracy_best for evaluation in evaluations])
        difficulties = run.difficulties(FULL if ipc is None else str(SetName(row, ipc)))
        rows.append(
            {
                "method": row,
                "ipc": ipc,
                "network": network,
                "repeats": len(evaluations),
                "accuracy_last_mean": last,
                "accuracy_last_std": last_std,
                "accuracy_best_mean": best,
                "accuracy_best_std": best_std,
                "mean_difficulty": float(np.concatenate([*difficulties.values()]).mean()) if difficulties else None,
                "distribution_distance": distribution_distance(difficulties, run.difficulties(ORIGINAL)),
            }
        )
    return rows


def _mean_and_std(values: Sequence[float]) -> tuple[float | None, float | None]:
    if not values:
        return None, None
    repeats = summarize_repeats(values)
    return repeats.mean, repeats.sample_std


def distribution_distance(distilled: Difficulties, original: Difficulties) -> float | None:
    """Wasserstein-1 distance between the difficulties of a set and of the original images, in ``[0, 1]``.

    It is averaged over the classes that both have, and None if they have no class in common.
    """
    common = [label for label in distilled if label in original]
    distances = [wasserstein_distance(distilled[label], original[label]) for label in common]
    return float(np.mean(distances)) if distances else None


def kept_share(run: RunFolder, ipc: int) -> float | None:
    """Share of the original images that a set of this IPC keeps, in ``[0, 1]``; None where they are not scored."""
    sizes = [len(scores) for scores in run.difficulties(ORIGINAL).values()]
    return sum(min(ipc, size) for size in sizes) / sum(sizes) if sizes else None


def row_score(row: Mapping[str, Any], which: Accuracy) -> Score | None:
    """Accuracy of a row of ``summary.json`` in percent; None if no network was trained."""
    mean, std = row[f"accuracy_{which}_mean"], row[f"accuracy_{which}_std"]
    return None if mean is None else Score(100 * mean, None if std is None else 100 * std)


def paired_comparisons(run: RunFolder) -> dict[tuple[str, str, int, str], Comparison]:
    """Last accuracies with difficulty guidance minus those without, seed by seed, in percentage points.

    There is a comparison for each pair of methods, IPC and network with a common seed.
    """
    by_seed: dict[tuple[str, int, str], dict[int, float]] = defaultdict(dict)
    for e in run.evaluations:
        if e.ipc is not None:
            by_seed[e.row, e.ipc, e.network][e.seed] = 100 * e.accuracy_last
    pairs = [(method.key, method.compared_with) for method in METHODS.values() if method.compared_with]
    comparisons = {}
    for first, second in pairs:
        for _, ipc, network in sorted(key for key in by_seed if key[0] == first):
            ours, theirs = by_seed[first, ipc, network], by_seed.get((second, ipc, network), {})
            if ours.keys() & theirs.keys():
                comparisons[first, second, ipc, network] = compare_paired(ours, theirs)
    return comparisons
