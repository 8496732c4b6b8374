"""Conversion between images in [-1, 1], shape ``(B, C, H, W)``, and the latents of a DiT, by an autoencoder or none."""

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from dgs_lightning.data.latents import Posterior
from dgs_lightning.errors import InputError, listed, short
from dgs_lightning.files import refused
from dgs_lightning.models.hub import AUTOENCODER, find_model, read_config

_FAULTS = (  # what diffusers raises where an autoencoder, or a setting of it, cannot be used
    *(OSError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError),
    *(RuntimeError, MemoryError, SafetensorError),
)
PIXELS = "pixels"


class PixelCodec(nn.Module):
    """No autoencoder: images, with this number of channels, are their own latents."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.channels = channels

    def encode(self, images: Tensor) -> Posterior:
        """The images."""
        return Posterior(images, None)

    def decode(self, latents: Tensor) -> Tensor:
        """The latents."""
        return latents

    def latent_shape(self, image_size: int) -> tuple[int, int, int]:
        """Shape of the images."""
        return self.channels, image_size, image_size

    def identity(self) -> str:
        """The name ``pixels``."""
        return PIXELS


class AutoencoderCodec(nn.Module):
    """A frozen ``AutoencoderKL`` or ``AutoencoderTiny`` of diffusers, in evaluation mode.

    The autoencoder's config gives the scale of the latents: ``(latent - shift_factor) * scaling_factor``.
    """

    def __init__(self, autoencoder: Any) -> None:  # noqa: ANN401  (diffusers' models are not typed)
        super().__init__()
        self.autoencoder = autoencoder.requires_grad_(False).eval()
        self._settings: dict[str, Any] = dict(autoencoder.config)
        self._scale = float(self._settings["scaling_factor"])
        self._shift = float(self._settings.get("shift_factor") or 0.0)
        public = {name: value for name, value in self._settings.items() if not name.startswith("_")}
        digest = hashlib.sha256(json.dumps(public, sort_keys=True, default=str).encode())
        for name, tensor in sorted(autoencoder.state_dict().items()):  # as loaded, before any change of precision
            digest.update(name.encode())
            digest.update(tensor.float().cpu().contiguous().numpy().tobytes())
        self._identity = f"{type(autoencoder).__name__}:{digest.hexdigest()[:16]}"

    def train(self, mode: bool = True) -> "AutoencoderCodec":
        """Stay in evaluation mode."""
        return super().train(False)

    @torch.no_grad()
    def encode(self, images: Tensor) -> Posterior:
        """Posterior of the scaled latents of images. Raises as :meth:`latent_shape` does."""
        self.latent_shape(images.shape[-1])
        encoded = self.autoencoder.encode(images)
        if hasattr(encoded, "latents"):
            return Posterior((encoded.latents - self._shift) * self._scale, None)
        mean, logvar = encoded.latent_dist.mean, encoded.latent_dist.logvar + 2 * math.log(self._scale)
        return Posterior((mean - self._shift) * self._scale, logvar)

    def decode(self, latents: Tensor) -> Tensor:
        """Images of scaled latents. Gradients go through, to the latents alone."""
        images: Tensor = self.autoencoder.decode(latents / self._scale + self._shift).sample
        return images

    def latent_shape(self, image_size: int) -> tuple[int, int, int]:
        """Shape ``(C, h, w)`` of the latents of square images.

        Raises:
            InputError: If the size is no multiple of the autoencoder's factor.
        """
        channels, factor = _latent_form(self._settings)
        if image_size % factor:
            expected = f"a multiple of the autoencoder's factor {factor}"
            remedy = f"Resize to {max(factor, round(image_size / factor) * factor)}"
            raise InputError.setting("image size", image_size, expected, remedy)
        return channels, image_size // factor, image_size // factor

    def identity(self) -> str:
        """Class and hash of the config and weights. It does not depend on the place that they came from."""
        return self._identity


Codec = PixelCodec | AutoencoderCodec


def build_codec(source: str, channels: int = 3) -> Codec:
    """Build the codec that a setting names.

    Published choice: ``stabilityai/sd-vae-ft-ema`` encodes for fine-tuning, ``stabilityai/sd-vae-ft-mse`` decodes.

    Args:
        source: ``pixels``, or folder or hub id of a diffusers ``AutoencoderKL`` or ``AutoencoderTiny``.
        channels: Channels of the images, for the pixel codec.

    Raises:
        InputError: If there is no such autoencoder with safetensors weights, or the hub cannot be reached.
    """
    if source == PIXELS:
        return PixelCodec(channels)
    from diffusers import AutoencoderKL, AutoencoderTiny  # only here: diffusers takes seconds to import

    kinds: dict[str, Any] = {kind.__name__: kind for kind in (AutoencoderKL, AutoencoderTiny)}
    try:
        name = kinds["AutoencoderKL"].load_config(source).get("_class_name")
        if name not in kinds:
            expected, remedy = " or ".join(kinds), "Choose another autoencoder"
            raise InputError.weights(f"codec {source!r}", name, expected, remedy)
        whole = {"low_cpu_mem_usage": False, "output_loading_info": True}
        autoencoder, loaded = kinds[name].from_pretrained(source, use_safetensors=True, **whole)
    except InputError:
        raise
    except _FAULTS as error:
        where = f"codec {source!r}"
        expected = "'pixels', or folder or hub id of an autoencoder with config.json and safetensors weights"
        remedy = "Give a folder, or go online once so that the hub's files can be fetched"
        raise refused(where, error) or InputError.weights(where, short(error), expected, remedy) from None
    if missing := sorted(loaded["missing_keys"]):  # diffusers has drawn them at random
        found = f"{len(missing)} tensors missing ({listed(missing, 3)})"
        raise InputError.weights(f"codec {source!r}", found, "whole weights", "Fetch or save them again")
    return AutoencoderCodec(autoencoder)


def latent_shape(source: str, image_size: int, channels: int) -> tuple[int, int, int]:
    """Shape ``(C, h, w)`` of the latents of :func:`build_codec`, without weights and network access.

    ``image_size`` is the side of the images in pixels. An autoencoder that is not on this machine is assumed to have
    the shapes of Stable Diffusion's.
    """
    if source == PIXELS:
        return channels, image_size, image_size
    latent_channels, factor = _latent_form(read_config(find_model(source, AUTOENCODER)))
    return latent_channels, image_size // factor, image_size // factor


def keeps_variances(source: str) -> bool:
    """Whether a codec's latents have variances. Those of pixels and of an ``AutoencoderTiny`` have none."""
    autoencoder = source != PIXELS
    return autoencoder and read_config(find_model(source, AUTOENCODER)).get("_class_name") != "AutoencoderTiny"


def _latent_form(config: Mapping[str, Any]) -> tuple[int, int]:
    """Channels of an autoencoder's latents, and the factor by which they are smaller than the images."""
    stages = config.get("encoder_block_out_channels") or config.get("block_out_channels") or range(4)
    return int(config.get("latent_channels", 4)), 2 ** (len(stages) - 1)
