"""Selection of a distilled set from an image pool on disk, with a report of how each class was selected."""

import warnings
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from dgs_lightning.bounds import AtLeast, Between, Group, check_bounds
from dgs_lightning.data.folders import read_set
from dgs_lightning.data.records import ImageRecord, require_scores
from dgs_lightning.errors import InputError
from dgs_lightning.models.features import build_features
from dgs_lightning.seeding import named_seed
from dgs_lightning.selection import coresets
from dgs_lightning.selection.clustering import Points
from dgs_lightning.selection.distribution import Counts, Floats, histogram, interval_of, sampling_distribution
from dgs_lightning.selection.sampler import ClassSelection, Shortage, select_class
from dgs_lightning.selection.smoothing import SmoothingSettings, smoothing_settings

Method = Literal["dgs", "random", "kcenter", "herding", "kmeans", "ccs", "first", "easy", "all"]
Smoothing = Literal["paper", "released", "none"]
ImagesPerClass = Annotated[int, Between(1, 1_000_000_000)]
Classes = Mapping[str, list[ImageRecord]]
Rule = Callable[[list[ImageRecord], int, np.random.Generator], Counts]

BY_DIFFICULTY = ("dgs", "ccs", "easy")
BY_FEATURES: Mapping[str, Callable[[Points, int], Counts]] = {
    "kcenter": coresets.k_center_greedy,
    "herding": coresets.herding,
    "kmeans": coresets.kmeans_coreset,
}


@dataclass(frozen=True)
class Selected:
    """Result of a selection.

    Attributes:
        records: Selected images, with their difficulty interval if they are scored.
        report: Settings, and for each class the images that were available, wanted and taken.
    """

    records: list[ImageRecord]
    report: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class SelectionSettings(Group):
    """How images are selected from a pool: by difficulty (Sections 3.2 and 3.3), or by another method.

    Args:
        method: ``dgs`` follows a difficulty distribution; ``random``, ``kcenter``, ``herding``, ``kmeans`` and ``ccs``
            are coresets; ``first`` takes the first images by index, ``easy`` the easiest images, ``all`` all images.
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
        features: What ``kcenter``, ``herding`` and ``kmeans`` compare: ``pixels``, or the name of a timm network.
        features_weights: Local file with that network's weights; by default timm downloads them.
        hard_cutoff: Share of the hardest images that ``ccs`` drops.
        strata: Number of difficulty strata that ``ccs`` covers.
        allow_fewer: If a class has fewer images than ``ipc``, take all of them instead of stopping.
        seed: Seed of every draw.

    Raises:
        InputError: If a setting is unknown or outside its limits.
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
    features: str = "pixels"
    features_weights: str | None = None
    hard_cutoff: Annotated[float, Between(0, 1, open="right")] = 0.3
    strata: Annotated[int, Between(1, 1_000_000)] = 50
    allow_fewer: bool = False
    seed: int = 0

    @classmethod
    def check_combination(cls, settings: Mapping[str, Any]) -> None:
        """Check what the limits cannot: the distribution for these intervals, and the smoothing.

        Raises:
            InputError: If one of them is unknown or impossible.
        """
        check_bounds(SmoothingSettings, settings["smoothing_forks"] or {}, "smoothing_forks.")
        plenty = np.ones(settings["intervals"], dtype=np.int64)
        for name, use in (
            ("distribution", lambda: sampling_distribution(settings["distribution"], 1, plenty, plenty)),
            ("smoothing_forks", lambda: _smoothing(settings["smoothing"], settings["smoothing_forks"])),
        ):
            try:
                use()
            except (ValueError, TypeError) as error:
                found, remedy = repr(settings[name]), f"Correct it: {error}"
                raise InputError(name, found=found, expected="a setting in range", remedy=remedy) from None


@dataclass(frozen=True, kw_only=True)
class Selection(SelectionSettings):
    """Selects images of each class from a pool.

    The result depends on the names and scores of the files and on the seed, not on the order of the files on disk.
    Further settings are those of :class:`SelectionSettings`.

    Args:
        pool: Folder of the image pool: class folders of images from any source.
        ipc: Number of images to select from each class.
        original: Folder of the original images. Without it, ``scale`` follows the pool's own difficulties.
    """

    pool: str
    ipc: ImagesPerClass
    original: str | None = None

    def run(self) -> Selected:
        """Read the pool, and the originals if a folder is given, and select.

        Raises:
            InputError: If a class is missing or has too few images, or scores are missing or of different estimators.
        """
        pool = self._pool()
        original = pool if self.original is None else _by_label(self.original, self.original_scores)
        _check_classes(pool, self.pool, original, self.original)
        estimator = self._check_scores(pool, original)
        self._check_sizes(pool)
        report: dict[str, Any] = {
            "method": self.method,
            "ipc": self.ipc,
            "seed": self.seed,
            "intervals": self.intervals,
            "estimator": estimator,
        }
        smoothing = _smoothing(self.smoothing, self.smoothing_forks)
        if self.method == "dgs":
            report |= {
                "distribution": self.distribution,
                "smoothing": smoothing and asdict(smoothing),
                "shortage": self.shortage,
            }
        rule = None if self.method == "dgs" else self._rule()
        selected: list[ImageRecord] = []
        classes: dict[str, Any] = {}
        for label, records in pool.items():
            size, rng = min(self.ipc, len(records)), np.random.default_rng(named_seed("select", self.seed, label))
            if rule is None:
                chosen, classes[label] = self._by_difficulty(records, original[label], size, rng, smoothing)
            else:
                chosen = [records[k] for k in sorted(rule(records, size, rng))]
                classes[label] = {"selected": len(chosen)}
            selected += [self._with_interval(record) for record in chosen]
        _warn_of_failed_smoothing(classes)
        return Selected(selected, {**report, "classes": classes})

    def _pool(self) -> Classes:
        pool = _by_label(self.pool, self.pool_scores)
        if self.pool_images is None:
            return pool
        return {label: [records[k] for k in _first(records, self.pool_images)] for label, records in pool.items()}

    def _check_scores(self, pool: Classes, original: Classes) -> str | None:
        """Name of the estimator of the scores; none if the method needs no scores."""
        if self.method not in BY_DIFFICULTY:
            return None
        estimator = require_scores([record for records in pool.values() for record in records], Path(self.pool))
        if self.method == "dgs" and self.original is not None:
            scored = [record for records in original.values() for record in records]
            other = require_scores(scored, Path(self.original))
            if other != estimator:
                raise InputError(
                    self.original,
                    found=f"difficulties of the estimator {other}",
                    expected=f"those of {estimator}, as in the pool; scores of different estimators cannot be compared",
                    remedy="Score both sets with one estimator",
                )
        return estimator

    def _check_sizes(self, pool: Classes) -> None:
        short = {label: len(records) for label, records in pool.items() if len(records) < self.ipc}
        if short and not self.allow_fewer and self.method != "all":
            listed = ", ".join(f"{label}: {count}" for label, count in list(short.items())[:20])
            raise InputError(
                self.pool,
                found=f"{len(short)} classes with fewer images than the IPC ({listed})",
                expected=f"at least {self.ipc} images of each class",
                remedy="Lower the IPC, enlarge the pool, or set allow_fewer to take all images of these classes",
            )

    def _by_difficulty(
        self,
        records: list[ImageRecord],
        original: list[ImageRecord],
        size: int,
        rng: np.random.Generator,
        smoothing: SmoothingSettings | None,
    ) -> tuple[list[ImageRecord], dict[str, Any]]:
        """Difficulty-guided sampling of one class (Algorithm 1): the selected records and the report."""
        scores, reference = difficulties(records), difficulties(original)
        found = select_class(
            scores,
            reference,
            size,
            rng,
            distribution=self.distribution,
            smoothing=smoothing,
            intervals=self.intervals,
            shortage=self.shortage,
        )
        smoothed = found.smoothed.pool
        chosen = [
            replace(records[k], extra={**records[k].extra, "smoothed": float(smoothed[k])}) for k in found.draw.chosen
        ]
        return chosen, self._report(found, scores, reference)

    def _report(self, found: ClassSelection, scores: Floats, reference: Floats) -> dict[str, Any]:
        """Report of a class: the histograms of Fig. 7 before and after smoothing, and the distance from the target."""
        chosen, smoothed = found.draw.chosen, found.smoothed
        raw = {"original": reference, "pool": scores, "distilled": scores[chosen]}
        size = len(chosen)
        target = sampling_distribution(
            self.distribution, size, histogram(reference, self.intervals), histogram(scores, self.intervals)
        )
        after = {"original": smoothed.original, "pool": smoothed.pool, "distilled": smoothed.pool[chosen]}
        return {
            "selected": size,
            "target": found.target.tolist(),
            "available": found.available.tolist(),
            "taken": found.draw.taken.tolist(),
            "filled": found.draw.filled.tolist(),
            "thresholds": {"pool": asdict(smoothed.pool_thresholds), "original": asdict(smoothed.original_thresholds)},
            "kl": found.kl,
            "wasserstein": found.wasserstein,
            "raw": {"target": target.tolist(), **self._histograms(raw)},
            "smoothed": {"target": found.target.tolist(), **self._histograms(after)},
        }

    def _histograms(self, scores: Mapping[str, Floats]) -> dict[str, Any]:
        return {
            name: {"counts": histogram(values, self.intervals).tolist(), "mean": float(values.mean())}
            for name, values in scores.items()
        }

    def _rule(self) -> Rule:
        """A method without a target distribution: from the records of a class to positions of the selected images."""
        if self.method in BY_FEATURES:
            features, coreset = build_features(self.features, self.features_weights), BY_FEATURES[self.method]
            return lambda records, size, _: coreset(features([Path(self.pool, r.file_name) for r in records]), size)
        rules: dict[str, Rule] = {
            "random": lambda records, size, rng: coresets.random_coreset(len(records), size, rng),
            "ccs": lambda records, size, rng: coresets.coverage_centric(
                difficulties(records), size, rng, hard_cutoff=self.hard_cutoff, strata=self.strata
            ),
            "first": lambda records, size, _: _first(records, size),
            "easy": lambda records, size, _: np.argsort(difficulties(records), kind="stable")[:size],
            "all": lambda records, *_: np.arange(len(records)),
        }
        return rules[self.method]

    def _with_interval(self, record: ImageRecord) -> ImageRecord:
        if record.difficulty is None:
            return record
        return replace(record, interval=int(interval_of(np.array([record.difficulty]), self.intervals)[0]))


def _smoothing(preset: str, forks: Mapping[str, float | str | None] | None) -> SmoothingSettings | None:
    """Settings of the smoothing; ``None`` if difficulties are not smoothed."""
    return None if preset == "none" else smoothing_settings(preset, forks)


def _warn_of_failed_smoothing(classes: Mapping[str, Any]) -> None:
    pairs = {label: report.get("thresholds", {}).values() for label, report in classes.items()}
    failed = [label for label, pair in pairs.items() if any(thresholds["degenerate"] for thresholds in pair)]
    if failed:
        warnings.warn(
            f"smoothing found no thresholds in {len(failed)} of {len(classes)} classes "
            f"({', '.join(failed[:10])}{' ...' if len(failed) > 10 else ''}) and clipped nothing there: "
            "their difficulties are too few or too similar for this smoothing",
            stacklevel=3,
        )


def difficulties(records: list[ImageRecord]) -> Floats:
    """Difficulties of scored records, shape ``(N,)``."""
    return np.array([record.difficulty for record in records], dtype=np.float64)


def _by_label(folder: str, scores: str | None) -> Classes:
    """Records of an image set by label, both sorted."""
    classes: dict[str, list[ImageRecord]] = defaultdict(list)
    for record in read_set(Path(folder), None if scores is None else Path(scores)):
        classes[record.label].append(record)
    return dict(sorted(classes.items()))


def _first(records: list[ImageRecord], count: int) -> Counts:
    """Positions of the first records by index, ascending. Records without an index come last, by name."""
    order = sorted(range(len(records)), key=lambda k: (records[k].index is None, records[k].index or 0, k))
    return np.array(sorted(order[:count]))


def _check_classes(pool: Classes, pool_folder: str, original: Classes, original_folder: str | None) -> None:
    missing, unknown = sorted(original.keys() - pool.keys()), sorted(pool.keys() - original.keys())
    if missing or unknown:
        parts = [f"no images of {', '.join(missing[:20])}"] if missing else []
        parts += [f"classes that {original_folder} lacks: {', '.join(unknown[:20])}"] if unknown else []
        raise InputError(
            pool_folder,
            found="; ".join(parts),
            expected=f"the {len(original)} classes of {original_folder}",
            remedy="Add the missing class folders and remove the others",
        )
