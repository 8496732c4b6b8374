"""Callbacks that guide the generation: mode guidance (MGD3), difficulty-aware guidance, or the user's own guidance."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, ClassVar

import lightning as L
import torch
from torch import Tensor
from torchvision.utils import make_grid

from dgs_lightning.bounds import FINITE, Between, check_bounds
from dgs_lightning.callbacks.parts import require, tensorboards
from dgs_lightning.data.cards import hash_json
from dgs_lightning.datamodules.requests import RequestBatch, RequestDataModule
from dgs_lightning.diffusion.guidance import ClusterGuidance, Form, Guidance, Side, StepState
from dgs_lightning.distil.centers import Centers, Count, Intervals, Smoothing
from dgs_lightning.errors import InputError
from dgs_lightning.tasks.generation import GenerationTask, to_pixels

Scale = Annotated[float, FINITE]
StopTimestep = Annotated[int, Between(-1, 1000)]


class GuidanceCallback(L.Callback):
    """Base class of a guidance: ``__call__`` returns the shift of a step's mean.

    Name your class in ``trainer.callbacks`` of the config. Its attributes with plain values are its settings; they are
    recorded with the images. The task is ``self.task``.

    If the trainer has a TensorBoard logger, the first images of a run are shown there, each above the image of the same
    class and noise without the guidance. This does not change the images of the run.

    Attributes:
        COMPARED: Number of images that are shown so.
        task: The task.

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> import torch
        >>> from dgs_lightning.examples import QUIET, write_dit
        >>> class Brighter(GuidanceCallback):
        ...     def __init__(self, amount: float = 0.1) -> None:
        ...         self.amount = amount
        ...
        ...     def __call__(self, state: StepState) -> Tensor:
        ...         return self.amount * torch.ones_like(state.latent)
        >>> with TemporaryDirectory() as folder:
        ...     task = GenerationTask(write_dit(folder), steps=3)
        ...     guided, plain = (
        ...         L.Trainer(**QUIET, callbacks=callbacks).predict(task, RequestDataModule(images_per_class=1))[0]
        ...         for callbacks in ([Brighter(amount=5.0)], [])
        ...     )
        >>> bool(guided.float().mean() > plain.float().mean())
        True
    """

    COMPARED: ClassVar[int] = 4
    task: GenerationTask

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Hand the guidance to the task. Only one callback may guide it."""
        self.task = require(GenerationTask, pl_module, self)
        for other in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(other, GuidanceCallback) and other is not self:
                found = f"{type(self).__name__} and {type(other).__name__}"
                raise InputError.setting("trainer.callbacks", found, "one guidance", "Remove one of them")
        data = trainer.datamodule  # type: ignore[attr-defined]
        centers = data.centers_hash if isinstance(data, RequestDataModule) else None
        self.task.guide(self.guidance_for, ({} if centers is None else {"centers": centers}) | self.settings())

    def guidance_for(self, batch: RequestBatch) -> Guidance | None:
        """The guidance of a batch: this object, unless a subclass makes one for each batch."""
        return self

    def on_predict_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Tensor, batch: RequestBatch, *_: object
    ) -> None:
        """Show the first images of the first batch, above the same images without guidance."""
        boards = tensorboards(trainer) if batch.number == 0 and trainer.is_global_zero else []
        if not boards:
            return
        first = RequestBatch(batch.number, batch.records[: self.COMPARED])
        with trainer.precision_plugin.predict_step_context():
            unguided = to_pixels(self.task.decode(self.task.generate(first, guided=False)))
        pairs = make_grid(torch.cat([outputs[: self.COMPARED], unguided]), nrow=len(first.records))
        for board in boards:
            board.add_image("guided_above_unguided", pairs)

    def settings(self) -> dict[str, Any]:
        """Settings to record with the images: the name of the class, and attributes with plain values."""
        settings: dict[str, Any] = {"class": type(self).__qualname__}
        for name, value in vars(self).items():
            with suppress(TypeError, ValueError):  # JSON cannot hold the value, so it is no setting
                settings[name] = json.loads(json.dumps(value, allow_nan=False))
        return settings

    def __call__(self, state: StepState) -> Tensor | None:
        """Shift of the mean of a step, shape ``(B, C, h, w)``; ``None`` for no shift."""
        raise NotImplementedError


class CenterGuidance(GuidanceCallback):
    """Guidance of each image towards its own cluster centre (Eq. 10). There is one image for each centre.

    Args:
        centers: Safetensors file with the centres of each label, shape ``(n, C, h, w)``, as ``dgs centers`` writes. By
            default the file of the datamodule's setting ``centers``.
        scale: Strength lambda.
        stop_timestep: A step is guided if its respaced index, from 49 down to 0, is above this number. A larger number
            guides fewer steps.
        form: ``x0`` measures the distance to the centre from the predicted clean latent, ``latent`` from the noisy
            latent (Eq. 10 read literally).
        guided: ``above`` as in MGD3's code. With ``below``, the other reading of the paper, a step is guided if its
            index is below ``stop_timestep``: none at stop 0, the last 25 of 50 at stop 25, all at stop 50.

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> import torch
        >>> from safetensors.torch import save_file
        >>> from dgs_lightning.examples import QUIET, write_dit
        >>> with TemporaryDirectory() as folder:
        ...     guidance = CenterGuidance(f"{folder}/my.safetensors", scale=0.2)
        ...     save_file({"cat": torch.zeros(2, 1, 4, 4), "dog": torch.ones(1, 1, 4, 4)}, guidance.centers)
        ...     task = GenerationTask(write_dit(folder), steps=3)
        ...     images = L.Trainer(**QUIET, callbacks=[guidance]).predict(task, RequestDataModule())
        >>> [len(batch) for batch in images]
        [3]
    """

    def __init__(
        self,
        centers: str | None = None,
        scale: Scale = 0.1,
        stop_timestep: StopTimestep = 25,
        form: Form = "x0",
        guided: Side = "above",
    ) -> None:
        self.centers, self.form = centers, form
        self.scale, self.stop_timestep, self.guided = scale, stop_timestep, guided
        check_bounds(type(self), vars(self))

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Hand the centres to the datamodule, and the guidance to the task."""
        require(GenerationTask, pl_module, self)
        data = require(RequestDataModule, trainer.datamodule, self)  # type: ignore[attr-defined]
        path = self.center_file(trainer, data)
        if path is not None:
            data.use_centers(path)
        elif data.centers is None:
            expected = "a file that 'dgs centers' wrote, or latents to compute the centres from"
            raise InputError.unset(f"{type(self).__name__}.centers", expected, "FILE")
        super().setup(trainer, pl_module, stage)

    def center_file(self, trainer: L.Trainer, data: RequestDataModule) -> Path | None:
        """File with the centres of each label, or ``None`` to use the datamodule's file."""
        return None if self.centers is None else Path(self.centers)

    def guidance_for(self, batch: RequestBatch) -> Guidance | None:
        """Guidance of a batch towards its centres."""
        if batch.centers is None:  # a trial of the batch size
            return None
        return ClusterGuidance(batch.centers, self.scale, self.stop_timestep, self.form, self.guided)

    def settings(self) -> dict[str, Any]:
        """Strength, guided steps and form. The task records the hash of the centres beside them."""
        return {name: getattr(self, name) for name in ("scale", "stop_timestep", "form", "guided")}


class ModeGuidance(CenterGuidance):
    """Mode guidance (Chan-Santiago et al., "MGD3", ICML 2025): centres are the k-means modes of each class.

    With the setting ``centers`` of :class:`CenterGuidance`, nothing is computed, and the other settings of the centres
    are not used.

    Args:
        latents: Latent cache of the original images, to compute the centres from.
        ipc: Images of each class, and so the number of centres.
        seed: Seed of the k-means.
        store: Folder for the computed centres, by default ``centers`` in the trainer's ``default_root_dir``. Centres
            of the same latents and settings are computed once.
        **guidance: Settings of :class:`CenterGuidance`.

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> from dgs_lightning.examples import QUIET, write_dit, write_latents
        >>> with TemporaryDirectory() as folder:
        ...     guidance = ModeGuidance(write_latents(f"{folder}/latents"), ipc=3, stop_timestep=0)
        ...     trainer = L.Trainer(**QUIET, callbacks=[guidance], default_root_dir=folder)
        ...     images = trainer.predict(GenerationTask(write_dit(folder), steps=3), RequestDataModule())
        >>> [len(batch) for batch in images]  # one image for each of three centres of two classes
        [6]
    """

    def __init__(
        self, latents: str | None = None, ipc: Count = 10, seed: int = 0, store: str | None = None, **guidance: object
    ) -> None:
        self.latents, self.store = latents, store
        self.ipc, self.seed = ipc, seed
        super().__init__(**guidance)  # type: ignore[arg-type]

    def center_file(self, trainer: L.Trainer, data: RequestDataModule) -> Path | None:
        """File with the centres. The first device computes them if it does not exist yet.

        Raises:
            InputError: If a class has no latents, or they need scores and have none.
        """
        if self.centers is not None or self.latents is None:
            return super().center_file(trainer, data)
        centers = Centers(latents=self.latents, labels=list(data.labels), ipc=self.ipc, seed=self.seed, **self.rule())
        folder = Path(trainer.default_root_dir) / "centers" if self.store is None else Path(self.store)
        path = folder / f"{hash_json(centers.describe())[:16]}.safetensors"
        if trainer.is_global_zero:
            centers.write(path)
        trainer.strategy.barrier("centres computed")
        return path

    def rule(self) -> dict[str, Any]:
        """Settings of :class:`~dgs_lightning.distil.centers.Centers` that a subclass adds."""
        return {}


class DifficultyAwareGuidance(ModeGuidance):
    """Difficulty-aware guidance (Section 3.4, Algorithm 2): centres within each difficulty interval of a class.

    Args:
        latents: Latent cache of the original images, to compute the centres from.
        scores: Scores folder of the same images.
        smoothing: ``none`` for the raw difficulties of Algorithm 2, or ``paper`` or ``released`` for a preset of DGS's
            smoothing (Section 3.4).
        intervals: Number of difficulty intervals.
        **modes: Other settings of :class:`ModeGuidance` and :class:`CenterGuidance`.

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> from dgs_lightning.examples import QUIET, write_dit, write_latents, write_scores
        >>> with TemporaryDirectory() as folder:
        ...     latents, scores = write_latents(f"{folder}/latents"), write_scores(f"{folder}/scores")
        ...     guidance = DifficultyAwareGuidance(latents, scores, ipc=2, smoothing="paper")
        ...     trainer = L.Trainer(**QUIET, callbacks=[guidance], default_root_dir=folder)
        ...     images = trainer.predict(GenerationTask(write_dit(folder), steps=3), RequestDataModule())
        >>> [len(batch) for batch in images]
        [4]
    """

    def __init__(
        self,
        latents: str | None = None,
        scores: str | None = None,
        smoothing: Smoothing = "none",
        intervals: Intervals = 10,
        **modes: object,
    ) -> None:
        self.scores = scores
        self.smoothing = smoothing
        self.intervals = intervals
        super().__init__(latents, **modes)  # type: ignore[arg-type]

    def rule(self) -> dict[str, Any]:
        """Scores, and how the difficulties are divided. Without scores, an InputError is raised."""
        if self.scores is None:
            raise InputError.unset(f"{type(self).__name__}.scores", "the scores folder of the images", "FOLDER")
        return {"scores": self.scores, "smoothing": self.smoothing, "intervals": self.intervals}
