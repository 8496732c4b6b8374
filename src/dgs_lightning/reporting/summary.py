"""The content of a run's ``summary.json``: accuracies, difficulty, cost and versions."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from dgs_lightning.data.cards import versions
from dgs_lightning.documents.files import read_json
from dgs_lightning.reporting.ddranking import accuracies_by_place, score_columns
from dgs_lightning.reporting.folder import Difficulties, RunFolder
from dgs_lightning.reporting.names import split_variant, table_order, trained_row
from dgs_lightning.reporting.published import Accuracy, Score
from dgs_lightning.reporting.records import REMEDY, Evaluation
from dgs_lightning.reporting.statistics import Comparison, compare_paired, summarize_draws, training_share
from dgs_lightning.runs import layout
from dgs_lightning.runs.layout import FULL, ORIGINAL, SetName
from dgs_lightning.runs.methods import METHODS

Trained = tuple[str, int | None, str | None]  # row, IPC and network; no network if none was trained on the set


def summarize(run: RunFolder) -> dict[str, Any]:
    """The content of ``summary.json``."""
    estimator, legible = run.recognised(ORIGINAL), {pool: run.legible(pool) for pool in run.pools}
    return {
        "experiment": run.name,
        "seed": run.seed,
        "rows": summary_rows(run),
        "seconds": {cost.stage: cost.seconds for cost in run.costs},
        "versions": {**run.versions},
        "estimator_accuracy": estimator and estimator.share,
        "pool_legible": {pool: found.share for pool, found in legible.items() if found is not None},
    }


def read_summary(run: RunFolder) -> dict[str, Any]:
    """The content of the run's ``summary.json`` where this version wrote it; else the same, worked out anew."""
    found = read_json(run.folder / layout.SUMMARY, dict[str, Any], "the summary of a run", REMEDY, default={})
    return found if found.get("versions") == versions() else summarize(run)


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
        ``network`` (None, and no accuracies, if none was trained yet); ``sets``, the number of different sets, one for
        each draw, and ``trainings``, that of trainings on all of them. Of the accuracy at the end of training
        ``accuracy_last_mean``, ``accuracy_last_std`` and ``accuracy_last_interval``, and of the best of each training
        ``accuracy_best_mean`` and ``accuracy_best_std``, as in
        :func:`~dgs_lightning.reporting.statistics.summarize_draws`, in ``[0, 1]``; ``training_share`` of the spread of
        the last accuracy (:func:`~dgs_lightning.reporting.statistics.training_share`); ``mean_difficulty`` of the
        images, ``distribution_distance`` (:func:`distribution_distance`) and ``smoothed_distance``
        (:func:`smoothed_distance`), each the mean over the sets. None where there are too few trainings, no scores, or
        no smoothing. Scores add the columns of :func:`~dgs_lightning.reporting.ddranking.score_columns`.
    """
    known = accuracies_by_place(run)
    return [
        {"method": row, "ipc": ipc, "network": network}
        | row_accuracies(evaluations)
        | score_columns(run, evaluations, ipc, known)
        | _difficulties(run, [SetName(FULL, None)] if ipc is None else run.sets(row, ipc))
        for (row, ipc, network), evaluations in trainings(run).items()
    ]


def row_accuracies(evaluations: Sequence[Evaluation]) -> dict[str, Any]:
    """The numbers of a row that come from its trainings."""
    sets = {e.training.trained_on for e in evaluations}
    found: dict[str, Any] = {"sets": len(sets), "trainings": len(evaluations), "training_share": None}
    for which in ("last", "best"):
        by_set: dict[int, list[float]] = defaultdict(list)
        for e in evaluations:
            by_set[e.training.trained_on.draw].append(e.accuracy_last if which == "last" else e.accuracy_best)
        spread = summarize_draws(by_set) if by_set else None
        found[f"accuracy_{which}_mean"] = spread and spread.mean
        found[f"accuracy_{which}_std"] = spread and spread.sample_std
        if which == "last":
            found["accuracy_last_interval"] = spread and spread.interval
            found["training_share"] = training_share(by_set)
    return found


def _difficulties(run: RunFolder, names: Sequence[SetName]) -> dict[str, Any]:
    """The numbers of a row that come from the scores of its sets."""
    original = run.difficulties(ORIGINAL)
    scored = [difficulties for name in names if (difficulties := run.difficulties(str(name)))]
    return {
        "mean_difficulty": _mean([float(np.concatenate([*by_label.values()]).mean()) for by_label in scored]),
        "distribution_distance": _mean([distribution_distance(difficulties, original) for difficulties in scored]),
        "smoothed_distance": _mean([smoothed_distance(run.selection(name)) for name in names if original]),
    }


def _mean(values: Iterable[float | None]) -> float | None:
    """Mean of the values that there are; None if there are none."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def distribution_distance(distilled: Difficulties, original: Difficulties) -> float | None:
    """Wasserstein-1 distance between the difficulties of a set and of the original images, in ``[0, 1]``.

    It is averaged over the classes that both have, and None if they have no class in common.
    """
    from scipy.stats import wasserstein_distance  # slow to import

    common = [label for label in distilled if label in original]
    return _mean(float(wasserstein_distance(distilled[label], original[label])) for label in common)


def smoothed_distance(selection: Mapping[str, Any]) -> float | None:
    """Wasserstein-1 distance between the smoothed difficulties of a set and of the original images, in ``[0, 1]``.

    It is averaged over the classes, and None if the selection did not smooth.

    Args:
        selection: The content of ``selection.json``.
    """
    accounts = selection.get("classes", {}).values() if selection.get("smoothing") else ()
    return _mean(account.get("smoothed", {}).get("distance") for account in accounts)


def kept_share(run: RunFolder, ipc: int) -> float | None:
    """Share of the original images that a set of this IPC keeps, in ``[0, 1]``; None where they are not scored."""
    sizes = [len(scores) for scores in run.difficulties(ORIGINAL).values()]
    return sum(min(ipc, size) for size in sizes) / sum(sizes) if sizes else None


def row_score(row: Mapping[str, Any], which: Accuracy) -> Score | None:
    """Accuracy of a row of ``summary.json`` in percent; None if no network was trained."""
    mean, std = row[f"accuracy_{which}_mean"], row[f"accuracy_{which}_std"]
    return None if mean is None else Score(100 * mean, None if std is None else 100 * std)


def paired_comparisons(run: RunFolder) -> dict[tuple[str, str, int, str], Comparison]:
    """Last accuracies with difficulty guidance minus those without, draw by draw, in percentage points.

    There is a comparison for each pair of methods, IPC and network with a common training. The value of a draw is the
    mean of its trainings. With one draw, the trainings are compared seed by seed.
    """
    groups = trainings(run)
    comparisons = {}
    for (row, ipc, network), evaluations in groups.items():
        trained = trained_row(row, run.variants)
        base = METHODS[trained].compared_with if trained in METHODS else None
        if base is not None and ipc is not None and network is not None:
            other = base + row.removeprefix(trained)  # on the same subset of the validation images
            ours, theirs = _paired(evaluations, groups.get((other, ipc, network), []))
            if ours:
                comparisons[row, other, ipc, network] = compare_paired(ours, theirs)
    return comparisons


def _paired(first: Sequence[Evaluation], second: Sequence[Evaluation]) -> tuple[dict[int, float], dict[int, float]]:
    """Last accuracies in percent of the trainings that both have, by draw, or by repeat if there is one draw."""
    common = {(e.draw, e.repeat) for e in first} & {(e.draw, e.repeat) for e in second}
    several = len({draw for draw, _ in common}) > 1

    def grouped(evaluations: Sequence[Evaluation]) -> dict[int, float]:
        groups: dict[int, list[float]] = defaultdict(list)
        for e in evaluations:
            if (e.draw, e.repeat) in common:
                groups[e.draw if several else e.repeat].append(100 * e.accuracy_last)
        return {pair: float(np.mean(values)) for pair, values in groups.items()}

    return grouped(first), grouped(second)
