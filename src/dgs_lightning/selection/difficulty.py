"""How hard an image is for a classifier, from 0 (easy) to 1 (hard): Eq. 6 of the paper and other definitions."""

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor


def confidence_difficulty(logits: Tensor, labels: Tensor) -> Tensor:
    r"""Lack of confidence in the true class.

    .. math:: d_x = 1 - p(y_{true} \mid x)

    Eq. 6. It is computed in double precision as the sum over the other classes, so that easy images with difficulties
    near 0 keep their order.

    Args:
        logits: Classifier outputs, shape ``(B, C)``.
        labels: True classes, shape ``(B,)``, integers in ``[0, C)``.

    Returns:
        Difficulties in ``[0, 1]``, shape ``(B,)``, float64.

    Raises:
        ValueError: If the shapes do not fit, there are fewer than two classes, or a logit is not finite.
    """
    others = _log_probabilities(logits, labels).exp().scatter(1, labels[:, None], 0.0)
    return others.sum(dim=1).clamp(max=1)


def margin_difficulty(logits: Tensor, labels: Tensor) -> Tensor:
    r"""Lead of the most probable wrong class over the true class, :math:`(1 + \max_{c \ne y} p_c - p_y) / 2`.

    It is 0 if the true class is certain, 1 if another class is certain, and 1/2 on the decision boundary.
    Arguments, result and errors are those of :func:`confidence_difficulty`.
    """
    probabilities = _log_probabilities(logits, labels).exp()
    wrong = probabilities.scatter(1, labels[:, None], -math.inf).amax(dim=1)
    return (1 + wrong - _true(probabilities, labels)) / 2


def entropy_difficulty(logits: Tensor, labels: Tensor) -> Tensor:
    r"""Entropy of the predicted probabilities for any true class, :math:`-\sum_c p_c \ln p_c / \ln C`.

    Arguments, result and errors are those of :func:`confidence_difficulty`.
    """
    probabilities = _log_probabilities(logits, labels).exp()
    entropy: Tensor = torch.special.entr(probabilities).sum(dim=1)
    return (entropy / math.log(logits.shape[1])).clamp(max=1)


def loss_difficulty(logits: Tensor, labels: Tensor) -> Tensor:
    r"""Cross-entropy :math:`\ell`, mapped to the unit interval by :math:`\ell / (\ell + \ln C)`.

    Guessing gives 1/2. The order of images is that of Eq. 6, but hard images are spread more widely. Arguments, result
    and errors are those of :func:`confidence_difficulty`.
    """
    loss = -_true(_log_probabilities(logits, labels), labels)
    return loss / (loss + math.log(logits.shape[1]))


def ensemble_difficulty(difficulties: Sequence[Tensor]) -> Tensor:
    """Mean of the difficulties, shape ``(B,)`` each, that several estimators give the same images.

    Raises:
        ValueError: If there is no estimator.
    """
    if not difficulties:
        raise ValueError("an ensemble needs at least one estimator; name one")
    return torch.stack(list(difficulties)).mean(dim=0)


DIFFICULTIES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = MappingProxyType(
    {
        "confidence": confidence_difficulty,
        "margin": margin_difficulty,
        "entropy": entropy_difficulty,
        "loss": loss_difficulty,
    }
)
"""The definitions by name; each takes logits ``(B, C)`` and labels ``(B,)``."""


def _log_probabilities(logits: Tensor, labels: Tensor) -> Tensor:
    """Check the arguments and return the logarithm of the softmax in double precision, shape ``(B, C)``."""
    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        raise ValueError(f"need logits (B, C) and labels (B,), got {tuple(logits.shape)} and {tuple(labels.shape)}")
    if logits.shape[1] < 2:
        raise ValueError("difficulty needs at least two classes; use an estimator of two or more classes")
    if not torch.isfinite(logits).all():
        raise ValueError("logits must be finite; the estimator diverged or its input is broken")
    return logits.double().log_softmax(dim=1)


def _true(values: Tensor, labels: Tensor) -> Tensor:
    return values.gather(1, labels[:, None])[:, 0]
