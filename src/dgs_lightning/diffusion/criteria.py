"""The Minimax criteria (Eq. 3 and 4) of one class, and of a batch of several classes at once."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from dgs_lightning.diffusion.memory import Memory


def cosine(pred: Tensor, remembered: Tensor) -> Tensor:
    """Cosine similarity of all pairs of rows: shapes ``(B, D)`` and ``(M, D)`` give ``(B, M)``."""
    return normalize(pred, dim=-1) @ normalize(remembered, dim=-1).T


def representativeness(pred: Tensor, real: Tensor) -> Tensor:
    r"""Distance of a class's predictions from its least similar real latent.

    .. math:: \mathcal{L}_r = 1 - \min_{b,m} \cos(\hat z_b, z_m)

    Eq. 3; Gu et al., "Efficient Dataset Distillation via Minimax Diffusion", CVPR 2024.

    Args:
        pred: Predicted clean latents, shape ``(B, D)``.
        real: Remembered real latents of the same class, shape ``(M, D)``, without gradient.

    Returns:
        Scalar in ``[0, 2]``.

    Raises:
        ValueError: If ``real`` is empty; the minimum is then undefined. Skip the class instead.
    """
    _require_remembered(real)
    return 1 - cosine(pred, real).min()


def diversity(pred: Tensor, generated: Tensor) -> Tensor:
    r"""Similarity of a class's predictions to the most similar earlier prediction.

    .. math:: \mathcal{L}_d = \max_{b,m} \cos(\hat z_b, \hat z_m)

    Eq. 4; Gu et al., "Efficient Dataset Distillation via Minimax Diffusion", CVPR 2024.

    Args:
        pred: Predicted clean latents, shape ``(B, D)``.
        generated: Remembered predictions of the same class, shape ``(M, D)``, without gradient.

    Returns:
        Scalar in ``[-1, 1]``.

    Raises:
        ValueError: If ``generated`` is empty; the maximum is then undefined. Skip the class instead.
    """
    _require_remembered(generated)
    return cosine(pred, generated).max()


def _require_remembered(memory: Tensor) -> None:
    if len(memory) == 0:
        raise ValueError("a criterion needs at least one remembered latent; skip classes with an empty memory")


class Criteria(NamedTuple):
    """Both criteria of a batch. A class with an empty memory has no value and counts as 0 in the mean."""

    representativeness: Tensor  # Eq. 3, scalar: the mean over the classes of the batch
    diversity: Tensor  # Eq. 4, scalar: the mean over the classes of the batch
    representativeness_by_class: Tensor  # Eq. 3, (classes,); NaN for a class without a value
    diversity_by_class: Tensor  # Eq. 4, (classes,); NaN for a class without a value


def minimax_criteria(pred: Tensor, labels: Tensor, real: Memory, generated: Memory) -> Criteria:
    """Eq. 3 and 4 of a batch: the mean over the classes in the batch.

    Each prediction is compared with the memory of its class. The largest or smallest value of each class is then
    taken. There is no loop over classes and no transfer from the device, which would be slow.

    Args:
        pred: Predicted clean latents, shape ``(B, ...)``.
        labels: Class of each prediction, shape ``(B,)``, as positions in the memories.
        real: Memory of real latents.
        generated: Memory of earlier predictions.
    """
    directions = normalize(pred.flatten(1), dim=1)
    furthest = -_highest_similarity(-directions, labels, real)
    closest = _highest_similarity(directions, labels, generated)
    classes = torch.zeros(real.classes, device=pred.device).index_fill(0, labels, 1.0).sum()
    return Criteria(
        (1 - furthest).nan_to_num(0.0).sum() / classes,
        closest.nan_to_num(0.0).sum() / classes,
        (1 - furthest).detach(),
        closest.detach(),
    )


def _highest_similarity(directions: Tensor, labels: Tensor, memory: Memory) -> Tensor:
    """Highest cosine of each class, shape ``(classes,)``; NaN for a class without a pair."""
    # b: batch, m: slot of the memory, d: dimension
    remembered = memory.directions.index_select(0, labels).to(directions.dtype)
    with torch.autocast(directions.device.type, enabled=False):  # mixed precision would round cosines to equal values
        similarity = torch.einsum("bd,bmd->bm", directions, remembered)
    highest = similarity.masked_fill(~memory.filled[labels], -torch.inf).amax(1)
    by_class = highest.new_full((memory.classes,), -torch.inf).scatter_reduce(0, labels, highest, "amax")
    return by_class.masked_fill(by_class.isneginf(), torch.nan)


class Minimax:
    """Both criteria over the batches of a run, with two memories: of ``real`` latents, and of ``generated`` ones.

    Arguments and errors are those of :class:`Memory`.
    """

    def __init__(self, classes: int, size: int, dimensions: int, dtype: torch.dtype = torch.float32) -> None:
        self.real = Memory(classes, size, dimensions, dtype)
        self.generated = Memory(classes, size, dimensions, dtype)

    def __call__(self, pred: Tensor, latents: Tensor, labels: Tensor) -> Criteria:
        """Compute the criteria of a batch, then add the batch to the memories.

        Args:
            pred: Predicted clean latents, shape ``(B, ...)``.
            latents: Real latents of the same shape.
            labels: Class of each latent, shape ``(B,)``.
        """
        criteria = minimax_criteria(pred, labels, self.real, self.generated)
        self.real.push(latents, labels)
        self.generated.push(pred.detach(), labels)
        return criteria

    def to(self, device: torch.device) -> None:
        """Move the memories to a device."""
        self.real.to(device)
        self.generated.to(device)

    def state_dict(self) -> dict[str, Any]:
        """Both memories as tensors."""
        return {"real": self.real.state_dict(), "generated": self.generated.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load both memories, which raise an error if they have another shape."""
        self.real.load_state_dict(state["real"])
        self.generated.load_state_dict(state["generated"])
