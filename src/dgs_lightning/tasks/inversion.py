"""DDIM inversion of an image set into a cache of noisy latents, which D3HR's start latents are drawn from."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

from torch import Tensor

from dgs_lightning.bounds import FINITE, AtLeast, Between
from dgs_lightning.data.latents import CacheSettings, Inversion
from dgs_lightning.datamodules.images import ImageDataModule
from dgs_lightning.diffusion.inversion import INDEX, invert
from dgs_lightning.diffusion.sampler import published_channels
from dgs_lightning.errors import InputError
from dgs_lightning.models.dit.denoising import denoiser, identity
from dgs_lightning.models.dit.formats import load_dit
from dgs_lightning.tasks.encoding import Encoded, EncodingTask


class InversionTask(EncodingTask):
    """Encodes images, and moves their latents to a noisy step by DDIM inversion (``dgs predict``).

    This is the first part of D3HR (ICML 2025). ``LatentWriter`` writes the latents as a cache. ``dgs centers`` with
    ``groups`` draws start latents from it, and ``InvertedStart`` denoises these. An image of another label than those
    of the model is an error.

    Args:
        dit: The model: a weights folder, a diffusers folder or hub id, or a checkpoint file.
        index: Index of the step, from ``steps - 1`` (most noise) down to 0. Published: 31 of 50, which the denoising
            takes after 18 others.
        weights: ``ema`` for the moving average of the weights, if the training kept one, or ``raw``.
        num_heads: Attention heads, for a checkpoint file that is not of a published size.
        steps: Denoising steps.
        guidance_scale: Scale of classifier-free guidance; 1 for none.
        guided_channels: Number of latent channels with classifier-free guidance. By default 3 of 4 as published, or
            all if there are not 4.
        encoding: Settings of :class:`EncodingTask`.

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> import lightning as L
        >>> from dgs_lightning.examples import QUIET, write_dit, write_images
        >>> with TemporaryDirectory() as folder:
        ...     task = InversionTask(write_dit(f"{folder}/dit"), flips=False, steps=4, index=1)
        ...     data = ImageDataModule(predict=write_images(f"{folder}/images"))
        ...     (batch,) = L.Trainer(**QUIET, default_root_dir=folder).predict(task, data)
        >>> tuple(batch.means.shape)
        (8, 1, 1, 4, 4)
    """

    def __init__(
        self,
        dit: str,
        index: Annotated[int, Between(0, 999)] = INDEX,
        weights: Literal["ema", "raw"] = "ema",
        num_heads: Annotated[int | None, Between(1, 65536)] = None,
        steps: Annotated[int, Between(1, 1000)] = 50,
        guidance_scale: Annotated[float, FINITE] = 4.0,
        guided_channels: Annotated[int | None, AtLeast(0)] = None,
        **encoding: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(**encoding)
        self.model = load_dit(dit, weights=weights, num_heads=num_heads)
        channels = published_channels(self.model.config.in_channels) if guided_channels is None else guided_channels
        self.inversion = Inversion(identity(self.model), steps, index, guidance_scale, channels)

    @classmethod
    def check_combination(cls, settings: Mapping[str, Any]) -> None:
        """Check that the steps have one of the index."""
        if settings["index"] >= settings["steps"]:
            expected = f"at most {settings['steps'] - 1}, the first of {settings['steps']} steps"
            raise InputError.setting("index", settings["index"], expected)

    def predict_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_idx: int) -> Encoded:
        """Noisy latents of images in [0, 1]. They must be finite."""
        encoded = super().predict_step(batch, batch_idx)
        labels: tuple[str, ...] = self.trainer.datamodule.labels  # type: ignore[attr-defined]
        each = [labels[label] for label in batch[2].tolist() for _ in range(encoded.means.shape[1])]
        how = self.inversion
        denoise = denoiser(self.model, each, how.guidance_scale, how.guided_channels)
        noisy = invert(denoise, encoded.means.flatten(0, 1).float(), steps=how.steps, index=how.index)
        noisy = noisy.view_as(encoded.means).to(encoded.means.dtype)
        if not noisy.isfinite().all():
            found, remedy = "latents that are not finite", "Lower guidance_scale, or check the model's weights"
            raise InputError(f"inversion of {self.hparams['dit']}", found, "finite ones", remedy)
        return Encoded(encoded.images, noisy, None)

    def cache_settings(self, data: ImageDataModule) -> CacheSettings:
        """Settings that the latents of an image set depend on, and the form of the latents."""
        settings, shape = super().cache_settings(data), self.model.config.latent_shape
        if settings.shape != shape:
            remedy = "Give the codec and the image size that the DiT was trained with"
            raise InputError("data.predict", f"latents of shape {settings.shape}", f"{shape}, as the DiT has", remedy)
        return replace(settings, posterior=False, inversion=self.inversion)
