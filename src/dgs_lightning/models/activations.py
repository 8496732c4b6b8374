"""Memory that the gradients of a guidance take, counted on the meta device: nothing is computed, and nothing loaded."""

from typing import Any

import torch
from torch.nn.utils import parameters_to_vector

from dgs_lightning.diffusion.influence import influence_gradient
from dgs_lightning.models.classifier import ClassifierConfig
from dgs_lightning.models.codec import PIXELS
from dgs_lightning.models.dit.network import DiT, DiTConfig
from dgs_lightning.models.hub import AUTOENCODER, find_model, read_config
from dgs_lightning.models.surrogate import Flat
from dgs_lightning.models.trial import Classifier, saved_bytes

STABLE_DIFFUSION: dict[str, Any] = {  # architecture of its autoencoder
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
}


def guided_step_bytes(
    dit: DiTConfig, codec: str, surrogate: Classifier | None = None, chunk: int = 1, checkpointing: bool = False
) -> int:
    """Bytes that a step of influence guidance keeps for its gradients, in 32 bits and beside all weights.

    A chunk of images is kept in the DiT, with both branches of classifier-free guidance, and in the decoder. In the
    surrogate, it is one image at one checkpoint at a time.

    Args:
        dit: Architecture of the DiT.
        codec: ``pixels``, or folder or hub id of the decoder. One that is not on this machine is taken for that of
            Stable Diffusion.
        surrogate: Architecture of the surrogate; ``None`` if it is not known.
        chunk: Images whose gradients are taken at a time.
        checkpointing: Whether the DiT computes activations again.
    """
    with torch.device("meta"):
        model = DiT(dit, [str(label) for label in range(dit.num_classes)]).eval().requires_grad_(False)
        model.checkpointing = checkpointing
        latents = torch.empty(2 * chunk, *dit.latent_shape, requires_grad=True)
        numbers = torch.zeros(2 * chunk, dtype=torch.long)
        size = saved_bytes(lambda: model(latents, numbers, numbers), model.parameters())
        if codec != PIXELS:
            decoder = _autoencoder(codec)
            size += saved_bytes(lambda: decoder.decode(latents[:chunk]).sample, decoder.parameters())
        return size + (0 if surrogate is None else _surrogate_bytes(surrogate))


def _autoencoder(codec: str) -> Any:  # noqa: ANN401  (diffusers' models are not typed)
    """The autoencoder of a codec without its weights."""
    from diffusers import AutoencoderKL, AutoencoderTiny  # only here: diffusers takes seconds to import

    config = read_config(find_model(codec, AUTOENCODER)) or STABLE_DIFFUSION
    kind: Any = AutoencoderTiny if config.get("_class_name") == "AutoencoderTiny" else AutoencoderKL
    return kind.from_config(config).eval().requires_grad_(False)


def _surrogate_bytes(surrogate: Classifier) -> int:
    """Bytes for the gradient of the influence loss over one image, at one checkpoint."""
    numbers = (0.5,) * surrogate.channels  # of the normalisation: any will do
    labels = tuple(map(str, range(surrogate.classes)))
    config = ClassifierConfig(
        surrogate.name, labels, surrogate.side, surrogate.channels, numbers, numbers, surrogate.width
    )
    flat = Flat(config.build().eval().requires_grad_(False), config)
    image = torch.empty(1, surrogate.channels, surrogate.side, surrogate.side)
    real = parameters_to_vector(flat.network.parameters())[None]
    return saved_bytes(lambda: influence_gradient(image, 0, real, real, flat)[0], flat.network.parameters())
