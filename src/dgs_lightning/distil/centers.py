"""Latents of each class for its images: cluster centres, which guidance pulls the images towards, or start latents."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from dgs_lightning.bounds import Between, Group
from dgs_lightning.data.cards import hash_json
from dgs_lightning.data.classes import labels_of
from dgs_lightning.data.folders import read_scores
from dgs_lightning.data.latents import LatentCache
from dgs_lightning.data.records import ImageRecord, require_scores
from dgs_lightning.diffusion.groups import best_groups, fit_gaussian
from dgs_lightning.documents.texts import parse_json
from dgs_lightning.errors import InputError
from dgs_lightning.files import reading, write_tensors
from dgs_lightning.models.weights import read_weights
from dgs_lightning.seeding import generator
from dgs_lightning.selection.clustering import Points, classes_in_threads, interval_centers, kmeans_centers
from dgs_lightning.selection.distribution import Floats, interval_of, largest_remainder
from dgs_lightning.selection.search import fit_thresholds
from dgs_lightning.selection.smoothing import smooth, smoothing_settings

Smoothing = Literal["none", "paper", "released"]
Count = Annotated[int, Between(1, 1_000_000)]
Intervals = Annotated[int, Between(1, 1000)]
DESCRIPTION = "computed from"  # key of the file's metadata


def class_centers(
    points: Points,
    ipc: int,
    seed: int = 0,
    difficulties: Floats | None = None,
    smoothing: Smoothing = "none",
    intervals: int = 10,
) -> Points:
    """Cluster centres of one class.

    Without difficulties, they are the k-means modes of the class (Chan-Santiago et al., "MGD3", ICML 2025). With
    difficulties, they are the k-means centres within each difficulty interval (Algorithm 2), from the easiest interval
    to the hardest. The difficulty histogram of the class, scaled to the IPC, is the number of centres by interval.

    Args:
        points: Flattened latents of the class, shape ``(N, D)``.
        ipc: Number of centres.
        seed: Seed of the k-means.
        difficulties: Difficulty of each image in [0, 1], shape ``(N,)``.
        smoothing: ``none``, or a preset of DGS's smoothing.
        intervals: Number of difficulty intervals.

    Returns:
        Centres, shape ``(ipc, D)``.

    Raises:
        ValueError: If there is no point.
    """
    if difficulties is None:
        return kmeans_centers(points, ipc, seed)
    if smoothing != "none":
        settings = smoothing_settings(smoothing)
        difficulties = smooth(difficulties, fit_thresholds(difficulties, ipc, settings, intervals), settings)
    places = interval_of(difficulties, intervals)
    counts = largest_remainder(np.bincount(places, minlength=intervals), ipc)
    return interval_centers(points, places, counts, seed)[0]


@dataclass(frozen=True, kw_only=True)
class Centers(Group):
    """Cluster centres of each class of a latent cache, or start latents of its images.

    All methods raise an ``InputError`` if the cache or the scores cannot be read, a class has no latents, or an image
    has no score or one of another estimator than the others.

    With ``groups``, the latents are those that D3HR (ICML 2025) denoises: for each class, groups of ``ipc`` latents are
    drawn from a normal distribution with the mean and variance of each value of its noisy latents, and the group whose
    mean, variance and skewness are nearest to it is kept.

    Args:
        latents: Latent cache of the original images; with ``groups``, the cache of ``InversionTask``.
        scores: Scores folder of the same images. With scores, the centres lie within difficulty intervals
            (Section 3.4, Algorithm 2). Without scores, they are the modes of each class (MGD3).
        ipc: Number of centres of each class, one for each image to generate; or of latents in a group.
        labels: Labels, or the name of a class list (``imagewoof``), or a folder with class folders. By default all
            classes of the cache.
        smoothing: ``none`` for the raw difficulties of Algorithm 2, or ``paper`` or ``released`` for a preset of DGS's
            smoothing (Section 3.4).
        intervals: Number of difficulty intervals.
        seed: Seed of the k-means or of the groups.
        groups: Number of groups that are drawn. None for cluster centres. Published are 1e8. Ten thousand groups of 10
            latents of 4 x 32 x 32 take about 4 seconds for each class.
        kept: Number of groups that are kept, the best one first, for a pool of ``kept * ipc`` images of each class.
    """

    latents: str
    scores: str | None = None
    ipc: Count = 10
    labels: list[str] | str | None = None
    smoothing: Smoothing = "none"
    intervals: Intervals = 10
    seed: int = 0
    groups: Annotated[int | None, Between(1, 1_000_000_000)] = None
    kept: Annotated[int, Between(1, 1000)] = 1

    @classmethod
    def check_combination(cls, settings: Mapping[str, Any]) -> None:
        """Check that groups go without difficulties, and that there are as many as are kept."""
        groups, kept = settings["groups"], settings["kept"]
        if groups is not None and settings["scores"] is not None:
            raise InputError.setting("groups", f"{groups}, beside scores", "one of them", "Remove groups or scores")
        if kept > (1 if groups is None else groups):
            expected = "1 without groups" if groups is None else f"at most {groups}, the number of groups"
            raise InputError.setting("kept", kept, expected)

    def describe(self) -> dict[str, Any]:
        """Everything that the centres depend on: labels, settings, and hashes of latents and scores."""
        modes = {"latents": self._cache.key, "labels": list(self._labels), "ipc": self.ipc, "seed": self.seed}
        if self.groups is not None:
            assert self._cache.settings.inversion is not None  # as _cache checks
            drawn = {"groups": self.groups, "kept": self.kept, "inversion": asdict(self._cache.settings.inversion)}
            return {"method": "groups", **modes, **drawn}
        if self.scores is None:
            return {"method": "modes", **modes}
        scores = hash_json(sorted((name, record.difficulty) for name, record in self._scored.items()))
        by_difficulty = {"smoothing": self.smoothing, "intervals": self.intervals, "scores": scores}
        return {"method": "difficulty", **modes, **by_difficulty}

    def write(self, path: Path) -> None:
        """Compute the centres and write them to a safetensors file, whole or not at all, with :meth:`describe`.

        Nothing is computed if the file has the same description. Centres of another description are replaced.

        Raises:
            InputError: If there is a file of something else.
        """
        description = self.describe()
        if not path.exists() or read_description(path) != description:
            write_tensors(path, self.compute(), {DESCRIPTION: json.dumps(description, sort_keys=True)}, durable=True)

    def compute(self) -> dict[str, Tensor]:
        """Latents of each label, shape ``(kept * ipc, C, h, w)``."""
        if self.groups is not None:
            return {label: self._start_latents(label, self.groups) for label in self._labels}
        self._scored  # noqa: B018  (read once, before the threads need it)
        with classes_in_threads(torch.get_num_threads()) as threads:
            return dict(zip(self._labels, threads.map(self._centers, self._labels), strict=True))

    def _images(self, label: str) -> Tensor:
        """Positions of the images of a class in the cache, shape ``(N,)``."""
        return (self._cache.classes == self._cache.labels.index(label)).nonzero().flatten()

    def _centers(self, label: str) -> Tensor:
        """Cluster centres of a class, shape ``(ipc, C, h, w)``."""
        cache, images = self._cache, self._images(label)
        difficulties = None if self.scores is None else self._difficulties([cache.records[i] for i in images])
        points: Points = cache.read(images).mean.flatten(1).numpy()
        found = class_centers(points, self.ipc, self.seed, difficulties, self.smoothing, self.intervals)
        return torch.from_numpy(found).float().reshape(-1, *cache.settings.shape)

    def _start_latents(self, label: str, count: int) -> Tensor:
        """Latents of the best of many groups, shape ``(kept * ipc, C, h, w)``."""
        noisy = self._cache.read(self._images(label)).mean
        if len(noisy) < 2:
            remedy = "Add images, or remove this class"
            raise InputError(f"{self.latents}, {label}", f"{len(noisy)} image", "at least 2, for a variance", remedy)

        def random(number: int) -> torch.Generator:
            return generator("group", self.seed, label, number)

        return best_groups(fit_gaussian(noisy), self.ipc, random, count=count, kept=self.kept).latents.flatten(0, 1)

    @cached_property
    def _cache(self) -> LatentCache:
        cache = LatentCache(Path(self.latents))
        if (cache.settings.inversion is None) != (self.groups is None):
            found, expected = ("clean", "noisy") if cache.settings.inversion is None else ("noisy", "clean")
            remedy = "Give the cache of InversionTask with groups, and that of EncodingTask without"
            raise InputError(self.latents, f"{found} latents", f"{expected} latents", remedy)
        return cache

    @cached_property
    def _labels(self) -> Sequence[str]:
        wanted = self._cache.labels if self.labels is None else self.labels
        wanted = labels_of(wanted) if isinstance(wanted, str) else wanted
        if missing := [label for label in wanted if label not in self._cache.labels]:
            remedy = "Set the labels to the cache's classes, or encode the missing images"
            raise InputError.labels(self.latents, "latents of all labels", remedy, missing=missing)
        return wanted

    @cached_property
    def _scored(self) -> dict[str, ImageRecord]:
        return {} if self.scores is None else read_scores(Path(self.scores))

    def _difficulties(self, images: Sequence[ImageRecord]) -> Floats:
        """Difficulty of each image of a class, shape ``(N,)``."""
        records = [self._scored.get(image.file_name, image) for image in images]
        require_scores(records, Path(str(self.scores)))
        return np.array([record.difficulty for record in records], dtype=np.float64)


def read_description(path: Path) -> object:
    """The description of the centres in a file, as :meth:`Centers.describe` gives it.

    Raises:
        InputError: If the file is broken, or was not written by :meth:`Centers.write`.
    """
    expected, remedy = "centres that 'dgs centers' wrote, or no file", "Delete it, or choose another output"
    with reading(path, expected, remedy), safe_open(path, "pt") as file:
        description = (file.metadata() or {}).get(DESCRIPTION)
        if description is None:
            raise InputError(path, "other tensors", expected, "Choose another output")
        return parse_json(description)


def read_centers(path: Path, labels: Sequence[str], shape: tuple[int, int, int]) -> dict[str, Tensor]:
    """Cluster centres of each label, shape ``(n, C, h, w)``.

    Args:
        path: Safetensors file with the centres of each label, written by ``dgs centers`` or by the user.
        labels: The labels to read.
        shape: Shape ``(C, h, w)`` of the model's latents.

    Raises:
        InputError: If the file is broken, or lacks a label, or has centres of another shape than the model's latents.
    """
    remedy = "Delete it; the same command computes again what a run computed"
    centers = read_weights(path, "a safetensors file of centres", remedy)
    for label in labels:
        if label not in centers or centers[label].shape[1:] != shape or not len(centers[label]):
            found = f"shape {tuple(centers[label].shape)}" if label in centers else "none"
            expected = f"shape (n, {', '.join(map(str, shape))}), as the model's latents"
            remedy = "Compute the centres on latents of the model's codec and image size"
            raise InputError(f"{path}, centres of {label}", found, expected, remedy)
    return {label: centers[label].float() for label in labels}


def hash_centers(centers: Mapping[str, Tensor]) -> str:
    """SHA-256 of the centres of some labels. Other labels of their file do not change it."""
    return hashlib.sha256(save(dict(centers))).hexdigest()
