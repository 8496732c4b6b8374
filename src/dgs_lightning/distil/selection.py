"""Selection of a distilled set from an image pool on disk, with a report of how each class was selected."""

import warnings
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import numpy as np
from numpy.random import Generator, default_rng
from scipy.stats import wasserstein_distance

from dgs_lightning.bounds import AtLeast, Between, Group, check_bounds
from dgs_lightning.data.folders import read_set
from dgs_lightning.data.records import ImageRecord, require_scores
from dgs_lightning.data.trees import Links
from dgs_lightning.errors import InputError, counted, listed, printable
from dgs_lightning.models.features import PIXELS, Features, build_features
from dgs_lightning.seeding import named_seed
from dgs_lightning.selection import coresets
from dgs_lightning.selection.clustering import Points
from dgs_lightning.selection.distribution import Counts, Floats, histogram, interval_of, sampling_distribution
from dgs_lightning.selection.sampler import Shortage, select_class
from dgs_lightning.selection.smoothing import SmoothingSettings, smoothing_settings
from dgs_lightning.selection.transport import closest_set

Answer = Literal["right_confident", "right_unsure"]
Method = Literal["dgs", "transport", "random", "kcenter", "herding", "kmeans", "ccs", "first", "easy", "all", Answer]
Smoothing = Literal["paper", "released", "none"]
IPC = Between(1, 1_000_000_000)
ImagesPerClass = Annotated[int, IPC]
Classes = Mapping[str, list[ImageRecord]]

BY_ORIGINALS = ("dgs", "transport")
BY_ANSWER = get_args(Answer)
BY_DIFFICULTY = (*BY_ORIGINALS, *BY_ANSWER, "ccs", "easy")
BY_FEATURES: Mapping[str, Callable[[Points, int], Counts]] = {
    "kcenter": coresets.k_center_greedy,
    "herding": coresets.herding,
    "kmeans": coresets.kmeans_coreset,
}


@dataclass(frozen=True)
class Selected:
    """Result of a selection."""

    records: list[ImageRecord]  # of the selected images, with their difficulty interval if they are scored
    report: dict[str, Any]  # settings, and for each class the images that were available, wanted and taken
    difficulties: Mapping[str, list[float]]  # of the scored images of "original", "pool" and "distilled"


@dataclass(frozen=True, kw_only=True)
class SelectionSettings(Group):
    """How images are selected from a pool: by difficulty (Sections 3.2 and 3.3), or by another method.

    Args:
        method: ``dgs`` follows a difficulty distribution; ``transport`` (not in the paper) takes the images whose
            difficulties have the least distance to those of the originals; ``random``, ``kcenter``, ``herding``,
            ``kmeans`` and ``ccs`` are coresets; ``first`` takes the first images by index, ``easy`` the easiest images,
            ``all`` all images; ``right_confident`` and ``right_unsure`` take those that the estimator recognises, the
            most or the least confident first (CaO2).
        distribution: ``scale`` (that of the originals), ``hill``, ``ground``, ``slope``, ``cliff`` (Fig. 8), ``pool``
            (that of the pool), ``uniform`` (as even as the pool allows), or one number for each interval.
        smoothing: ``paper``, ``released`` (as in the authors' code), or ``none`` for difficulties without smoothing.
        smoothing_forks: Changes to the settings of that smoothing, such as ``extremes: zero``; see
            :class:`~dgs_lightning.selection.smoothing.SmoothingSettings`.
        intervals: Number of difficulty intervals.
        shortage: What replaces the missing images of an interval: ``random`` takes any images (the paper), ``nearest``
            those of the nearest intervals.
        pool_scores: Folder with the scores of the pool, if they are not in the pool's own metadata.
        original_scores: Folder with the scores of the originals, if they are not in their own metadata.
        pool_images: Use only this many images of each class, the first by index; by default all.
        features: What ``kcenter``, ``herding`` and ``kmeans`` compare: ``pixels`` (32 x 32 thumbnails), or the features
            of a classifier, ``torchvision:NAME``, ``timm:NAME`` or a folder of trained weights. In an experiment, it is
            by default the difficulty estimator, or the first one of a cross-fitted estimator.
        features_weights: Local file with the weights of a named network, or torchvision's name of weights; by default
            they come from its hub.
        fill: Where too few images are recognised, ``p_true`` adds those with the largest probability of their class.
            ``released`` (CaO2's code) goes by that of any class, for which ``ScoringTask`` needs ``confidence: true``.
        hard_cutoff: Share of the hardest images that ``ccs`` drops.
        strata: Number of difficulty strata that ``ccs`` covers.
        allow_fewer: If a class has fewer images than ``ipc``, take all of them instead of stopping.
        seed: Seed of every draw.
    """

    method: Method = "dgs"
    distribution: Annotated[str | list[float], AtLeast(0)] = "scale"
    smoothing: Smoothing = "paper"
    smoothing_forks: dict[str, float | str | None] | None = None
    intervals: Annotated[int, Between(1, 1000)] = 10
    shortage: Shortage = "random"
    pool_scores: str | None = None
    original_scores: str | None = None
    pool_images: Annotated[int | None, AtLeast(1)] = None
    features: str = PIXELS
    features_weights: str | None = None
    fill: Literal["p_true", "released"] = "p_true"
    hard_cutoff: Annotated[float, Between(0, 1, open="right")] = 0.3
    strata: Annotated[int, Between(1, 1_000_000)] = 50
    allow_fewer: bool = False
    seed: int = 0

    @classmethod
    def check_combination(cls, settings: Mapping[str, Any]) -> None:
        """Check the distribution for this number of intervals, and the changes to the smoothing."""
        check_bounds(SmoothingSettings, settings["smoothing_forks"] or {}, "smoothing_forks.")
        name, plenty = "distribution", np.ones(settings["intervals"], dtype=np.int64)
        try:
            sampling_distribution(settings[name], 1, plenty, plenty)
            name = "smoothing_forks"
            smoothing_settings("paper", settings[name])
        except (ValueError, TypeError) as error:
            raise InputError(name, repr(settings[name]), "a setting in range", f"Correct it: {error}") from None


@dataclass(frozen=True, kw_only=True)
class Selection(SelectionSettings):
    """Selects images of each class from a pool.

    The result depends on the names and scores of the files and on the seed, not on the order of the files on disk.
    Further settings are those of :class:`SelectionSettings`.

    Args:
        pool: Folder of the image pool: class folders of images from any source.
        ipc: Number of images to select from each class; by default ``share`` says how many.
        share: Share of the images of each class to select instead, rounded down.
        original: Folder of the original images. Without it, ``scale`` follows the pool's own difficulties.
        links: ``follow`` reads what links in these folders lead to. By default, links out of them are an error.
    """

    pool: str
    ipc: Annotated[int | None, IPC] = None
    share: Annotated[float | None, Between(0, 1, open="both")] = None
    original: str | None = None
    links: Links = "refuse"

    @classmethod
    def check_combination(cls, settings: Mapping[str, Any]) -> None:
        """Check that one of ``ipc`` and ``share`` says how many images to select."""
        super().check_combination(settings)
        ipc, share = settings["ipc"], settings["share"]
        if ipc is None and share is None:
            raise InputError.unset("ipc", "a number of images of each class, or a share of them", "10 (or share=0.5)")
        if share is not None and (ipc is not None or settings["method"] == "all"):
            found = f"{share} beside {'method: all' if ipc is None else f'ipc: {ipc}'}"
            raise InputError.setting("share", found, "one of them alone", "Remove one of the two")

    def run(self) -> Selected:
        """Read the pool, and the originals if a folder is given, and select.

        Raises:
            InputError: If a class is missing or has too few images, or scores are missing or of different estimators.
        """
        pool = _by_label(self.pool, self.pool_scores, self.links)
        if self.pool_images is not None:
            pool = {label: [records[k] for k in _first(records, self.pool_images)] for label, records in pool.items()}
        original = pool if self.original is None else _by_label(self.original, self.original_scores, self.links)
        return self.choose(pool, original)

    def choose(self, pool: Classes, original: Classes) -> Selected:
        """Select from the images of a pool by label, sorted, with those of the originals; errors as of :meth:`run`."""
        self._check_classes(pool, original)
        size = "ipc" if self.share is None else "share"
        report: dict[str, Any] = {name: getattr(self, name) for name in ("method", size, "seed", "intervals")}
        report["estimator"] = self._estimator(pool, original)
        if self.method == "dgs":
            smoothing = self._smoothing and asdict(self._smoothing)
            report |= {"distribution": self.distribution, "smoothing": smoothing, "shortage": self.shortage}
        features = build_features(self.features, self.features_weights) if self.method in BY_FEATURES else None
        if features is not None:
            report["features"] = features.what
        selected: list[ImageRecord] = []
        classes: dict[str, Any] = {}
        for label, records in pool.items():
            count, rng = min(self._wanted(records), len(records)), self._rng(label)
            if self.method in BY_ORIGINALS:
                follow = self._by_difficulty if self.method == "dgs" else self._by_transport
                chosen, classes[label] = follow(records, difficulties(original[label]), count, rng)
            else:
                chosen = [records[k] for k in sorted(self._coreset(records, count, rng, features))]
                classes[label] = {"selected": len(chosen)}
            selected += [self._with_interval(record) for record in chosen]
        _warn_of_failed_smoothing(classes)
        parts = {"original": chain(*original.values()), "pool": chain(*pool.values()), "distilled": selected}
        scored = {part: [r.difficulty for r in records if r.difficulty is not None] for part, records in parts.items()}
        return Selected(selected, {**report, "classes": classes}, scored)

    def _wanted(self, records: Sequence[ImageRecord]) -> int:
        """Number of images to select from a class."""
        return self.ipc or int(Fraction(str(self.share)) * len(records))  # as text, 0.29 of 100 images are 29

    def _rng(self, label: str) -> Generator:
        """Source of a class's draws. Its name has the method, so that two methods draw independently."""
        return default_rng(named_seed("select", self.seed, self.method, label))

    def _check_classes(self, pool: Classes, original: Classes) -> None:
        """Check that the pool has the classes of the originals, and enough images of each."""
        missing, unknown = sorted(original.keys() - pool.keys()), sorted(pool.keys() - original.keys())
        if missing or unknown:
            expected = f"the {counted(len(original), 'class')} of {self.original}"
            remedy = "Add the missing class folders and remove the others"
            raise InputError.labels(self.pool, expected, remedy, missing=missing, unknown=unknown)
        sizes = {label: (len(records), self._wanted(records)) for label, records in pool.items()}
        if small := [f"{label}: {size}" for label, (size, wanted) in sizes.items() if wanted < 1]:
            found = f"{counted(len(small), 'class')} of which a share of {self.share} is no image ({listed(small, 20)})"
            raise InputError(self.pool, found, "at least one image of each class", "Raise the share, or add images")
        short = [f"{label}: {size}" for label, (size, wanted) in sizes.items() if size < wanted]
        if short and not self.allow_fewer and self.method != "all":
            found = f"{counted(len(short), 'class')} with fewer images than the IPC ({listed(short, 20)})"
            remedy = "Lower the IPC, enlarge the pool, or set allow_fewer to take all images of these classes"
            raise InputError(self.pool, found, f"at least {self.ipc} images of each class", remedy)

    def _estimator(self, pool: Classes, original: Classes) -> str | None:
        """Name of the one estimator of all scores; ``None`` if the method needs no scores."""
        if self.method not in BY_DIFFICULTY:
            return None
        estimator = require_scores([*chain(*pool.values())], Path(self.pool))
        if self.method in BY_ORIGINALS and self.original is not None:
            other = require_scores([*chain(*original.values())], Path(self.original))
            if other != estimator:
                expected = f"those of {estimator}, as in the pool; scores of different estimators cannot be compared"
                remedy = "Score both sets with one estimator"
                raise InputError(self.original, f"difficulties of the estimator {other}", expected, remedy)
        return estimator

    def _by_difficulty(
        self, records: list[ImageRecord], reference: Floats, size: int, rng: Generator
    ) -> tuple[list[ImageRecord], dict[str, Any]]:
        """Difficulty-guided sampling of one class (Algorithm 1): the selected images, and a report for Fig. 7.

        In the report, ``unsmoothed`` is a draw with the same random numbers, but without smoothing.
        """
        scores = difficulties(records)
        options: dict[str, Any] = {name: getattr(self, name) for name in ("distribution", "intervals", "shortage")}
        plain, found = (
            select_class(scores, reference, size, deepcopy(rng), smoothing=smoothing, **options)
            for smoothing in (None, self._smoothing)
        )
        smoothed, draw = found.smoothed, found.draw
        report = {
            "selected": size,
            "target": found.target.tolist(),
            "available": found.available.tolist(),
            "taken": draw.taken.tolist(),
            "filled": draw.filled.tolist(),
            "thresholds": {"pool": asdict(smoothed.pool_thresholds), "original": asdict(smoothed.original_thresholds)},
            "kl": found.kl,
            "wasserstein": found.wasserstein,
            "unsmoothed": {"target": plain.target.tolist(), **self._account(reference, scores, plain.draw.chosen)},
            "raw": {"target": plain.target.tolist(), **self._account(reference, scores, draw.chosen)},
            "smoothed": {
                "target": found.target.tolist(),
                **self._account(smoothed.original, smoothed.pool, draw.chosen),
            },
        }
        extra = {k: {**records[k].extra, "smoothed": float(smoothed.pool[k])} for k in draw.chosen}
        return [replace(records[k], extra=extra[k]) for k in draw.chosen], report

    def _by_transport(
        self, records: list[ImageRecord], reference: Floats, size: int, rng: Generator
    ) -> tuple[list[ImageRecord], dict[str, Any]]:
        """The images of one class nearest to the originals' difficulties, and a report of these."""
        scores = difficulties(records)
        chosen = closest_set(scores, reference, size, rng)
        return [records[k] for k in chosen], {"selected": size, "raw": self._account(reference, scores, chosen)}

    def _account(self, original: Floats, pool: Floats, chosen: Counts) -> dict[str, Any]:
        """Counts by interval and mean of the originals, the pool and the selected images.

        ``distance`` is the Wasserstein-1 distance between the difficulties of the selected images and of the originals.
        """
        distilled = pool[chosen]
        return {"distance": float(wasserstein_distance(distilled, original))} | {
            name: {"counts": histogram(scores, self.intervals).tolist(), "mean": float(scores.mean())}
            for name, scores in (("original", original), ("pool", pool), ("distilled", distilled))
        }

    def _coreset(self, records: list[ImageRecord], size: int, rng: Generator, features: Features | None) -> Counts:
        """Positions of the images that a method without a target distribution selects."""
        if features is not None:
            rows = features([Path(self.pool, record.file_name) for record in records])
            return BY_FEATURES[self.method](rows, size)
        match self.method:
            case "random":
                return coresets.random_coreset(len(records), size, rng)
            case "ccs":
                cutoff, scores = self.hard_cutoff, difficulties(records)
                return coresets.coverage_centric(scores, size, rng, hard_cutoff=cutoff, strata=self.strata)
            case "first":
                return _first(records, size)
            case "easy":
                return np.argsort(difficulties(records), kind="stable")[:size]
            case "right_confident" | "right_unsure":
                return self._by_answer(records, size)
        return np.arange(len(records))  # all

    def _by_answer(self, records: list[ImageRecord], size: int) -> Counts:
        """Positions of the images that the estimator recognises, in order of its confidence, then of the others."""
        released, p_true = self.fill == "released", 1 - difficulties(records)
        needed = [record.extra.get("confidence") if released else record.predicted for record in records]
        if None in needed:
            found, remedy = ("confidence", " with confidence: true of ScoringTask") if released else ("predicted", "")
            where, expected = self.pool_scores or self.pool, "scores of 'dgs predict' that have it"
            raise InputError(where, f"scores without {found!r}", expected, f"Score the pool again{remedy}")
        right = np.array([record.predicted == record.label for record in records])
        confidence, fill = (np.array(needed, np.float64), None) if released else (p_true, p_true)
        return coresets.right_first(right, confidence, size, unsure=self.method == "right_unsure", fill=fill)

    @cached_property
    def _smoothing(self) -> SmoothingSettings | None:
        """Settings of the smoothing; ``None`` if difficulties are not smoothed."""
        return None if self.smoothing == "none" else smoothing_settings(self.smoothing, self.smoothing_forks)

    def _with_interval(self, record: ImageRecord) -> ImageRecord:
        if record.difficulty is None:
            return record
        return replace(record, interval=int(interval_of(np.array([record.difficulty]), self.intervals)[0]))


def difficulties(records: Sequence[ImageRecord]) -> Floats:
    """Difficulties of scored records, shape ``(N,)``."""
    return np.array([record.difficulty for record in records], dtype=np.float64)


def _warn_of_failed_smoothing(classes: Mapping[str, Any]) -> None:
    thresholds = {label: report.get("thresholds", {}).values() for label, report in classes.items()}
    if failed := [printable(label) for label, pair in thresholds.items() if any(found["degenerate"] for found in pair)]:
        found = f"smoothing found no thresholds in {len(failed)} of {counted(len(classes), 'class')}"
        reason = "clipped nothing there: their difficulties are too few or too similar for this smoothing"
        warnings.warn(f"{found} ({listed(failed, 10)}) and {reason}", stacklevel=3)


def _by_label(folder: str, scores: str | None, links: Links) -> Classes:
    """Records of an image set by label, both sorted."""
    classes: dict[str, list[ImageRecord]] = defaultdict(list)
    for record in read_set(Path(folder), None if scores is None else Path(scores), links):
        classes[record.label].append(record)
    return dict(sorted(classes.items()))


def _first(records: list[ImageRecord], count: int) -> Counts:
    """Positions of the first records by index, ascending. Records without an index come last, by name."""
    order = sorted(range(len(records)), key=lambda k: (records[k].index is None, records[k].index or 0))
    return np.array(sorted(order[:count]))
