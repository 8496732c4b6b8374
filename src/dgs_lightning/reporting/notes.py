"""Sentences beside the results of a run: how its numbers are to be read, and what they do not show."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

from dgs_lightning.data.generated import REFINEMENT_MEASURES
from dgs_lightning.reporting.ddranking import weights_of
from dgs_lightning.reporting.folder import RunFolder
from dgs_lightning.reporting.names import show
from dgs_lightning.runs.layout import SOFT
from dgs_lightning.runs.methods import GIVEN, Method, find_method

ACCURACIES = (
    "Best and Last are top-1 accuracies on the validation set, in %: Best is from a training's best evaluation, as the "
    "literature reports it, and Last is from its end."
)
SOFT_LABELS = (
    "Soft labels: the network learns the answers of a teacher that was trained on all originals, not the labels of the "
    "images. So these accuracies measure the teacher, too; compare the same network with and without them."
)
SCORES = (
    "Accuracies at the ends of trainings with the same seeds are compared. IOR: accuracy on the set minus that on a "
    "random set of the same IPC, both by the protocol of the row, in percentage points. All numbers are mean ± sample "
    "standard deviation over the {}."
)
LABEL_ROBUST = (
    "HLR: accuracy on the full data set (Full, in %) minus that on the set, both with the labels of the images, in "
    "percentage points; lower is better. LRS is {} IOR - {} HLR, put on a scale from 0 to 1; higher is better."
)
AUGMENTATION_ROBUST = (
    "ARS is {} IOR + {} IOR without data augmentation, put on a scale from 0 to 1, on which a random set has 0.269; "
    "higher is better."
)
ONE_DRAW = "There is one draw, so the chance of the draw is not in {}."
DIFFICULTIES = (
    "Difficulty is the mean over the images. Distance is the Wasserstein-1 distance between the difficulties of the "
    "set and of the original images, averaged over the classes."
)
SMOOTHED = (
    "Smoothed distance is the same between the smoothed difficulties (Eq. 7 to 9), which difficulty-guided sampling "
    "compares. The pool and the originals are smoothed each on its own, so that the easiest images of both get 0 and "
    "the hardest get 1: it may be small where Distance is large. A row without smoothing has none."
)


def result_notes(summary: Mapping[str, Any], run: RunFolder) -> Iterator[str]:
    """How to read the rows of a summary.

    Args:
        summary: Content of ``summary.json``.
        run: The run.
    """
    trained = [row for row in summary["rows"] if row["trainings"]]
    if trained:
        yield ACCURACIES
        if any(e.training.protocol == SOFT for e in run.evaluations):
            yield SOFT_LABELS
        if subsets := dict.fromkeys(e.subset for e in run.evaluations if e.subset):
            shown = ", ".join(show("variant", f"val_{subset}") for subset in subsets)
            yield f"{shown} in brackets: the same trainings, evaluated on these subsets of the validation images."
        yield from _spread_notes(trained, run)
    if any(row["mean_difficulty"] is not None for row in summary["rows"]):
        yield DIFFICULTIES
    if any(row["smoothed_distance"] is not None for row in summary["rows"]):
        yield SMOOTHED
    methods = {method.key: method for method in _methods(summary["rows"], run)}.values()
    if first := _titles(method for method in methods if method.rule == "first"):
        yield f"{first}: the first IPC images of each class of the pool."
    yield from _feature_notes(run)
    yield from _refinement_notes(run)
    if any(method.images == GIVEN for method in methods):
        yield "The pool is one and the same for all draws; each draw selects from it anew."


def score_notes(rows: Sequence[Mapping[str, Any]], run: RunFolder) -> Iterator[str]:
    """How to read the scores of some rows of a summary, and which trainings are missing where there is none."""
    weights = weights_of(run)
    yield SCORES.format("draws" if (run.settings.get("draws") or 1) > 1 else "trainings")
    if (weight := weights.get("lrs")) is not None:
        yield LABEL_ROBUST.format(weight, round(1 - weight, 6))
    if (weight := weights.get("ars")) is not None:
        yield AUGMENTATION_ROBUST.format(weight, round(1 - weight, 6))
    lacking: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        for score, missing in row["scores_missing"].items():
            network = "" if row["network"] is None else f" with {show('network', row['network'])}"
            name = f"{run.show(row['method'], row['ipc'])}{network}"
            lacking.setdefault((score.upper(), "; ".join(missing)), []).append(name)
    for (score, missing), names in lacking.items():
        yield f"No {score} of {'; '.join(names)}. Missing: {missing}."


def comparison_notes(run: RunFolder, tested: bool) -> Iterator[str]:
    """How to read the comparisons with and without difficulty guidance; ``tested``: one of them has several pairs."""
    several = len({e.draw for e in run.evaluations}) > 1
    pairs = "the same draw, with the same seeds of training" if several else "the same seeds of training"
    test = "; p is of a paired t-test" if tested else ""
    yield f"Difference of the Last accuracies of {pairs}, in percentage points{test}."
    if tested and not several:
        yield ONE_DRAW.format("p and the interval")


def _spread_notes(rows: list[Mapping[str, Any]], run: RunFolder) -> Iterator[str]:
    """What the spread and the interval of accuracies have in them."""
    several = any(row["sets"] > 1 for row in rows)
    if several:
        yield (
            "Accuracies are mean ± sample standard deviation over the sets of a row, one for each draw; the interval "
            "is that of the mean of Last."
        )
        yield (
            "All draws share the difficulty estimator with the scores of the originals and, where the rows use them, "
            "the latents and the weights of the DiT."
        )
        if all(row["trainings"] <= row["sets"] for row in rows if row["sets"] > 1):
            yield "Each set has one training, so it is not known how much of the spread comes from training."
        elif any(row["training_share"] is not None for row in rows):
            yield "Training noise: its estimated share of the variance of one training; the rest is chance of the draw."
    elif any(row["trainings"] > 1 for row in rows):
        yield "Accuracies are mean ± sample standard deviation over the trainings; the interval is that of Last's mean."
        if any(method.by_chance for method in _methods(rows, run)):
            yield ONE_DRAW.format("the spread and the interval")
    if several and (fixed := _titles(m for m in _methods(rows, run) if not m.by_chance)):
        yield f"{fixed}: one set, in which chance has no part; the spread and the interval are training noise alone."
    if several and (tied := _titles(m for m in _methods(rows, run) if m.rule == "transport" and not m.made_by)):
        yield f"{tied}: chance decides only between equally near sets of the same images, so all draws are much alike."


def _feature_notes(run: RunFolder) -> Iterator[str]:
    """What the methods compare that select by features, as their sets' ``selection.json`` says it."""
    compared: dict[str, dict[str, None]] = {}  # the features, and the names of the rows that compare them
    for name in run.distilled:
        if what := run.selection(name).get("features"):
            compared.setdefault(what, {})[run.show(name.row)] = None
    for what, rows in compared.items():
        yield f"{', '.join(rows)}: selected by comparing {what}."


def _refinement_notes(run: RunFolder) -> Iterator[str]:
    """How far the latents of refined images moved, and what became of the loss that the refinement is to lower."""
    for row, ipc in ((name.row, name.ipc) for name in run.distilled_by_ipc if name.ipc is not None):
        found = [measures for name in run.sets(row, ipc) if (measures := run.measures(name))]
        if found:
            before, after, moved = (fmean(measures[name] for measures in found) for name in REFINEMENT_MEASURES)
            yield (
                f"{run.show(row, ipc)}: refinement moved the latents by {moved:.3f} (root mean square). Their noise "
                f"error at the label of the class, with noise that it had not seen, went from {before:.4f} to "
                f"{after:.4f}; lower is better."
            )


def _methods(rows: list[Mapping[str, Any]], run: RunFolder) -> list[Method]:
    """The known methods of some rows."""
    return [method for row in rows if (method := find_method(run.method(row["method"])))]


def _titles(methods: Iterator[Method]) -> str:
    return ", ".join(dict.fromkeys(method.title for method in methods))
