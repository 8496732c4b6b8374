"""A DiT as the denoiser of a denoising loop."""

from collections.abc import Sequence
from dataclasses import asdict

from torch import Tensor

from dgs_lightning.data.cards import hash_json
from dgs_lightning.diffusion.sampler import Denoiser, classifier_free
from dgs_lightning.models.dit.network import DiT
from dgs_lightning.models.weights import hash_state


def denoiser(model: DiT, labels: Sequence[str], scale: float, channels: int) -> Denoiser:
    """The network with classifier-free guidance, for latents of these labels.

    Args:
        model: The DiT.
        labels: Label of each latent.
        scale: Scale of the guidance; 1 for none.
        channels: Number of guided channels.

    Raises:
        InputError: If the model does not know one of the labels.
    """
    y = model.class_indices(labels).to(model.pos_embed.device)
    return classifier_free(lambda x, t, y: output(model, x, t, y), y, model.null_label, scale, channels)


def output(model: DiT, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
    """The network's output in float32; only the network computes in reduced precision."""
    found: Tensor = model(x.to(model.pos_embed.dtype), t, y)
    return found.float()


def identity(model: DiT) -> str:
    """Hash of architecture, labels and weights: the same weights differ by heads and labels."""
    return hash_json([asdict(model.config), model.labels, hash_state(model.state_dict())])
