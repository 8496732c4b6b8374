"""Between images and the latents that a DiT works on: an autoencoder, or none.

Images are in [-1, 1], shape ``(B, C, H, W)``. The identity of a codec is what its latents depend on: equal for equal
architecture and weights, wherever they came from.
"""

import hashlib
import json
import math
from typing import Any

import torch
from torch import Tensor, nn

from dgs_lightning.data.latents import Posterior
from dgs_lightning.errors import InputError

PIXELS = "pixels"


class PixelCodec(nn.Module):
    """No autoencoder: images are their own latents.

    Args:
        channels: Channels of the images.
    """

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
        """Its name."""
        return PIXELS


class AutoencoderCodec(nn.Module):
    """A diffusers ``AutoencoderKL`` or ``AutoencoderTiny``, frozen.

    Latents are scaled as the autoencoder's own config says: ``(latent - shift_factor) * scaling_factor``.

    Args:
        autoencoder: The autoencoder; it is put in evaluation mode.
    """

    def __init__(self, autoencoder: Any) -> None:  # noqa: ANN401  (diffusers' models are not typed)
        super().__init__()
        self.autoencoder = autoencoder.requires_grad_(False).eval()
        self._settings: dict[str, Any] = dict(autoencoder.config)
        self._scale = float(self._settings["scaling_factor"])
        self._shift = float(self._settings.get("shift_factor") or 0.0)
        self._identity = _identity_of(autoencoder, self._settings)

    def train(self, mode: bool = True) -> "AutoencoderCodec":
        """Stay in evaluation mode."""
        return super().train(False)

    @torch.no_grad()
    def encode(self, images: Tensor) -> Posterior:
        """Images to the posterior of their scaled latents.

        Raises:
            InputError: If their size is no multiple of the autoencoder's factor.
        """
        self.latent_shape(images.shape[-1])
        encoded = self.autoencoder.encode(images)
        if hasattr(encoded, "latents"):
            return Posterior(self._scaled(encoded.latents), None)
        posterior = encoded.latent_dist
        return Posterior(self._scaled(posterior.mean), posterior.logvar + 2 * math.log(self._scale))

    def _scaled(self, latents: Tensor) -> Tensor:
        return (latents - self._shift) * self._scale

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents to images."""
        images: Tensor = self.autoencoder.decode(latents / self._scale + self._shift).sample
        return images

    def latent_shape(self, image_size: int) -> tuple[int, int, int]:
        """Shape ``(C, h, w)`` of the latents of square images.

        Raises:
            InputError: If the size is no multiple of the autoencoder's factor.
        """
        stages = self._settings.get("encoder_block_out_channels") or self._settings["block_out_channels"]
        factor = 2 ** (len(stages) - 1)
        if image_size % factor:
            raise InputError(
                "image size",
                found=str(image_size),
                expected=f"a multiple of the autoencoder's factor {factor}",
                remedy=f"Resize to {max(factor, round(image_size / factor) * factor)}",
            )
        return int(self._settings["latent_channels"]), image_size // factor, image_size // factor

    def identity(self) -> str:
        """Class, and hash of config and weights."""
        return self._identity


def _identity_of(autoencoder: nn.Module, settings: dict[str, Any]) -> str:
    """Class, and hash of the settings and weights as loaded, before any change of precision."""
    public = {name: value for name, value in settings.items() if not name.startswith("_")}
    digest = hashlib.sha256(json.dumps(public, sort_keys=True, default=str).encode())
    for name, tensor in sorted(autoencoder.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.float().cpu().contiguous().numpy().tobytes())
    return f"{type(autoencoder).__name__}:{digest.hexdigest()[:16]}"


Codec = PixelCodec | AutoencoderCodec


def build_codec(source: str, channels: int = 3) -> Codec:
    """The codec that a setting names.

    Published choice: ``stabilityai/sd-vae-ft-ema`` encodes for fine-tuning, ``stabilityai/sd-vae-ft-mse`` decodes.

    Args:
        source: ``pixels``, or folder or hub id of a diffusers ``AutoencoderKL`` or ``AutoencoderTiny``.
        channels: Channels of the images of the pixel codec.

    Raises:
        InputError: If there is no autoencoder with safetensors weights, or the hub cannot be reached.
    """
    if source == PIXELS:
        return PixelCodec(channels)
    # Only here: diffusers takes seconds to import.
    from diffusers import AutoencoderKL, AutoencoderTiny, AutoModel

    try:
        autoencoder: Any = AutoModel.from_pretrained(  # type: ignore[no-untyped-call]
            source, use_safetensors=True, low_cpu_mem_usage=False
        )
    except (OSError, ValueError) as error:
        raise InputError(
            f"codec {source!r}",
            found=" ".join(str(error).split())[:200].rstrip("."),
            expected="'pixels', or folder or hub id of an autoencoder with config.json and safetensors weights",
            remedy="Give a folder, or go online once so that the hub's files can be fetched",
        ) from None
    if not isinstance(autoencoder, AutoencoderKL | AutoencoderTiny):
        raise InputError(
            f"codec {source!r}",
            found=type(autoencoder).__name__,
            expected="AutoencoderKL or AutoencoderTiny",
            remedy="Choose another autoencoder",
        )
    return AutoencoderCodec(autoencoder)
