"""Distances of matching methods: between mean embeddings (DM), and between gradients (DC, DSA and IDC)."""

from collections.abc import Callable, Collection, Mapping, Sequence

import torch
from torch import Tensor

EPSILON = 1e-6  # stands beside the product of the norms, so that a row without gradient has distance 1
EVERY_LAYER = (1, 2, 3, 4)  # numbers of dimensions: all parameters of a network
WEIGHTS = (2, 3, 4)  # weights of convolutions and linear layers; neither biases nor scales of norms
CONVOLUTIONS = (3, 4)  # weights of convolutions alone


def mean_embedding_distance(real: Tensor, synthetic: Tensor) -> Tensor:
    r"""Squared distance of the mean embeddings of two batches of one class.

    .. math:: \| \mu(f(R)) - \mu(f(S)) \|^2

    summed over features and not averaged. Zhao and Bilen, "Dataset Condensation with Distribution Matching", WACV 2023,
    Eq. 5.

    Args:
        real: Embeddings of real images, shape ``(N, ...)``.
        synthetic: Embeddings of synthetic images, shape ``(M, ...)`` with the same features.

    Returns:
        Scalar, at least 0.
    """
    return (real.mean(dim=0) - synthetic.mean(dim=0)).square().sum()


def _rows(gradient: Tensor) -> Tensor:
    """A gradient with one row for each output channel; a vector has rows of one number."""
    return gradient.reshape(len(gradient), -1)


def rowwise(real: Tensor, synthetic: Tensor) -> Tensor:
    """Cosine distances of the rows of two gradients, summed. Rows are output channels.

    Zhao et al., "Dataset Condensation with Gradient Matching", ICLR 2021, Eq. 10.
    """
    first, second = _rows(real), _rows(synthetic)
    norms: Tensor = first.norm(dim=1) * second.norm(dim=1)
    return (1 - (first * second).sum(dim=1) / (norms + EPSILON)).sum()


def mse(real: Tensor, synthetic: Tensor) -> Tensor:
    """Squared differences of two gradients, summed and not averaged."""
    return (real - synthetic).square().sum()


def l1(real: Tensor, synthetic: Tensor) -> Tensor:
    """Absolute differences of two gradients, summed."""
    return (real - synthetic).abs().sum()


def l1_mean(real: Tensor, synthetic: Tensor) -> Tensor:
    """Mean absolute difference of each row (output channel), summed over the rows."""
    return _rows((real - synthetic).abs()).mean(dim=1).sum()


BY_LAYER: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "rowwise": rowwise,
    "mse": mse,
    "l1": l1,
    "l1_mean": l1_mean,
}
METRICS = (*BY_LAYER, "cosine")


def gradient_distance(
    real: Sequence[Tensor], synthetic: Sequence[Tensor], metric: str, layers: Collection[int]
) -> Tensor:
    """Distance between the gradients of one network on real and on synthetic images.

    Args:
        real: Gradient of each parameter on real images, without gradient itself.
        synthetic: Gradient of each parameter on synthetic images, in the same order.
        metric: ``rowwise``, ``mse``, ``l1`` and ``l1_mean`` are summed over the parameters that count. ``cosine`` is
            one cosine distance of all of them as one vector.
        layers: The parameters that count, by their number of dimensions, such as ``WEIGHTS``.

    Returns:
        Scalar.
    """
    pairs = [(r, s) for r, s in zip(real, synthetic, strict=True) if r.dim() in layers]
    if metric == "cosine":
        first, second = (torch.cat([part.flatten() for part in parts])[None] for parts in zip(*pairs, strict=True))
        return rowwise(first, second)
    distance = BY_LAYER[metric]
    return torch.stack([distance(r, s) for r, s in pairs]).sum()
