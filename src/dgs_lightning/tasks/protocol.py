"""The downstream protocol (Section 4.1): settings of a training, published numbers, learning rates and losses."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from lightning.pytorch import Trainer
from torch import Tensor, nn

from dgs_lightning.bounds import FINITE, Above, AtLeast, Group
from dgs_lightning.errors import InputError
from dgs_lightning.tasks.size import DataSize, steps_by_size

EPOCHS = {1: 3000, 10: 2000, 50: 1500, 200: 1000, 500: 500}  # largest images per class -> epochs
EPOCHS_BEYOND = 300
EVALUATIONS = 100  # about how many there are in a training
MOST_TIMES = 10  # the steps of a distilled set: the longest training on a whole training set
MANY_CLASSES = 100
MOMENTUM = 0.9
ADAMW = (1e-3, 0.01)  # learning rate and weight decay; torch's own
DECAY = 0.2  # of the learning rate at 2/3 and 5/6 of the epochs
CHANNEL_MEAN, CHANNEL_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's training images


@dataclass(frozen=True)
class OptimizerSettings(Group):
    """Settings of the optimiser.

    Args:
        name: ``sgd`` with momentum 0.9, or ``adamw``.
        lr: Learning rate; by default the published one of SGD for this number of classes, or 1e-3 of AdamW.
        weight_decay: Weight decay; by default the published one of SGD for this number of classes, or 0.01 of AdamW.
        schedule: Course of the learning rate: ``steps`` (x 0.2 at 2/3 and 5/6 of the epochs), ``cosine`` (to 0),
            ``half_cosine`` (to half, as RDED has it), ``constant``, or ``half`` (x 0.1 after half of the epochs,
            without the momentum so far; that of DC, DSA and DM).
        decayed: What the weight decay acts on: ``all`` parameters, or ``matrices``, the parameters called weight of
            more than one dimension. Those are the weights of convolutions and linear layers.
    """

    name: Literal["sgd", "adamw"] = "sgd"
    lr: Annotated[float | None, AtLeast(0)] = None
    weight_decay: Annotated[float | None, AtLeast(0)] = None
    schedule: Literal["steps", "cosine", "half_cosine", "constant", "half"] = "steps"
    decayed: Literal["all", "matrices"] = "all"


@dataclass(frozen=True)
class TeacherSettings(Group):
    """A classifier whose soft labels replace the labels of the images.

    Args:
        name: Folder of weights of a classifier of this project, or ``torchvision:NAME`` or ``timm:NAME`` of
            ImageNet-1K.
        weights: Local file of the weights of a named classifier; by default they come from its hub.
        temperature: Temperature T of the soft labels.
        squared: Multiply the loss by the square of the temperature, as Hinton et al. do. RDED, D4M and SRe2L do not.
    """

    name: str
    weights: str | None = None
    temperature: Annotated[float, Above(0)] = 20.0
    squared: bool = True


@dataclass(frozen=True)
class Normalisation(Group):
    """Numbers that normalise the images, one for each channel.

    Args:
        mean: Mean of each channel.
        std: Standard deviation of each channel.
    """

    mean: Annotated[tuple[float, ...], FINITE]
    std: Annotated[tuple[float, ...], Above(0)]


def published_epochs(ipc: float, classes: int) -> int:
    """Epochs for `ipc` images per class. Exactly 100 classes have two thirds of them, rounded down to hundreds."""
    epochs = next((count for most, count in EPOCHS.items() if ipc <= most), EPOCHS_BEYOND)
    return epochs * 2 // 300 * 100 if classes == MANY_CLASSES else epochs


def asked_epochs(
    epochs: int | None = None,
    steps: int | None = None,
    steps_ipc: int | None = None,
    most_times: float = MOST_TIMES,
    meant_for: DataSize | Mapping[str, int] | None = None,
    *,
    batches: int,
    batch_size: int,
    size: DataSize,
) -> int:
    r"""Epochs that the settings of :class:`~dgs_lightning.callbacks.published_length.PublishedLength` ask for.

    Without ``epochs`` and ``steps``, it is the published number for this number of training images per class. Steps
    are rounded up to epochs. With ``meant_for``, they first follow the size of the data
    (:func:`~dgs_lightning.tasks.size.steps_by_size`). With ``steps_ipc``, they are first multiplied by the ratio of the
    published numbers of steps

    .. math:: \frac{E(n)\, B(n)}{E(s)\, B(s)}

    at :math:`n` training images and :math:`s` = ``steps_ipc`` images per class, where E is :func:`published_epochs` and
    B the number of batches in an epoch. The ratio is at least 1 and at most ``most_times``.

    Args:
        epochs: Passes over the training images.
        steps: Number of batches.
        steps_ipc: Images per class of the sets that ``steps`` are meant for.
        most_times: Largest ratio.
        meant_for: Size of the data that ``steps`` are meant for.
        batches: Batches in an epoch.
        batch_size: Images in a batch.
        size: Size of the training set.
    """
    ipc, classes = size.images / size.classes, size.classes
    if steps is None:
        return epochs or published_epochs(ipc, classes)
    if meant_for is not None:
        steps = steps_by_size(steps, DataSize.of(meant_for), size)
    if steps_ipc is not None:
        meant = published_epochs(steps_ipc, classes) * math.ceil(steps_ipc * classes / batch_size)
        steps = round(steps * min(max(published_epochs(ipc, classes) * batches / meant, 1), most_times))
    return math.ceil(steps / batches)


def evaluation_interval(epochs: int, evaluations: int) -> int:
    """Epochs between two evaluations, for about so many evaluations in a training."""
    return max(1, epochs // evaluations)


def epochs_of(trainer: Trainer | SimpleNamespace, batches: int) -> int | None:
    """Epochs of a training by its trainer's limits, an incomplete last one included; ``None`` without any limit."""
    limit = trainer.limit_train_batches
    batches = min(limit, batches) if isinstance(limit, int) else int(limit * batches)
    limits = [] if trainer.max_epochs in (None, -1) else [trainer.max_epochs]
    if trainer.max_steps != -1:
        limits.append(math.ceil(trainer.max_steps / max(1, math.ceil(batches / trainer.accumulate_grad_batches))))
    return min(limits, default=None)


def published_sgd(classes: int) -> tuple[float, float]:
    """Learning rate and weight decay of SGD: 0.01 and 5e-4; for more than 100 classes 0.1 and 1e-4."""
    return (0.01, 5e-4) if classes <= MANY_CLASSES else (0.1, 1e-4)


def second_part(epochs: int) -> int:
    """Epoch, counted from 0, with which the second part of the schedule ``half`` begins."""
    return epochs // 2 + 2


SCHEDULES: dict[str, Callable[[int, int], float]] = {  # factor of the learning rate in an epoch, counted from 0
    # x 0.2 at 2/3 and again at 5/6 of all epochs
    "steps": lambda epoch, epochs: float(DECAY ** ((epoch >= 2 * epochs // 3) + (epoch >= 5 * epochs // 6))),
    # half a cosine, to 0 after the last epoch
    "cosine": lambda epoch, epochs: (1 + math.cos(math.pi * epoch / epochs)) / 2,
    # a quarter of a cosine's period, to 1/2 after the last epoch
    "half_cosine": lambda epoch, epochs: (1 + math.cos(math.pi * epoch / (2 * epochs))) / 2,
    "constant": lambda epoch, epochs: 1.0,
    "half": lambda epoch, epochs: 0.1 if epoch >= second_part(epochs) else 1.0,
}


def decay_groups(network: nn.Module, weight_decay: float, decayed: str) -> list[dict[str, Any]]:
    """Parameter groups of an optimiser.

    Args:
        network: The network.
        weight_decay: Weight decay of the parameters that are decayed.
        decayed: Which these are, as in :class:`OptimizerSettings`. The others have no weight decay.
    """
    if decayed == "all":
        return [{"params": [*network.parameters()], "weight_decay": weight_decay}]
    groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for name, parameter in network.named_parameters():
        groups[name.endswith("weight") and parameter.ndim > 1].append(parameter)
    return [{"params": own, "weight_decay": weight_decay * decays} for decays, own in groups.items() if own]


def channel_statistics(channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel: those of ImageNet, or their averages if there are not 3 channels."""
    if channels == len(CHANNEL_MEAN):
        return CHANNEL_MEAN, CHANNEL_STD
    mean, std = (sum(values) / len(values) for values in (CHANNEL_MEAN, CHANNEL_STD))
    return (mean,) * channels, (std,) * channels


def numbers_of(normalisation: Normalisation | None, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel: those of the settings, else :func:`channel_statistics`.

    Raises:
        InputError: If the settings have numbers for other channels.
    """
    if normalisation is None:
        return channel_statistics(channels)
    for name, values in vars(normalisation).items():
        if len(values) != channels:
            found, expected = f"{len(values)} numbers", f"one for each channel, {channels}"
            remedy = "Correct it, or leave normalisation to its default"
            raise InputError.setting(f"normalisation.{name}", found, expected, remedy)
    return tuple(normalisation.mean), tuple(normalisation.std)


def class_weights(counts: Sequence[int]) -> Tensor:
    r"""Weights of the images of each class, :math:`N / (C\, n_c)`, by which all classes together weigh the same.

    Args:
        counts: Images :math:`n_c` of each of the C classes, N in all.
    """
    images = torch.tensor(counts, dtype=torch.float32)
    return images.sum() / (len(counts) * images)


def mixed_cross_entropy(
    logits: Tensor, own: Tensor, partners: Tensor, share: float, smoothing: float, weights: Tensor | None = None
) -> Tensor:
    """Cross-entropy of mixed images. A `share` of each image is of its own class, the rest of its partner's class.

    Args:
        logits: Shape ``(B, classes)``.
        own: Positions of the classes of the images ``(B,)``.
        partners: Positions of the classes of their partners ``(B,)``.
        share: Share in ``[0, 1]``; 1 for images that are not mixed.
        smoothing: Share of the target that is divided among all classes.
        weights: Weight of the images of each class ``(classes,)``; all weigh the same by default.

    Returns:
        Mean over the batch.
    """
    reduction = "mean" if weights is None else "none"  # torch would divide a mean by the weights of the batch
    first, second = (
        F.cross_entropy(logits, classes, weights, reduction=reduction, label_smoothing=smoothing).mean()
        for classes in (own, partners)
    )
    return share * first + (1 - share) * second


def soft_label_loss(logits: Tensor, teacher_logits: Tensor, temperature: float, squared: bool = True) -> Tensor:
    r"""Kullback-Leibler divergence of a student from its teacher, both softened by a temperature.

    .. math:: T^2 \, D_{KL}(\mathrm{softmax}(t / T) \,\|\, \mathrm{softmax}(s / T))

    Hinton et al., "Distilling the Knowledge in a Neural Network", 2015. The factor :math:`T^2` keeps the gradients
    comparable between temperatures. RDED (Sun et al., CVPR 2024) has no such factor, which is 400 at T = 20.

    Args:
        logits: Logits s of the student ``(B, classes)``.
        teacher_logits: Logits t of the teacher, of the same shape and order of classes, without gradient.
        temperature: Temperature T.
        squared: Whether the factor :math:`T^2` is there.

    Returns:
        Mean over the batch.
    """
    student, teacher = (F.log_softmax(values / temperature, dim=1) for values in (logits, teacher_logits))
    return F.kl_div(student, teacher, log_target=True, reduction="batchmean") * (temperature**2 if squared else 1)
