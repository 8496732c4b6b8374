"""A trained classifier that labels another one's training images."""

from typing import Any

import torch
from torch import Tensor, nn

from dgs_lightning.errors import InputError
from dgs_lightning.models.classifier import ClassifierConfig
from dgs_lightning.models.estimator import ClassifierInput, load_estimator


class Teacher(nn.Module):
    """Soft labels by a trained classifier, in the classes and normalisation of the student.

    Args:
        name: Folder of a classifier of this project, or ``torchvision:NAME`` or ``timm:NAME`` of ImageNet-1K.
        weights: Local file of a named network's weights; by default they come from its hub.
        student: What the student is trained on.

    Raises:
        InputError: If the teacher does not know a class of the student's, or takes other images.
    """

    def __init__(self, name: str, weights: str | None, student: ClassifierConfig) -> None:
        super().__init__()
        self.network = load_estimator(name, weights)
        preprocess: Any = self.network.preprocess
        last = getattr(preprocess, "transforms", [preprocess])[-1]  # normalises, whoever the teacher is from
        mean, std = (torch.as_tensor(values).flatten() for values in (last.mean, last.std))
        size = preprocess.size if isinstance(preprocess, ClassifierInput) else student.image_size
        if (size, len(mean)) != (student.image_size, student.channels):
            raise InputError(
                f"teacher {name}",
                found=f"one of {len(mean)} channels and {size} px",
                expected=f"{student.channels} channels and {student.image_size} px, as the images have",
                remedy="Train it on such images",
            )
        unknown = sorted(set(student.labels) - set(self.network.labels))
        if unknown:
            raise InputError(
                f"teacher {name}",
                found=f"no class {', '.join(unknown)}",
                expected="all classes that are to be labelled",
                remedy="Name a teacher that was trained on them",
            )
        self.columns = [self.network.labels.index(label) for label in student.labels]
        student_mean, student_std = torch.tensor(student.mean), torch.tensor(student.std)
        self.scale: Tensor
        self.shift: Tensor
        self.register_buffer("scale", (student_std / std)[:, None, None])
        self.register_buffer("shift", ((student_mean - mean) / std)[:, None, None])

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(B, classes)`` in the student's order, of images ``(B, C, S, S)`` in its normalisation."""
        logits: Tensor = self.network(images * self.scale + self.shift)
        return logits[:, self.columns]
