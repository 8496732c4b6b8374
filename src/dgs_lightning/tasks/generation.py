"""Image generation: requests in, images out, through the denoising loop and whatever guidance is attached."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, ClassVar, Literal

import lightning as L
import torch
from torch import Tensor

from dgs_lightning.bounds import Ranged
from dgs_lightning.data.cards import hash_json
from dgs_lightning.data.records import ImageRecord
from dgs_lightning.datamodules.requests import RequestBatch
from dgs_lightning.diffusion.guidance import Guidance
from dgs_lightning.diffusion.sampler import Sampler, classifier_free, draw_noise, published_channels, sample
from dgs_lightning.errors import InputError
from dgs_lightning.models.allocator import is_out_of_memory
from dgs_lightning.models.codec import build_codec
from dgs_lightning.models.dit.formats import load_dit
from dgs_lightning.models.weights import hash_state


class GenerationTask(L.LightningModule, Ranged):
    """Generates images with a DiT (``dgs predict``).

    Args:
        dit: The model: a weights folder, a diffusers folder or hub id, or a checkpoint file.
        codec: What decodes its latents: ``pixels`` for none, or folder or hub id of an autoencoder.
        weights: The average of the training's weights where one was kept, or the raw ones.
        num_heads: Attention heads, for a checkpoint file that is not of a published size.
        sampler: ``ancestral`` (published), ``ddim`` or ``dpm++``.
        steps: Denoising steps.
        guidance_scale: Scale of classifier-free guidance; 1 for none.
        guided_channels: Guide the first so many latent channels; by default 3 of 4 as published, and all of any other
            number.
        decode_batch: Latents decoded at a time.
        compile: Compile the network with ``torch.compile``.
    """

    RANGES: ClassVar[Mapping[str, str]] = {
        "num_heads": "[1, 65536]",
        "steps": "[1, 1000]",
        "guidance_scale": "(-inf, inf)",
        "guided_channels": "[0, inf)",
        "decode_batch": "[1, inf)",
    }

    def __init__(
        self,
        dit: str,
        codec: str = "pixels",
        weights: Literal["ema", "raw"] = "ema",
        num_heads: int | None = None,
        sampler: Sampler = "ancestral",
        steps: int = 50,
        guidance_scale: float = 4.0,
        guided_channels: int | None = None,
        decode_batch: int = 64,
        compile: bool = False,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.check_settings(self.hparams)
        self.model = load_dit(dit, weights=weights, num_heads=num_heads)
        channels = self.model.config.in_channels
        self.codec = build_codec(codec, channels=channels)
        if self.codec.latent_shape(256)[0] != channels:
            raise InputError(
                f"codec {codec!r}",
                found=f"{self.codec.latent_shape(256)[0]} latent channels",
                expected=f"{channels}, as the DiT has",
                remedy="Give the codec that the DiT was trained with",
            )
        self.guided_channels = published_channels(channels) if guided_channels is None else guided_channels
        self.guidance: Guidance | None = None
        self.guidance_settings: dict[str, Any] = {}
        architecture = [asdict(self.model.config), self.model.labels]  # the same weights differ by heads and labels
        self._dit_hash = hash_json([*architecture, hash_state(self.model.state_dict())])
        if compile:
            self.model.compile()

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels that the model can generate."""
        return self.model.labels

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Shape ``(C, h, w)`` of a latent."""
        side = self.model.config.input_size
        return self.model.config.in_channels, side, side

    @property
    def on_cpu(self) -> bool:
        """Whether the images are made on a CPU."""
        return self.device.type == "cpu"

    def attach(self, guidance: Guidance | None, settings: dict[str, Any]) -> None:
        """Guide this run; the settings become part of what the images are known by."""
        self.guidance, self.guidance_settings = guidance, settings

    def teardown(self, stage: str) -> None:
        """Let go of the guidance: the next run may have another, or none."""
        self.attach(None, {})

    def settings(self) -> dict[str, Any]:
        """What the images of a request depend on."""
        return {
            "dit": self._dit_hash,
            "codec": self.codec.identity(),
            "sampler": self.hparams["sampler"],
            "steps": self.hparams["steps"],
            "guidance_scale": self.hparams["guidance_scale"],
            "guided_channels": self.guided_channels,
            **({"guidance": self.guidance_settings} if self.guidance_settings else {}),
        }

    def predict_step(self, batch: RequestBatch, batch_idx: int) -> Tensor:
        """Images of a batch of requests, 8-bit, shape ``(B, C, H, W)``.

        Raises:
            InputError: If memory does not suffice for the batch, or the denoising diverged.
        """
        try:
            latents = self.generate(batch)
            if not latents.isfinite().all():
                raise InputError(
                    f"images of batch {batch.number}",
                    found="latents that are not finite",
                    expected="a denoising that converges",
                    remedy="Lower the scale of the guidance, or check the model's weights",
                )
            return to_pixels(self.decode(latents))
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            raise InputError(
                f"batch_size {len(batch.records)}",
                found=f"out of memory on {self.device}",
                expected="a batch that fits",
                remedy="Lower data.batch_size (or model.decode_batch, if decoding needs it) and write to a new folder",
            ) from None

    @torch.inference_mode()
    def largest_batch(self, most: int = 1024) -> int:
        """Largest power of two up to ``most`` that this GPU has memory for; 64 on a CPU, where more is not faster."""
        if self.on_cpu:
            return 64
        size = 1
        while size < most:
            labels = [self.labels[0]] * (2 * size)
            try:
                self.decode(
                    self.generate(RequestBatch(0, [ImageRecord("", label, seed=0) for label in labels]), steps=2)
                )
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                break
            size *= 2
        return size

    def generate(self, batch: RequestBatch, steps: int | None = None) -> Tensor:
        """Latents of a batch of requests, shape ``(B, C, h, w)``."""
        y = self.model.class_indices([record.label for record in batch.records]).to(self.device)
        each = [torch.Generator().manual_seed(record.seed or 0) for record in batch.records]
        precision = self.model.pos_embed.dtype
        return sample(
            classifier_free(
                lambda x, t, y: self.model(x.to(precision), t, y),
                y,
                self.model.null_label,
                self.hparams["guidance_scale"],
                self.guided_channels,
            ),
            draw_noise(each, self.latent_shape).to(self.device),
            each,
            sampler=self.hparams["sampler"],
            steps=steps or self.hparams["steps"],
            guidance=self.guidance,
        )

    def decode(self, latents: Tensor) -> Tensor:
        """Images in [-1, 1] of latents, a bounded number at a time."""
        chunks = torch.split(latents.to(self.model.pos_embed.dtype), self.hparams["decode_batch"])
        return torch.cat([self.codec.decode(chunk) for chunk in chunks])


def generation_task(module: L.LightningModule, user: str) -> GenerationTask:
    """The module as the task that a callback named ``user`` works with.

    Raises:
        InputError: If it is another task.
    """
    if not isinstance(module, GenerationTask):
        raise InputError(
            user, found=type(module).__name__, expected="GenerationTask", remedy="Use it with 'dgs predict'"
        )
    return module


def to_pixels(images: Tensor) -> Tensor:
    """Images in [-1, 1] as 8-bit images, values outside clipped."""
    return (images.float() * 127.5 + 127.5).round().clamp(0, 255).to(torch.uint8)
