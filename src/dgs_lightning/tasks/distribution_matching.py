"""Distribution matching (DM): images whose mean embedding in random networks is that of the real images."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dgs_lightning.errors import InputError
from dgs_lightning.matching.distances import mean_embedding_distance
from dgs_lightning.matching.siamese import apply
from dgs_lightning.models.embedding import pooled_features
from dgs_lightning.models.registry import has_batch_norm
from dgs_lightning.seeding import named_seed
from dgs_lightning.tasks.learned_images import LearnedImages

PIXELS_AT_ONCE = 2**18  # of the classes that go through the network together: enough to keep a device busy


class DistributionMatchingTask(LearnedImages):
    r"""Learns images by distribution matching (Zhao and Bilen, WACV 2023).

    In each step, a new random network embeds real and synthetic images of each class, augmented by the same draw. The
    loss is the sum over the classes of the squared distances of the mean embeddings (Eq. 6). The gradient is computed
    class by class, or for a few classes of small images together, so that the memory of one class is enough. Several
    devices share the classes. A network with batch norm gets all classes in one batch, as published, and takes one
    device.

    Published: ``images.lr`` 1, 20,000 steps, ``images.range`` free. Here images are moved into [0, 1] after each step
    by default, since files of images have no other pixels.

    The settings are those of :class:`~dgs_lightning.tasks.learned_images.LearnedImages`.

    Raises:
        InputError: If a number is out of its range, or a name is unknown.

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> import lightning as L
        >>> from dgs_lightning import RealImageDataModule
        >>> from dgs_lightning.examples import SILENT, write_images
        >>> from dgs_lightning.tasks.learned_images import ImageSettings
        >>> task = DistributionMatchingTask("convnet1", width=4, images=ImageSettings(ipc=3))
        >>> with TemporaryDirectory() as folder:
        ...     L.Trainer(**SILENT, max_steps=2).fit(task, RealImageDataModule(write_images(folder)))
        >>> task.pixels().shape  # three images of each of two classes
        torch.Size([6, 1, 4, 4])
    """

    PRECISIONS = ("32-true", "64-true", "bf16-mixed")

    def training_step(self, batch: int, batch_idx: int) -> None:
        """Step on all images, with the gradient of all classes."""
        network = self.new_network(self.global_step).requires_grad_(False)
        gradient, losses = torch.zeros_like(self.images), self.images.new_zeros(len(self.labels))
        for classes in self._groups(network):
            found, gradients = self._match(network, classes)
            for number, loss, own in zip(classes, found, gradients, strict=True):
                gradient[self.rows(number)], losses[number] = own, loss.detach()
        if self.trainer.world_size > 1:
            gradient, losses = (self.trainer.strategy.reduce(part, reduce_op="sum") for part in (gradient, losses))
        self.take_step(gradient)
        self.log_losses(losses)

    def _groups(self, network: nn.Module) -> list[list[int]]:
        """The classes of this device, in groups that go through the network together."""
        classes, devices = list(range(len(self.labels))), self.trainer.world_size
        if not has_batch_norm(network):
            own = classes[self.global_rank :: devices]
            at_once = classes_at_once(self.batch_real + self.learned.ipc, self.side)
            return [own[first : first + at_once] for first in range(0, len(own), at_once)]
        if devices > 1:
            found = f"{self.hparams['network']}, which has batch norm, on {devices} devices"
            raise InputError.setting("network", found, "a network without batch norm, or one device")
        return [classes]

    def _match(self, network: nn.Module, classes: Sequence[int]) -> tuple[list[Tensor], tuple[Tensor, ...]]:
        """Loss of each of some classes, and its gradient with respect to the images of the class."""
        images = [self.images[self.rows(number)].detach().requires_grad_() for number in classes]
        real, synthetic = [], []
        for number, own in zip(classes, images, strict=True):
            label, positions, step = self.labels[number], self.data.positions[number], self.global_step
            draws = self.draws.augmentation(self.strategy, self.side, label, step)
            chosen = self.draws.real(label, len(positions), self.batch_real, step)
            real.append(apply(self.real(positions[chosen])[0], draws))
            synthetic.append(apply(own, draws))
        torch.manual_seed(named_seed("dropout", self.hparams["seed"], self.global_step, classes[0]))
        with torch.no_grad():
            targets = _by_class(pooled_features(network, torch.cat(real)), real)
        features = _by_class(pooled_features(network, torch.cat(synthetic)), synthetic)
        losses = [mean_embedding_distance(r, s) for r, s in zip(targets, features, strict=True)]
        return losses, torch.autograd.grad(torch.stack(losses).sum(), images)


def classes_at_once(images: int, side: int) -> int:
    """Number of classes that go through the network together, with so many images of each of this side."""
    return max(1, PIXELS_AT_ONCE // (images * side**2))


def _by_class(features: Tensor, parts: Sequence[Tensor]) -> Sequence[Tensor]:
    """Features of a batch in the parts of which it was put together."""
    return torch.split(features, [len(part) for part in parts])
