"""Image generation: from requests to images, through the denoising loop and a guidance, if there is one."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, Literal, NamedTuple

import lightning as L
import torch
from torch import Tensor

from dgs_lightning.bounds import FINITE, AtLeast, Between, save_settings
from dgs_lightning.data.records import ImageRecord
from dgs_lightning.datamodules.requests import RequestBatch, RequestDataModule
from dgs_lightning.diffusion.guidance import Guidance
from dgs_lightning.diffusion.sampler import (
    Denoiser,
    OnStep,
    Sampler,
    draw_noise,
    first_index,
    noised,
    published_channels,
    sample,
)
from dgs_lightning.errors import InputError, is_out_of_memory
from dgs_lightning.models.codec import build_codec
from dgs_lightning.models.dit.denoising import denoiser, identity, output
from dgs_lightning.models.dit.formats import load_dit
from dgs_lightning.models.dit.network import Compile

GuidanceFor = Callable[[RequestBatch], Guidance | None]


class Measured(NamedTuple):
    """Generated images, and what a task measured of each."""

    images: Tensor  # 8-bit, (B, C, H, W)
    measures: Mapping[str, Tensor]  # finite numbers, each of shape (B,), by name


class GenerationTask(L.LightningModule):
    """Generates images with a DiT (``dgs predict``).

    Args:
        dit: The model: a weights folder, a diffusers folder or hub id, or a checkpoint file.
        codec: Decoder of the latents: ``pixels`` for none, or the folder or hub id of an autoencoder.
        weights: ``ema`` for the moving average of the weights, if the training kept one, or ``raw``.
        num_heads: Attention heads, for a checkpoint file that is not of a published size.
        sampler: ``ancestral`` (published), ``ddim`` or ``dpm++``.
        steps: Denoising steps.
        guidance_scale: Scale of classifier-free guidance; 1 for none.
        guided_channels: Number of latent channels with classifier-free guidance. By default 3 of 4 as published, or
            all if there are not 4.
        decode_batch: Latents decoded at a time.
        compile: Compile the network with ``torch.compile``; ``long``: if that saves time for as many images.
        checkpointing: Compute activations again where a guidance takes gradients through the network, to save memory.
        keep_latents: Let ``ImageWriter`` write the latent of each image, too, in a file beside it. A guidance by
            earlier images needs them when a stopped run goes on.

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> from dgs_lightning import RequestDataModule
        >>> from dgs_lightning.examples import QUIET, write_dit
        >>> with TemporaryDirectory() as folder:
        ...     task = GenerationTask(write_dit(folder), steps=2)
        ...     trainer = L.Trainer(**QUIET, default_root_dir=folder)
        ...     batches = trainer.predict(task, RequestDataModule(images_per_class=3, batch_size=4))
        >>> [(tuple(images.shape), images.dtype) for images in batches]
        [((4, 1, 4, 4), torch.uint8), ((2, 1, 4, 4), torch.uint8)]
    """

    MEASURES: tuple[str, ...] = ()  # names of what the task measures of each image

    def __init__(
        self,
        dit: str,
        codec: str = "pixels",
        weights: Literal["ema", "raw"] = "ema",
        num_heads: Annotated[int | None, Between(1, 65536)] = None,
        sampler: Sampler = "ancestral",
        steps: Annotated[int, Between(1, 1000)] = 50,
        guidance_scale: Annotated[float, FINITE] = 4.0,
        guided_channels: Annotated[int | None, AtLeast(0)] = None,
        decode_batch: Annotated[int, AtLeast(1)] = 64,
        compile: Compile = False,
        checkpointing: bool = False,
        keep_latents: bool = False,
    ) -> None:
        super().__init__()
        save_settings(self)
        self.model = load_dit(dit, weights=weights, num_heads=num_heads).requires_grad_(False)
        self.model.checkpointing = checkpointing
        channels = self.model.config.in_channels
        self.codec = build_codec(codec, channels=channels)
        if self.codec.latent_shape(256)[0] != channels:
            found, expected = f"{self.codec.latent_shape(256)[0]} latent channels", f"{channels}, as the DiT has"
            raise InputError(f"codec {codec!r}", found, expected, "Give the codec that the DiT was trained with")
        self.guided_channels = published_channels(channels) if guided_channels is None else guided_channels
        self._release()
        self._dit_hash = identity(self.model)
        if compile is True:
            self.model.compile()

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels that the model can generate."""
        return self.model.labels

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Shape ``(C, h, w)`` of a latent."""
        return self.model.config.latent_shape

    @property
    def on_cpu(self) -> bool:
        """Whether the images are generated on a CPU."""
        return self.device.type == "cpu"

    def _release(self) -> None:
        self._guidance_for: GuidanceFor | None = None
        self._guidance_settings: dict[str, Any] = {}
        # Index of the first step, whether the centres have its noise, and settings.
        self._start: tuple[int, bool, dict[str, Any]] | None = None
        self._on_step: OnStep | None = None
        self.latents: Tensor | None = None  # of the last batch, (B, C, h, w)

    def teardown(self, stage: str) -> None:
        """Forget guidance and listener. The next run may have others, or none."""
        self._release()

    def guide(self, guidance_for: GuidanceFor, settings: Mapping[str, Any]) -> None:
        """Guide the images of this run. A later call replaces an earlier one.

        ``guidance_for`` returns the guidance of a batch, or ``None``; ``settings`` become part of :meth:`settings`.
        """
        self._guidance_for, self._guidance_settings = guidance_for, dict(settings)

    def start_from_centers(self, first: int, settings: Mapping[str, Any], noisy: bool = False) -> None:
        """Start each image of this run from its centre with noise, at the step of an index.

        The noise is that of the image's own seed, so that a start at index ``steps - 1`` is hardly another one than
        from noise alone. ``noisy`` centres have the noise of the step already, and get no more of it. ``settings``
        become part of :meth:`settings`.
        """
        self._start = first, noisy, dict(settings)

    def listen(self, on_step: OnStep | None) -> None:
        """Call a function after each denoising step, until the next call of this method; ``None`` for no function."""
        self._on_step = on_step

    def setup(self, stage: str) -> None:
        """Check that the datamodule's centres are used, and that this task made the images that it makes again."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if not isinstance(data, RequestDataModule):
            return
        if data.centers is not None and self._guidance_for is None and self._start is None:
            remedy = "Name CenterGuidance, PrototypeStart or InvertedStart in trainer.callbacks, or remove data.centers"
            raise InputError.setting("data.centers", "centres without a guidance", "a guidance towards them", remedy)
        if self.hparams["compile"] == "long":
            passes = len(data.requests()) * self.hparams["steps"] * (1 if self.hparams["guidance_scale"] == 1 else 2)
            self.model.compile_for(passes)
        if data.again is not None:
            data.again.check({"model": self.generated_with(), "precision": str(self.trainer.precision)})

    def settings(self) -> dict[str, Any]:
        """Settings that the images of a request depend on."""
        return self.generated_with()

    def generated_with(self) -> dict[str, Any]:
        """Settings that the latents of :meth:`generate` and their images depend on."""
        return {
            "dit": self._dit_hash,
            "codec": self.codec.identity(),
            **{name: self.hparams[name] for name in ("sampler", "steps", "guidance_scale")},
            "guided_channels": self.guided_channels,
            **({"guidance": self._guidance_settings} if self._guidance_settings else {}),
            **({"start": self._start[-1]} if self._start else {}),
        }

    def predict_step(self, batch: RequestBatch, batch_idx: int) -> Tensor:
        """8-bit images of a batch of requests, shape ``(B, C, H, W)``. They must fit in memory and be finite."""
        with self.fitting_in_memory(batch):
            return self.pictures(self.generate(batch), batch)

    @contextmanager
    def fitting_in_memory(self, batch: RequestBatch) -> Iterator[None]:
        """Raise an InputError where a batch needs more memory than there is."""
        try:
            yield
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            remedy = "Lower data.batch_size (or model.decode_batch, if decoding needs it) and write to a new folder"
            found = f"out of memory on {self.device}"
            raise InputError(f"batch_size {len(batch.records)}", found, "a batch that fits", remedy) from None

    def pictures(self, latents: Tensor, batch: RequestBatch) -> Tensor:
        """8-bit images of the latents of a batch, which must be finite."""
        if not latents.isfinite().all():
            remedy = "Lower the scale of the guidance, or check the model's weights"
            found = "latents that are not finite"
            raise InputError(f"images of batch {batch.number}", found, "a denoising that converges", remedy)
        self.latents = latents
        return to_pixels(self.decode(latents))

    @torch.inference_mode()
    def largest_batch(self, most: int = 1024) -> int:
        """Largest batch that fits in the memory of this GPU, a power of two up to ``most``. On a CPU it is 64."""
        if self.on_cpu:  # a larger batch is not faster there
            return 64
        size = 1
        while size < most:
            records = [ImageRecord("", self.labels[0], seed=0)] * (2 * size)
            try:
                self.try_batch(RequestBatch(0, records))
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                break
            size *= 2
        return size

    def try_batch(self, batch: RequestBatch) -> None:
        """Do what takes the memory of a batch, in few steps."""
        self.decode(self.generate(batch, steps=2))

    def generate(self, batch: RequestBatch, steps: int | None = None, guided: bool = True) -> Tensor:
        """Latents of a batch of requests, shape ``(B, C, h, w)``.

        Args:
            batch: The requests.
            steps: Denoising steps instead of those of the settings.
            guided: Whether the guidance and the listener of this run take part.
        """
        each = [torch.Generator().manual_seed(record.seed or 0) for record in batch.records]
        loop: dict[str, Any] = {"sampler": self.hparams["sampler"], "steps": steps or self.hparams["steps"]}
        latent, first = draw_noise(each, self.latent_shape).to(self.device), None
        if self._start is not None and batch.centers is not None:  # not in a trial of the batch size
            first, noisy, _ = self._start
            latent = batch.centers if noisy else noised(batch.centers, latent, first, **loop)
        return sample(
            self.denoiser([record.label for record in batch.records]),
            latent,
            each,
            **loop,
            first=first,
            guidance=self._guidance_for(batch) if guided and self._guidance_for is not None else None,
            on_step=self._on_step if guided else None,
        )

    def output(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        """The network's output in float32; only the network computes in reduced precision."""
        return output(self.model, x, t, y)

    def denoiser(self, labels: Sequence[str]) -> Denoiser:
        """The network with classifier-free guidance for images of these labels; gradients go through to the latents."""
        return denoiser(self.model, labels, self.hparams["guidance_scale"], self.guided_channels)

    def decode(self, latents: Tensor) -> Tensor:
        """Images in [-1, 1] of latents, shape ``(B, C, H, W)``, ``decode_batch`` at a time."""
        chunks = torch.split(latents.to(self.model.pos_embed.dtype), self.hparams["decode_batch"])
        return torch.cat([self.codec.decode(chunk) for chunk in chunks])


def start_index(steps: int, strength: float) -> int:
    """Index of the first step of a start of this strength, see :func:`~dgs_lightning.diffusion.sampler.first_index`.

    Raises:
        InputError: If the strength takes no step, or is above 1.
    """
    try:
        return first_index(steps, strength)
    except ValueError as error:
        expected, remedy = "at least one step", f"Set at least {1 / steps:g}, or more steps"
        raise InputError.setting("strength", error, expected, remedy) from None


def to_pixels(images: Tensor) -> Tensor:
    """8-bit images from images in [-1, 1]. Values outside are clipped."""
    return (images.float() * 127.5 + 127.5).round().clamp(0, 255).to(torch.uint8)
