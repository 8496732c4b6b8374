"""DD-Ranking's scores of a row, LRS and ARS: their formulas, and their values from the trainings of a run.

Li et al., "DD-Ranking: Rethinking the Evaluation of Dataset Distillation", 2025, and the documentation of the package
``ddranking``. Accuracies are shares in ``[0, 1]``.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from itertools import product
from typing import Any

from dgs_lightning.reporting.folder import RunFolder
from dgs_lightning.reporting.names import show, under
from dgs_lightning.reporting.records import Evaluation
from dgs_lightning.reporting.statistics import summarize_draws
from dgs_lightning.runs.ddranking import WEIGHT, Compared, ScoreName, compared_by
from dgs_lightning.runs.layout import FULL

Pair = tuple[int, int]  # draw and repeat: trainings with the same ones are compared
Place = tuple[str, int | None, str, str, str]  # row, IPC, network, protocol, and subset of the validation images
Accuracies = Mapping[Place, Mapping[Pair, float]]  # at the ends of trainings


def hard_label_recovery(full: float, own: float) -> float:
    """HLR: accuracy on the full data set minus that on the distilled one, both trained with the labels of the images.

    The smaller it is, the more of the full data set the images themselves recover.
    """
    return full - own


def improvement_over_random(own: float, random: float) -> float:
    """IOR: accuracy on the distilled set minus that on a random set of its size, both trained by one protocol."""
    return own - random


def normalised(gain: float) -> float:
    """Score in ``[0, 1]`` of a gain in ``[-1, 1]``: (exp(gain) - exp(-1)) / (exp(1) - exp(-1))."""
    return (math.exp(gain) - math.exp(-1)) / (math.exp(1) - math.exp(-1))


def label_robust_score(improvement: float, recovery: float, weight: float = WEIGHT) -> float:
    """LRS in ``[0, 1]``, higher is better: normalised w IOR - (1 - w) HLR.

    Args:
        improvement: IOR by the method's own protocol.
        recovery: HLR.
        weight: Weight w.
    """
    return normalised(weight * improvement - (1 - weight) * recovery)


def augmentation_robust_score(augmented: float, unaugmented: float, weight: float = WEIGHT) -> float:
    """ARS in ``[0, 1]``, higher is better: normalised gamma IOR with data augmentation + (1 - gamma) IOR without.

    Args:
        augmented: IOR by the method's own protocol.
        unaugmented: IOR by this protocol without its data augmentation.
        weight: Weight gamma.
    """
    return normalised(weight * augmented + (1 - weight) * unaugmented)


NUMBERS: Mapping[ScoreName, tuple[str, ...]] = {  # what a score adds to the columns of a row
    "lrs": ("full", "hlr", "ior", "lrs"),
    "ars": ("ior", "ior_unaugmented", "ars"),
}


def weights_of(run: RunFolder) -> dict[ScoreName, float]:
    """The scores that a run asks for, each with the weight of its first term."""
    given = {score: run.settings.get(f"{score}_weight") for score in run.settings.get("scores") or ()}
    return {score: WEIGHT if weight is None else float(weight) for score, weight in given.items()}


def accuracies_by_place(run: RunFolder) -> Accuracies:
    """The accuracies of all finished trainings of a run, those that only scores compare included."""
    found: dict[Place, dict[Pair, float]] = defaultdict(dict)
    for e in run.all_evaluations:
        found[_place(e, Compared(e.training.trained_on.row, e.training.protocol))][e.draw, e.repeat] = e.accuracy_last
    return found


def _place(e: Evaluation, compared: Compared) -> Place:
    """Where the accuracies are that a training's are compared with."""
    return compared.row, None if compared.row == FULL else e.ipc, e.training.network, compared.protocol, e.subset


def score_columns(run: RunFolder, row: Sequence[Evaluation], ipc: int | None, known: Accuracies) -> dict[str, Any]:
    """The columns of a row of ``summary.json`` that scores add; none where the run asks for no score.

    Args:
        run: The run.
        row: The finished trainings of the row.
        ipc: Images per class; None for the full data set, which has no scores.
        known: All accuracies of the run.

    Returns:
        ``NAME_mean``, ``NAME_std`` and ``NAME_interval`` of each name in ``NUMBERS``, as of accuracies: ``full`` is the
        accuracy on the full data set that went into ``hlr``. None where a training is missing. ``scores_missing`` has,
        for each score that cannot be computed, which trainings are missing.
    """
    columns: dict[str, Any] = {}
    missing: dict[str, list[str]] = {}
    draws, repeats = (run.settings.get(name) or 1 for name in ("draws", "repeats"))
    pairs = {*product(range(draws), range(repeats))}
    for score, weight in weights_of(run).items():
        numbers: Mapping[str, Mapping[Pair, float]] = {}
        if row and ipc is not None:
            compared = compared_by(score, row[0].training.trained_on.row, row[0].training.protocol)
            places = {name: _place(row[0], of) for name, of in compared.items()}
            numbers = _numbers(score, weight, {name: known.get(place, {}) for name, place in places.items()})
            lacking = {place: len(pairs - known.get(place, {}).keys()) for place in places.values()}
            missing[score] = [_in_words(run, place, number, len(pairs)) for place, number in lacking.items() if number]
        elif ipc is not None:
            missing[score] = ["all trainings on its sets"]
        for name in NUMBERS[score]:
            columns |= _spread(name, numbers.get(name, {}), pairs)
    return columns | ({"scores_missing": {score: of for score, of in missing.items() if of}} if columns else {})


def _numbers(score: ScoreName, weight: float, of: Mapping[str, Mapping[Pair, float]]) -> dict[str, dict[Pair, float]]:
    """The numbers of a score for each draw and repeat, from accuracies by the names of :func:`compared_by`."""
    ior = _together(improvement_over_random, of["own"], of["random"])
    if score == "lrs":
        hlr = _together(hard_label_recovery, of["full_hard"], of["own_hard"])
        lrs = _together(partial(label_robust_score, weight=weight), ior, hlr)
        return {"full": {**of["full_hard"]}, "hlr": hlr, "ior": ior, "lrs": lrs}
    unaugmented = _together(improvement_over_random, of["own_unaugmented"], of["random_unaugmented"])
    ars = _together(partial(augmentation_robust_score, weight=weight), ior, unaugmented)
    return {"ior": ior, "ior_unaugmented": unaugmented, "ars": ars}


def _together(
    formula: Callable[[float, float], float], first: Mapping[Pair, float], second: Mapping[Pair, float]
) -> dict[Pair, float]:
    """A formula of two numbers for each draw and repeat that both have."""
    return {pair: formula(first[pair], second[pair]) for pair in sorted(first.keys() & second.keys())}


def _spread(name: str, values: Mapping[Pair, float], pairs: Collection[Pair]) -> dict[str, Any]:
    """Mean, sample standard deviation and interval of a number; None unless all draws and repeats have it."""
    by_draw: dict[int, list[float]] = defaultdict(list)
    for (draw, _), value in values.items():
        by_draw[draw].append(value)
    spread = summarize_draws(by_draw) if values.keys() == pairs else None
    return {
        f"{name}_mean": spread and spread.mean,
        f"{name}_std": spread and spread.sample_std,
        f"{name}_interval": spread and spread.interval,
    }


def _in_words(run: RunFolder, place: Place, number: int, asked: int) -> str:
    """The missing trainings at a place, as text."""
    row, ipc, network, protocol, _ = place
    return f"{run.show(row, ipc)} with {show('network', under(network, protocol))}: {number} of {asked} trainings"
