"""Callbacks that guide by gradients through denoiser and decoder: influence guidance (IGD), and classifier guidance."""

from pathlib import Path
from typing import Annotated, Any

import lightning as L
import torch
from torch import Tensor

from dgs_lightning.bounds import AtLeast, Between, check_bounds
from dgs_lightning.callbacks.guidance import GuidanceCallback, Scale
from dgs_lightning.callbacks.image_writer import ImageWriter
from dgs_lightning.callbacks.parts import require
from dgs_lightning.data.augmentation import normalise
from dgs_lightning.data.classes import check_known
from dgs_lightning.data.latents import latent_name, read_latent
from dgs_lightning.datamodules.requests import RequestBatch, RequestDataModule, image_name
from dgs_lightning.diffusion.guidance import Guidance
from dgs_lightning.diffusion.influence import (
    FIRST,
    LAST,
    REMEMBERED,
    ClassifierShift,
    GradientPath,
    InfluenceShift,
    deviation_scale,
    influence_gradient,
    log_probability_gradient,
)
from dgs_lightning.diffusion.sampler import split_sigma
from dgs_lightning.errors import InputError
from dgs_lightning.models.classifier import ClassifierConfig, load_classifier
from dgs_lightning.models.codec import PixelCodec
from dgs_lightning.models.surrogate import Flat, load_surrogate
from dgs_lightning.models.weights import hash_state
from dgs_lightning.tasks.generation import GenerationTask

Index = Annotated[int, Between(0, 999)]
Chunk = Annotated[int, AtLeast(1)]


class GradientGuidance(GuidanceCallback):
    """Base class of a guidance by the gradient of a classifier, through decoder and denoiser.

    Attributes:
        first: Respaced index of the first guided step.
        last: Respaced index of the last guided step.
        chunk: Images whose gradients are taken at a time.
        config: Settings of the classifier.
    """

    first: int
    last: int
    chunk: int
    config: ClassifierConfig

    @classmethod
    def check_combination(cls, settings: dict[str, Any]) -> None:
        """Refuse a last step before the first one."""
        first, last = settings["first"], settings["last"]
        if last > first:
            raise InputError.setting("last", last, f"at most {first}, the index of the first guided step")

    def check_classifier(self, name: str, source: str, data: RequestDataModule) -> None:
        """Check that the classifier knows the classes, takes the images, and guides a step.

        Raises:
            InputError: If it does not. It names the setting ``name`` and its value ``source``.
        """
        remedy = "Train it on images of these classes"
        check_known(data.labels, self.config.labels, f"{name} {source}", remedy)
        codec, shape = self.task.codec, self.task.latent_shape
        channels = shape[0] if isinstance(codec, PixelCodec) else 3
        size = self.config.image_size
        if self.config.channels != channels or codec.latent_shape(size) != shape:
            found = f"a classifier of images of {size} px with {self.config.channels} channels"
            expected = f"one of the images that the DiT makes, whose latents have shape {shape}"
            raise InputError.setting(f"{name} {source}", found, expected, "Train it on images of their size")
        if self.last >= (steps := self.task.hparams["steps"]):
            remedy = f"Set at most {steps - 1}, or more steps"
            raise InputError.setting("last", self.last, f"below {steps}, the number of steps", remedy)

    def path(self, batch: RequestBatch) -> GradientPath:
        """The way from noisy latents of a batch to images."""
        labels, task = [record.label for record in batch.records], self.task

        def predict(latents: Tensor, timestep: int, rows: slice) -> Tensor:
            timesteps = torch.full((len(latents),), timestep, device=latents.device)
            return split_sigma(task.denoiser(labels[rows])(latents, timesteps), latents.shape[1])[0]

        return GradientPath(predict, lambda latents: task.decode(latents).float(), self.chunk)

    def positions(self, batch: RequestBatch) -> list[int]:
        """Positions of the classes of a batch in the logits of the classifier."""
        return [self.config.labels.index(record.label) for record in batch.records]


class ClassifierGuidance(GradientGuidance):
    """Classifier guidance: towards images that a classifier is sure of.

    The mean of a step is shifted along the gradient of log q(y | x0), by the variance of the step (Dhariwal and Nichol,
    NeurIPS 2021, Algorithm 1). The classifier q sees the clean image that is predicted at the step, and the gradient
    goes through decoder and denoiser.

    Args:
        classifier: Folder of weights of a classifier, as ``ResultWriter`` writes with ``save_weights``. It must know
            the classes and take images of the size that the DiT makes.
        scale: Strength s.
        first: A step is guided if its respaced index is at most this number; by default all are.
        last: A step is guided if its respaced index is at least this number.
        chunk: Images whose gradients are taken at a time. Memory grows with it; it changes the order of sums alone.

    Raises:
        InputError: If a number is out of its range, or the classifier does not fit.

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> from dgs_lightning.examples import QUIET, write_classifier, write_dit
        >>> with TemporaryDirectory() as folder:
        ...     guidance = ClassifierGuidance(write_classifier(f"{folder}/judge"), scale=2.0)
        ...     task = GenerationTask(write_dit(f"{folder}/dit"), steps=3)
        ...     images = L.Trainer(**QUIET, callbacks=[guidance]).predict(task, RequestDataModule(images_per_class=2))
        >>> [len(batch) for batch in images]
        [4]
    """

    def __init__(
        self, classifier: str, scale: Scale = 1.0, first: Index = 999, last: Index = 0, chunk: Chunk = 8
    ) -> None:
        self.classifier = classifier
        self.scale, self.first, self.last, self.chunk = scale, first, last, chunk
        check_bounds(type(self), vars(self))

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Read the classifier, and hand the guidance to the task."""
        self.task = require(GenerationTask, pl_module, self)
        data = require(RequestDataModule, trainer.datamodule, self)  # type: ignore[attr-defined]
        network, self.config = load_classifier(Path(self.classifier))
        self._network = network.requires_grad_(False).to(trainer.strategy.root_device)
        self.check_classifier("classifier", self.classifier, data)
        super().setup(trainer, pl_module, stage)

    def settings(self) -> dict[str, Any]:
        """Strength and guided steps, and a hash of the classifier."""
        own = {name: getattr(self, name) for name in ("scale", "first", "last")}
        return {"class": type(self).__name__, **own, "classifier": hash_state(self._network.state_dict())}

    def guidance_for(self, batch: RequestBatch) -> Guidance:
        """Guidance of a batch towards its classes."""
        classes = self.positions(batch)

        def gradient(images: Tensor, rows: slice) -> Tensor:
            positions = torch.tensor(classes[rows], device=images.device)
            return log_probability_gradient(images, positions, self._logits)

        return ClassifierShift(self.path(batch), gradient, self.scale, self.first, self.last)

    def _logits(self, images: Tensor) -> Tensor:
        """Logits of images in [-1, 1]."""
        logits: Tensor = self._network(normalise(images / 2 + 0.5, self.config.mean, self.config.std))
        return logits


class InfluenceGuidance(GradientGuidance):
    """Influence guidance (Chen et al., "Influence-Guided Diffusion for Dataset Distillation", IGD, ICLR 2025).

    Each guided step moves an image so that it has the influence on the training of a classifier that the real images of
    its class have (influence), and away from the most similar one of the earlier images of its class (deviation).

    So an image depends on the earlier ones of its class. The images are made in rounds: the first of every class, then
    the second of every class, and so on. Several devices share the classes. Where a stopped run goes on, the latents of
    the finished images are read again, so the task needs ``keep_latents``. Batch size and devices then change nothing
    but the order of sums.

    Published scales are 5 and 120 for DiT, 10 and 100 for Minimax.

    Args:
        surrogate: Folder ``influence`` that ``SurrogateWriter`` wrote.
        scale: Strength k of the influence; 0 for none, which is much faster.
        deviation_scale: Strength gamma of the deviation for latents of 4 x 32 x 32. At other sizes, it is multiplied by
            the ratio of the numbers of values.
        first: A step is guided if its respaced index is at most this number.
        last: A step is guided if its respaced index is at least this number.
        chunk: Images whose gradients are taken at a time. Memory grows with it; it changes the order of sums alone.

    Raises:
        InputError: If a number is out of its range, or the surrogate does not fit.

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> from dgs_lightning import ClassificationTask, ImageDataModule, SurrogateWriter
        >>> from dgs_lightning.examples import QUIET, SILENT, write_dit, write_images
        >>> with TemporaryDirectory() as folder:
        ...     real = write_images(f"{folder}/images")
        ...     trainer = L.Trainer(**SILENT, max_epochs=1, default_root_dir=folder, callbacks=[SurrogateWriter()])
        ...     trainer.fit(ClassificationTask("convnet1", width=4), ImageDataModule(train=real, val=real))
        ...     guidance = InfluenceGuidance(f"{folder}/influence", last=1)
        ...     task = GenerationTask(write_dit(f"{folder}/dit"), steps=3, keep_latents=True)
        ...     images = L.Trainer(**QUIET, callbacks=[guidance]).predict(task, RequestDataModule(images_per_class=2))
        >>> [len(batch) for batch in images]
        [2, 2]
    """

    def __init__(
        self,
        surrogate: str,
        scale: Scale = 5.0,
        deviation_scale: Scale = 120.0,
        first: Index = FIRST,
        last: Index = LAST,
        chunk: Chunk = 1,
    ) -> None:
        self.surrogate, self.scale, self.deviation_scale = surrogate, scale, deviation_scale
        self.first, self.last, self.chunk = first, last, chunk
        check_bounds(type(self), vars(self))

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Read the surrogate, and hand the guidance to the task."""
        self.task = require(GenerationTask, pl_module, self)
        data = require(RequestDataModule, trainer.datamodule, self)  # type: ignore[attr-defined]
        if not self.task.hparams["keep_latents"]:
            expected = "true, since an image of IGD depends on the latents of earlier ones"
            raise InputError.setting("model.keep_latents", False, expected, "Set model.keep_latents=true")
        self._surrogate = load_surrogate(Path(self.surrogate))
        self.config = self._surrogate.config
        device = trainer.strategy.root_device
        self._flat = Flat(self._surrogate.network.requires_grad_(False).to(device), self.config)
        self._checkpoints = self._surrogate.checkpoints.to(device)
        self.check_classifier("surrogate", self.surrogate, data)
        data.in_rounds()
        self._latents: dict[str, dict[int, Tensor]] = {}  # finished ones of each label, by index
        writers = [callback for callback in trainer.callbacks if isinstance(callback, ImageWriter)]  # type: ignore[attr-defined]
        self._output = writers[0].output if writers else None
        super().setup(trainer, pl_module, stage)

    def settings(self) -> dict[str, Any]:
        """Strengths and guided steps, and a hash of the surrogate."""
        own = {name: getattr(self, name) for name in ("scale", "deviation_scale", "first", "last")}
        tensors = {"checkpoints": self._surrogate.checkpoints, **self._surrogate.gradients}
        return {"class": type(self).__name__, **own, "surrogate": hash_state(tensors)}

    def guidance_for(self, batch: RequestBatch) -> Guidance | None:
        """Guidance of a batch, with the finished latents of its classes."""
        if any(record.index is None for record in batch.records):  # a trial of the batch size
            return None
        labels, classes = [record.label for record in batch.records], self.positions(batch)
        if len(set(labels)) < len(labels):
            expected = "at most one of each class, since an image of IGD depends on the earlier ones"
            remedy = "Take the batches of RequestDataModule as they are"
            raise InputError(f"batch {batch.number}", "several images of a class", expected, remedy)
        memories = [self._earlier(record.label, record.index or 0) for record in batch.records]

        def gradient(images: Tensor, rows: slice) -> Tensor:
            parts = []
            for image, label, position in zip(images, labels[rows], classes[rows], strict=True):
                real = self._surrogate.gradients[label].to(image.device)
                parts.append(influence_gradient(image[None], position, self._checkpoints, real, self._logits)[0])
            return torch.cat(parts)

        gamma = deviation_scale(self.deviation_scale, self.task.latent_shape)
        path, scales = self.path(batch), (self.scale, gamma)
        return InfluenceShift(path, gradient, memories, *scales, self.first, self.last)

    def _logits(self, parameters: Tensor, images: Tensor) -> Tensor:
        """Logits of images in [-1, 1]."""
        return self._flat(parameters, images / 2 + 0.5)

    def _earlier(self, label: str, index: int) -> Tensor:
        """Latents of the images of a class before one of them, the last 64, shape ``(M, C, h, w)``."""
        known, shape = self._latents.setdefault(label, {}), self.task.latent_shape
        for place in range(max(0, index - REMEMBERED), index):
            if place not in known:
                known[place] = self._read(label, place)
        for place in [place for place in known if place < index - REMEMBERED]:
            del known[place]
        memory = [known[place] for place in sorted(known) if place < index]
        return torch.stack(memory).to(self.task.device) if memory else torch.empty(0, *shape, device=self.task.device)

    def _read(self, label: str, index: int) -> Tensor:
        """The latent of an image that an earlier run made."""
        if self._output is None:
            found, expected = f"no latent of image {index} of {label}", "those of all earlier images of its class"
            raise InputError("images of IGD", found, expected, "Generate the images of a class in order")
        return read_latent(self._output / latent_name(image_name(label, index)), self.task.latent_shape)

    def on_predict_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Tensor, batch: RequestBatch, *_: object
    ) -> None:
        """Remember the finished latents."""
        assert self.task.latents is not None
        for record, latent in zip(batch.records, self.task.latents.cpu(), strict=True):
            self._latents.setdefault(record.label, {})[record.index or 0] = latent
        super().on_predict_batch_end(trainer, pl_module, outputs, batch)
