"""Callbacks that attach guidance to the generation: mode guidance (MGD3), difficulty-aware guidance, or one's own."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import lightning as L
import numpy as np
import torch
from torch import Tensor

from dgs_lightning.bounds import Ranged
from dgs_lightning.data.cards import hash_file, hash_json
from dgs_lightning.data.latents import LatentCache
from dgs_lightning.data.records import ImageRecord, read_manifest, require_scores
from dgs_lightning.datamodules.requests import RequestBatch, request_datamodule
from dgs_lightning.diffusion.guidance import ClusterGuidance, StepState
from dgs_lightning.errors import InputError
from dgs_lightning.files import write_tensors
from dgs_lightning.models.weights import read_weights
from dgs_lightning.selection.clustering import Points, interval_centers, kmeans_centers
from dgs_lightning.selection.distribution import Floats, interval_of, largest_remainder
from dgs_lightning.selection.smoothing import fit_thresholds, smooth, smoothing_settings
from dgs_lightning.tasks.generation import GenerationTask, generation_task

Form = Literal["x0", "latent"]


class GuidanceCallback(L.Callback):
    """Base of guidance of one's own: say in ``__call__`` how far a step's mean is shifted.

    Name the class in the config's ``trainer.callbacks``. The constructor's settings that are kept as attributes are
    recorded with the images. The task is theirs to read as ``self.task``.

    Example:
        >>> class TowardsWhite(GuidanceCallback):
        ...     def __init__(self, scale: float = 0.1) -> None:
        ...         self.scale = scale
        ...
        ...     def __call__(self, state: StepState) -> Tensor:
        ...         return self.scale * state.sigma * (1 - state.latent)
    """

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Attach the guidance to the task.

        Raises:
            InputError: If the task is another than ``GenerationTask``, or another callback guides it.
        """
        self.task = task_to_guide(trainer, pl_module, self)
        settings: dict[str, Any] = {"class": type(self).__qualname__}
        for name, value in vars(self).items():
            with suppress(TypeError, ValueError):  # what is no plain value is no setting
                settings[name] = json.loads(json.dumps(value, allow_nan=False))
        self.task.attach(self, settings)

    def __call__(self, state: StepState) -> Tensor | None:
        """Shift of the mean of a step; ``None`` for none."""
        raise NotImplementedError


class TowardsCenters(L.Callback, Ranged):
    """Base of guidance of each image towards a cluster centre of its own (Eq. 10), one image for each centre.

    Args:
        scale: Strength lambda.
        stop_timestep: Steps are guided while their respaced index, from 49 down to 0, is above it: a larger one guides
            less.
        form: ``x0`` measures the distance to the centre from the predicted clean latent, ``latent`` from the noisy one
            (Eq. 10 read literally).
    """

    RANGES: ClassVar[Mapping[str, str]] = {
        "scale": "(-inf, inf)",
        "stop_timestep": "[-1, 1000]",
    }

    def __init__(self, scale: float, stop_timestep: int, form: Form) -> None:
        self.scale = scale
        self.stop_timestep = stop_timestep
        self.form = form
        self.check_settings(vars(self))

    def center_file(self, trainer: L.Trainer, labels: Sequence[str]) -> Path:
        """Safetensors file with the centres of each label, shape ``(n, C, h, w)``."""
        raise NotImplementedError

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Hand the centres to the datamodule, which requests an image for each.

        Raises:
            InputError: If task or data are of another kind, another callback guides, or the centres do not fit.
        """
        task = task_to_guide(trainer, pl_module, self)
        datamodule = request_datamodule(trainer.datamodule, type(self).__name__)  # type: ignore[attr-defined]
        path = self.center_file(trainer, datamodule.labels)
        datamodule.centers = read_centers(path, datamodule.labels, task.latent_shape)
        settings = {"scale": self.scale, "stop_timestep": self.stop_timestep, "form": self.form}
        task.attach(None, {"centers": hash_file(path), **settings})

    def on_predict_batch_start(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        batch: RequestBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Guide this batch towards its centres."""
        if batch.centers is not None:
            task = generation_task(pl_module, type(self).__name__)
            task.guidance = ClusterGuidance(batch.centers, self.scale, self.stop_timestep, self.form)


class CenterGuidance(TowardsCenters):
    """Guidance towards centres of one's own.

    Args:
        centers: Safetensors file with the centres of each label, shape ``(n, C, h, w)``.
        scale: Strength lambda.
        stop_timestep: Steps are guided while their respaced index is above it.
        form: What the distance to the centre is measured from, ``x0`` or ``latent``.
    """

    def __init__(self, centers: str, scale: float = 0.1, stop_timestep: int = 25, form: Form = "x0") -> None:
        super().__init__(scale, stop_timestep, form)
        self.centers = Path(centers)

    def center_file(self, trainer: L.Trainer, labels: Sequence[str]) -> Path:
        """The file given."""
        return self.centers


class ModeGuidance(TowardsCenters):
    """Mode guidance (Chan-Santiago et al., "MGD3", ICML 2025): centres are the k-means modes of each class.

    Args:
        latents: Latent cache of the original images.
        ipc: Images per class: that many centres.
        scale: Strength lambda.
        stop_timestep: Steps are guided while their respaced index is above it.
        form: What the distance to the centre is measured from, ``x0`` or ``latent``.
        seed: Seed of the k-means.
        store: Folder for the centres, by default ``centers`` in the trainer's ``default_root_dir``. Centres of the same
            latents and settings are found there again.
    """

    RANGES: ClassVar[Mapping[str, str]] = {**TowardsCenters.RANGES, "ipc": "[1, 1000000]"}

    def __init__(
        self,
        latents: str,
        ipc: int = 10,
        scale: float = 0.1,
        stop_timestep: int = 25,
        form: Form = "x0",
        seed: int = 0,
        store: str | None = None,
    ) -> None:
        self.latents = Path(latents)
        self.ipc = ipc
        self.seed = seed
        self.store = store
        super().__init__(scale, stop_timestep, form)

    def center_file(self, trainer: L.Trainer, labels: Sequence[str]) -> Path:
        """File with the centres, computed by the first device where it is not there yet.

        Raises:
            InputError: If there are no latents of a class.
        """
        cache = LatentCache(self.latents)
        missing = [label for label in labels if label not in cache.labels]
        if missing:
            raise InputError(
                self.latents,
                found=f"no latents of {', '.join(missing[:5])}",
                expected="latents of all labels that are generated",
                remedy="Set data.labels to the cache's classes, or encode the missing ones",
            )
        folder = Path(trainer.default_root_dir) / "centers" if self.store is None else Path(self.store)
        path = folder / f"{hash_json([cache.key, list(labels), self.rule()])[:16]}.safetensors"
        if trainer.is_global_zero and not path.is_file():
            shape = cache.settings.shape
            centers = {label: torch.from_numpy(self.centers_of(label, cache)).float() for label in labels}
            write_tensors(path, {label: points.reshape(-1, *shape) for label, points in centers.items()})
        trainer.strategy.barrier("centres computed")
        return path

    def rule(self) -> list[Any]:
        """What the centres depend on beside latents and labels."""
        return ["modes", self.ipc, self.seed]

    def centers_of(self, label: str, cache: LatentCache) -> Points:
        """Centres of a class, flattened, shape ``(ipc, C * h * w)``."""
        return kmeans_centers(points_of(images_of(label, cache), cache), self.ipc, self.seed)


class DifficultyAwareGuidance(ModeGuidance):
    """Difficulty-aware guidance (Section 3.4, Algorithm 2): centres within each difficulty interval of a class.

    Each interval has as many centres as the sampling distribution gives it: the largest remainder of the class's
    difficulty histogram, scaled to the IPC.

    Args:
        latents: Latent cache of the original images.
        scores: Scores folder of the same images.
        ipc: Images per class: that many centres.
        scale: Strength lambda.
        stop_timestep: Steps are guided while their respaced index is above it.
        form: What the distance to the centre is measured from, ``x0`` or ``latent``.
        smoothing: ``none`` for the raw difficulties of Algorithm 2, or the preset ``paper`` or ``released`` of DGS's
            smoothing (Section 3.4).
        intervals: Number of difficulty intervals.
        seed: Seed of the k-means.
        store: Folder for the centres, as in :class:`ModeGuidance`.
    """

    RANGES: ClassVar[Mapping[str, str]] = {**ModeGuidance.RANGES, "intervals": "[1, 1000]"}

    def __init__(
        self,
        latents: str,
        scores: str,
        ipc: int = 10,
        scale: float = 0.1,
        stop_timestep: int = 25,
        form: Form = "x0",
        smoothing: Literal["none", "paper", "released"] = "none",
        intervals: int = 10,
        seed: int = 0,
        store: str | None = None,
    ) -> None:
        self.scores = Path(scores)
        self.smoothing = smoothing
        self.intervals = intervals
        super().__init__(latents, ipc, scale, stop_timestep, form, seed, store)

    @cached_property
    def scored(self) -> dict[str, ImageRecord]:
        """The scores by file name."""
        return {record.file_name: record for record in read_manifest(self.scores)}

    def rule(self) -> list[Any]:
        """What the centres depend on beside latents and labels."""
        scores = sorted((name, record.difficulty) for name, record in self.scored.items())
        return ["difficulty", self.ipc, self.seed, self.smoothing, self.intervals, scores]

    def centers_of(self, label: str, cache: LatentCache) -> Points:
        """Centres of a class from its easiest interval to its hardest, flattened, shape ``(ipc, C * h * w)``."""
        images = images_of(label, cache)
        intervals = interval_of(self.difficulties([cache.records[image] for image in images]), self.intervals)
        counts = largest_remainder(np.bincount(intervals, minlength=self.intervals), self.ipc)
        return interval_centers(points_of(images, cache), intervals, counts, self.seed)[0]

    def difficulties(self, images: Sequence[ImageRecord]) -> Floats:
        """Difficulty of each image of a class, smoothed if so set.

        Raises:
            InputError: If an image is not scored, or by another estimator than the others.
        """
        records = [self.scored.get(image.file_name, image) for image in images]
        require_scores(records, self.scores)
        scores: Floats = np.array([record.difficulty for record in records], dtype=np.float64)
        if self.smoothing == "none":
            return scores
        settings = smoothing_settings(self.smoothing)
        return smooth(scores, fit_thresholds(scores, self.ipc, settings, self.intervals), settings)


def task_to_guide(trainer: L.Trainer, module: L.LightningModule, guidance: L.Callback) -> GenerationTask:
    """The module as the task that a callback may guide.

    Raises:
        InputError: If it is another task, or another callback guides it, too.
    """
    name = type(guidance).__name__
    for other in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(other, GuidanceCallback | TowardsCenters) and other is not guidance:
            raise InputError(
                "trainer.callbacks",
                found=f"{name} and {type(other).__name__}",
                expected="one guidance",
                remedy="Remove one of them",
            )
    return generation_task(module, name)


def read_centers(path: Path, labels: Sequence[str], shape: tuple[int, int, int]) -> dict[str, Tensor]:
    """Cluster centres of each label, shape ``(n, C, h, w)``.

    Raises:
        InputError: If the file is broken, or lacks a label, or has centres of another shape than the model's latents.
    """
    try:
        centers = read_weights(path)
    except InputError as error:
        raise InputError(
            path,
            found=error.parts[1],
            expected="a safetensors file of centres",
            remedy="Delete it; what a run computed, the same command computes again",
        ) from None
    for label in labels:
        if label not in centers or centers[label].shape[1:] != shape or not len(centers[label]):
            found = f"shape {tuple(centers[label].shape)}" if label in centers else "none"
            raise InputError(
                f"{path}, centres of {label}",
                found=found,
                expected=f"shape (n, {', '.join(map(str, shape))}), as the model's latents",
                remedy="Compute the centres on latents of the model's codec and image size",
            )
    return {label: centers[label].float() for label in labels}


def images_of(label: str, cache: LatentCache) -> Tensor:
    """Positions of a class's images in the cache, shape ``(n,)``."""
    return (cache.classes == cache.labels.index(label)).nonzero().flatten()


def points_of(images: Tensor, cache: LatentCache) -> Points:
    """Posterior means of images, flattened, shape ``(n, C * h * w)``."""
    points: Points = cache.read(images).mean.flatten(1).numpy()
    return points
