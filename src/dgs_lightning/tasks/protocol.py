"""The downstream protocol (Section 4.1) in numbers: how long, how fast, and against which targets to train."""

import math
from collections.abc import Callable

import torch.nn.functional as F
from lightning.pytorch import Trainer
from torch import Tensor

EPOCHS = {1: 3000, 10: 2000, 50: 1500, 200: 1000, 500: 500}  # largest images per class -> epochs
EPOCHS_BEYOND = 300
MANY_CLASSES = 100
MOMENTUM = 0.9
ADAMW = (1e-3, 0.01)  # learning rate and weight decay; torch's own
DECAY = 0.2  # of the learning rate at 2/3 and 5/6 of the epochs
CHANNEL_MEAN, CHANNEL_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's training images


def published_epochs(ipc: float, classes: int) -> int:
    """Epochs of training on `ipc` images per class; from 100 classes on two thirds, floored to hundreds."""
    epochs = next((count for most, count in EPOCHS.items() if ipc <= most), EPOCHS_BEYOND)
    return epochs if classes < MANY_CLASSES else epochs * 2 // 300 * 100


def epochs_of(trainer: Trainer, batches: int) -> int | None:
    """Epochs of a training, the last one perhaps incomplete, by its trainer's limits; ``None`` without any limit.

    Args:
        trainer: Trainer with ``max_epochs`` or ``max_steps``.
        batches: Training batches of an epoch.
    """
    limit = trainer.limit_train_batches
    batches = min(limit, batches) if isinstance(limit, int) else int(limit * batches)
    limits = [] if trainer.max_epochs in (None, -1) else [trainer.max_epochs]
    if trainer.max_steps != -1:
        limits.append(math.ceil(trainer.max_steps / max(1, math.ceil(batches / trainer.accumulate_grad_batches))))
    return min(limits, default=None)


def published_sgd(classes: int) -> tuple[float, float]:
    """Learning rate and weight decay: 0.01 and 5e-4, beyond 100 classes 0.1 and 1e-4."""
    return (0.01, 5e-4) if classes <= MANY_CLASSES else (0.1, 1e-4)


def steps_factor(epoch: int, epochs: int) -> float:
    """Factor of the learning rate in an epoch counted from 0: x 0.2 at 2/3 and again at 5/6 of all epochs."""
    return float(DECAY ** ((epoch >= 2 * epochs // 3) + (epoch >= 5 * epochs // 6)))


def cosine_factor(epoch: int, epochs: int) -> float:
    """Factor of the learning rate in an epoch counted from 0, on half a cosine that reaches 0 after the last."""
    return (1 + math.cos(math.pi * epoch / epochs)) / 2


SCHEDULES: dict[str, Callable[[int, int], float]] = {
    "steps": steps_factor,
    "cosine": cosine_factor,
    "constant": lambda epoch, epochs: 1.0,
}


def channel_statistics(channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation to normalise with: ImageNet's, or their averages where there are not 3 channels."""
    if channels == len(CHANNEL_MEAN):
        return CHANNEL_MEAN, CHANNEL_STD
    mean, std = (sum(values) / len(values) for values in (CHANNEL_MEAN, CHANNEL_STD))
    return (mean,) * channels, (std,) * channels


def mixed_cross_entropy(logits: Tensor, own: Tensor, partners: Tensor, share: float, smoothing: float) -> Tensor:
    """Cross-entropy of mixed images: `share` of each is of its own class, the rest of its partner's.

    Args:
        logits: Shape ``(B, classes)``.
        own: Positions of the images' classes ``(B,)``.
        partners: Positions of their partners' classes ``(B,)``.
        share: Share in ``[0, 1]``; 1 where nothing was mixed.
        smoothing: Share of the target that all classes have in common.

    Returns:
        Mean over the batch.
    """
    first, second = (F.cross_entropy(logits, classes, label_smoothing=smoothing) for classes in (own, partners))
    return share * first + (1 - share) * second


def soft_label_loss(logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    r"""Kullback-Leibler divergence of a student from its teacher, both softened.

    .. math:: T^2 \, D_{KL}(\mathrm{softmax}(t / T) \,\|\, \mathrm{softmax}(s / T))

    Hinton et al., "Distilling the Knowledge in a Neural Network", 2015; the factor keeps gradients comparable.

    Args:
        logits: The student's ``(B, classes)``.
        teacher_logits: The teacher's, of the same shape and order of classes, without gradient.
        temperature: T.

    Returns:
        Mean over the batch.
    """
    student, teacher = (F.log_softmax(values / temperature, dim=1) for values in (logits, teacher_logits))
    return F.kl_div(student, teacher, log_target=True, reduction="batchmean") * temperature**2
