"""A trained classifier that labels another one's training images."""

from pathlib import Path

import torch
from torch import Tensor, nn

from dgs_lightning.errors import InputError
from dgs_lightning.models.classifier import ClassifierConfig, load_classifier


class Teacher(nn.Module):
    """Soft labels by a trained classifier, in the classes and normalisation of the student.

    Args:
        folder: The teacher's folder of weights.
        student: What the student is trained on.

    Raises:
        InputError: If the teacher does not know a class of the student's, or takes other images.
    """

    def __init__(self, folder: Path, student: ClassifierConfig) -> None:
        super().__init__()
        self.network, config = load_classifier(folder)
        self.requires_grad_(False)
        for name in ("image_size", "channels"):
            if getattr(config, name) != getattr(student, name):
                raise InputError(
                    f"teacher {folder}",
                    found=f"{name} {getattr(config, name)}",
                    expected=str(getattr(student, name)),
                    remedy="Train it on such images",
                )
        unknown = sorted(set(student.labels) - set(config.labels))
        if unknown:
            raise InputError(
                f"teacher {folder}",
                found=f"no class {', '.join(unknown)}",
                expected="all classes that are to be labelled",
                remedy="Name a teacher that was trained on them",
            )
        self.columns = [config.labels.index(label) for label in student.labels]
        ours, theirs = (torch.tensor([c.mean, c.std])[:, :, None, None] for c in (student, config))
        self.scale: Tensor
        self.shift: Tensor
        self.register_buffer("scale", ours[1] / theirs[1])
        self.register_buffer("shift", (ours[0] - theirs[0]) / theirs[1])

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(B, classes)`` in the student's order, of images ``(B, C, S, S)`` in its normalisation."""
        logits: Tensor = self.network(images * self.scale + self.shift)
        return logits[:, self.columns]
