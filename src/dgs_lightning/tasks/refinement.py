"""Refinement of the latents of generated images (CaO2): closer to what the model expects of their class."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from dgs_lightning.bounds import Above, AtLeast, Between, Group, OneOf
from dgs_lightning.data.generated import REFINEMENT_MEASURES
from dgs_lightning.data.records import ImageRecord
from dgs_lightning.datamodules.requests import RequestBatch
from dgs_lightning.diffusion.refinement import STEPS, Draw, Timestep, noise_error, refine
from dgs_lightning.diffusion.sampler import Denoiser, draw_noise
from dgs_lightning.seeding import generator
from dgs_lightning.tasks.generation import GenerationTask, Measured

_PRESETS: Mapping[str, Mapping[str, Any]] = {
    "ours": {"timestep": "mapped", "label": "class", "max_weight": 0.0, "noise": "fresh"},
    "released": {"timestep": "index", "label": "null", "max_weight": 10.0, "noise": "kept"},
}


@dataclass(frozen=True)
class Refinement(Group):
    """How latents are refined.

    Args:
        preset: ``ours`` follows CaO2's aim, a higher likelihood in the class; ``released`` does what its code does. The
            preset has the values of those of the next four settings that are not given.
        timestep: ``mapped`` tells the network the timestep that has as much noise; ``index``, the index of the step.
        label: ``class`` for the label of the class, ``null`` for none.
        max_weight: Weight of the largest error of a latent, beside the mean squared error.
        noise: ``fresh`` for noise of its own in each step, ``kept`` for the same noise in all steps.
        lr: Learning rate of Adam. A step changes a value by about as much.
        steps: Steps of Adam.
        last_index: The steps draw indices from 1 to this one, of 50 denoising steps; 49 has most noise. Published: 11,
            and 5 for ImageNet-100.
    """

    preset: Literal["ours", "released"] = "ours"
    timestep: Annotated[Timestep | None, OneOf("mapped", "index")] = None
    label: Annotated[Literal["class", "null"] | None, OneOf("class", "null")] = None
    max_weight: Annotated[float | None, AtLeast(0)] = None
    noise: Annotated[Literal["fresh", "kept"] | None, OneOf("fresh", "kept")] = None
    lr: Annotated[float, Above(0)] = 6e-4
    steps: Annotated[int, Between(1, 1_000_000)] = 100
    last_index: Annotated[int, Between(1, STEPS - 1)] = 11

    def settled(self) -> dict[str, Any]:
        """All settings but the preset, with its values for those that are not given."""
        own = {name: value for name, value in vars(self).items() if name != "preset"}
        return own | {name: value for name, value in _PRESETS[self.preset].items() if own[name] is None}


class RefinementTask(GenerationTask):
    """Generates images, and refines their latents before it decodes them (``dgs predict``).

    Wang et al., "CaO2", ICCV 2025, second stage. With ``data.images``, these are the images of a set that was selected
    from a pool: their latents are made again from their seeds, which takes less time than the refinement. All random
    choices are those of an image's own seed and the step, so that neither the batch nor the devices change them.

    Of each image, the task measures ``class_loss_before`` and ``class_loss_after``, the noise error at the label of its
    class with noise that the refinement has not seen, averaged over the indices; and ``moved_rms``, the root mean
    square of what was added to its latent.

    Args:
        refinement: How latents are refined. Further settings are those of :class:`GenerationTask`.

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> import lightning as L
        >>> from dgs_lightning import RequestDataModule
        >>> from dgs_lightning.examples import QUIET, write_dit
        >>> with TemporaryDirectory() as folder:
        ...     task = RefinementTask(write_dit(folder), steps=2, refinement=Refinement(steps=3, lr=0.01))
        ...     trainer = L.Trainer(**QUIET, default_root_dir=folder)
        ...     (batch,) = trainer.predict(task, RequestDataModule(images_per_class=3))
        >>> batch.images.shape, sorted(batch.measures)
        (torch.Size([6, 1, 4, 4]), ['class_loss_after', 'class_loss_before', 'moved_rms'])
    """

    MEASURES = REFINEMENT_MEASURES

    def __init__(self, dit: str, refinement: Refinement = Refinement(), **generation: Any) -> None:  # noqa: ANN401
        super().__init__(dit, **generation)
        self.refinement = Refinement.of(refinement)
        self.model.requires_grad_(False)  # only the latents have gradients

    def settings(self) -> dict[str, Any]:
        """Settings that the images of a request depend on."""
        return {**super().settings(), "refinement": self.refinement.settled()}

    def predict_step(self, batch: RequestBatch, batch_idx: int) -> Measured:  # type: ignore[override]
        """8-bit images of a batch of requests, and their measures."""
        with self.fitting_in_memory(batch):
            latents = self.generate(batch)
            refined = self.refine(latents, batch.records)
            losses = (self.class_loss(each, batch.records) for each in (latents, refined))
            moved = (refined - latents).square().flatten(1).mean(1).sqrt()
            measures = dict(zip(self.MEASURES, (*losses, moved), strict=True))
            return Measured(self.pictures(refined, batch), measures)

    def try_batch(self, batch: RequestBatch) -> None:
        """Do what takes the memory of a batch, in few steps."""
        super().try_batch(batch)
        self.refine(torch.zeros(len(batch.records), *self.latent_shape, device=self.device), batch.records, steps=1)

    @torch.inference_mode(False)
    @torch.enable_grad()
    def refine(self, latents: Tensor, records: Sequence[ImageRecord], steps: int | None = None) -> Tensor:
        """Refined latents of images.

        Args:
            latents: Clean latents, shape ``(B, C, h, w)``.
            records: Label and seed of each.
            steps: Steps of Adam instead of those of the settings.
        """
        settled = self.refinement.settled()
        denoise = self._denoiser(records, settled["label"])
        draws = self._draws(records, steps or settled["steps"], settled["last_index"], settled["noise"] == "kept")
        objective = {name: settled[name] for name in ("lr", "timestep", "max_weight")}
        return refine(denoise, latents, draws, **objective)

    @torch.no_grad()
    def class_loss(self, latents: Tensor, records: Sequence[ImageRecord]) -> Tensor:
        """Noise error of images at the label of their class, shape ``(B,)``, averaged over the indices.

        The noise is that of the seed of each image and the index. The refinement does not use it.
        """
        denoise, losses = self._denoiser(records, "class"), []
        for index in range(1, self.refinement.last_index + 1):
            noise = self._noise(records, "held out", index)
            draw = Draw(noise, torch.full((len(records),), index, device=noise.device))
            losses.append(noise_error(denoise, latents, draw).mse)
        return torch.stack(losses).mean(0)

    def _denoiser(self, records: Sequence[ImageRecord], label: str) -> Denoiser:
        """The network at the labels of images, or at the null label."""
        y = self.model.class_indices([record.label for record in records]).to(self.device)
        y = y if label == "class" else torch.full_like(y, self.model.null_label)
        return lambda x, t: self.output(x, t, y)

    def _draws(self, records: Sequence[ImageRecord], steps: int, last_index: int, kept: bool) -> Iterator[Draw]:
        for step in range(steps):
            noise = self._noise(records, "noise", 0 if kept else step)
            random = [generator("refine", "index", record.seed or 0, step) for record in records]
            index = torch.cat([torch.randint(1, last_index + 1, (1,), generator=each) for each in random])
            yield Draw(noise, index.to(self.device))

    def _noise(self, records: Sequence[ImageRecord], purpose: str, number: int) -> Tensor:
        random = [generator("refine", purpose, record.seed or 0, number) for record in records]
        return draw_noise(random, self.latent_shape).to(self.device)
