"""Base of the tasks that learn images: what is learned, its start, its range, a step, and what a restart needs."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import lightning as L
import torch
from torch import Tensor, nn
from torch.optim import SGD

from dgs_lightning.bounds import AtLeast, Between, Group, save_settings
from dgs_lightning.data.augmentation import check_strategy, normalise
from dgs_lightning.datamodules.real_images import RealImageDataModule
from dgs_lightning.errors import InputError
from dgs_lightning.matching.formation import decode, mixed_start
from dgs_lightning.matching.siamese import PUBLISHED
from dgs_lightning.models.registry import build_network, check_name
from dgs_lightning.tasks.classification import flat
from dgs_lightning.tasks.draws import Draws
from dgs_lightning.tasks.protocol import Normalisation, numbers_of

ROUNDING = 1e-5  # of pixels that are normalised and back


@dataclass(frozen=True)
class ImageSettings(Group):
    """Settings of the images that are learned.

    Args:
        ipc: Stored images of each class.
        start: Real images of the class drawn at random (``real``) or the ``first`` ones, or ``noise``. With a factor
            above 1, each stored image is made of several real ones.
        lr: Learning rate of the images.
        momentum: Momentum of SGD on the images.
        range: When pixels are moved into [0, 1]: after each ``step``, at the start of each ``network``, or never while
            the images are learned (``free``, as published for DM, DC and DSA).
        factor: Tiles along a side of a stored image (multi-formation of IDC); 1: the stored images are the images.
    """

    ipc: Annotated[int, Between(1, 1_000_000)] = 10
    start: Literal["real", "first", "noise"] | None = None
    lr: Annotated[float | None, AtLeast(0)] = None
    momentum: Annotated[float, Between(0, 1, open="right")] = 0.5
    range: Literal["step", "network", "free"] | None = None
    factor: Annotated[int, Between(1, 64)] = 1


class LearnedImages(L.LightningModule):
    """Base of tasks that learn a set of images from the real images of a ``RealImageDataModule``.

    A subclass has the ``training_step``, which calls :meth:`take_step` once. Its number is ``global_step``.

    The images are one parameter, ``images`` of shape ``(classes * ipc, C, S, S)``, all of the first class first. The
    trainer's ``max_steps`` is the number of steps. ``LearnedImagesWriter`` writes the images as a distilled set.

    Args:
        network: Name of the network, see :func:`~dgs_lightning.models.registry.build_network`.
        width: Channels of a ConvNet.
        images: What is learned.
        batch_real: Real images of a class in a step; all of a class that has fewer. By default the published number.
        augmentation: Operations of the siamese augmentation; by default the published ones. Leave out ``flip`` if left
            and right matter.
        normalisation: Mean and standard deviation of the channels; ImageNet's by default.
        seed: Seed of all draws.

    Attributes:
        images: The images, normalised unless ``NORMALISED`` is false.
        draws: The random choices.

    Raises:
        InputError: If a number is out of its range, or a name is unknown.
    """

    NORMALISED: bool = True  # whether images are stored normalised, or with pixels in [0, 1]
    START: str = "real"
    PRECISIONS: ClassVar[tuple[str, ...]] = ("32-true", "64-true")
    images: nn.Parameter

    def __init__(
        self,
        network: str = "convnet3",
        width: Annotated[int, Between(1, 65536)] = 128,
        images: ImageSettings = ImageSettings(),
        batch_real: Annotated[int | None, Between(1, 1_000_000)] = None,
        augmentation: tuple[str, ...] | None = None,
        normalisation: Normalisation | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        save_settings(self, logger=False)
        self.automatic_optimization = False
        self.learned = ImageSettings.of(images)
        self.normalisation = None if normalisation is None else Normalisation.of(normalisation)
        self.draws = Draws(seed)

    @classmethod
    def check_combination(cls, settings: Mapping[str, Any]) -> None:
        """Refuse unknown networks and operations."""
        check_name(settings["network"])
        check_strategy("augmentation", settings["augmentation"] or ())

    # ---- settings that have published values ---------------------------------------------------------------------

    @property
    def data(self) -> RealImageDataModule:
        """The datamodule of the trainer."""
        return self.trainer.datamodule  # type: ignore[attr-defined,no-any-return]

    @property
    def lr(self) -> float:
        """Learning rate of the images."""
        return 1.0 if self.learned.lr is None else self.learned.lr

    @property
    def range(self) -> str:
        """When pixels are moved into [0, 1]."""
        return self.learned.range or "step"

    @property
    def batch_real(self) -> int:
        """Real images of a class in a step."""
        return self.hparams["batch_real"] or 256

    @property
    def strategy(self) -> tuple[str, ...]:
        """Operations of the augmentation."""
        own: tuple[str, ...] | None = self.hparams["augmentation"]
        return PUBLISHED if own is None else own

    # ---- images and network --------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Take the images to start from.

        Raises:
            InputError: If a class has too few of them, the precision is too low, or there are several devices.
        """
        if self.trainer.precision not in self.PRECISIONS:
            expected = f"one of {', '.join(self.PRECISIONS)}: images change in small steps"
            raise InputError.setting("precision", self.trainer.precision, expected, "Set trainer.precision to 32-true")
        data = self.data
        self.labels, self.side = data.labels, data.image_size
        self.mean, self.std = numbers_of(self.normalisation, data.channels)
        self.images = nn.Parameter(torch.cat([self._start(number) for number in range(len(self.labels))]))

    def _start(self, number: int) -> Tensor:
        """Stored images of a class before the first step."""
        learned, label, positions = self.learned, self.labels[number], self.data.positions[number]
        count, start = learned.ipc * learned.factor**2, learned.start or self.START
        if start == "noise":
            noise = self.draws.noise(label, (learned.ipc, self.data.channels, self.side, self.side))
            return noise if self.NORMALISED else (noise / 4 + 0.5).clamp(0, 1)
        if len(positions) < count:
            found = f"{len(positions)} images of class {label!r}"
            expected = f"at least {count} for images.ipc {learned.ipc}, images.factor {learned.factor}"
            raise InputError(self.data.hparams["train"], found, expected, "Lower them, or set images.start to noise")
        first = self.draws.start(label, len(positions), count) if start == "real" else torch.arange(count)
        images, _ = self.data.real(positions[first])
        stored = mixed_start(images.cpu(), learned.factor)
        return normalise(stored, self.mean, self.std) if self.NORMALISED else stored

    def new_network(self, number: int) -> nn.Module:
        """A network with fresh initial weights, on the device of the images and in their type."""
        settings, data = self.hparams, self.data
        with torch.device("cpu"), torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.draws.network(number))
            network = build_network(
                settings["network"], len(self.labels), self.side, data.channels, width=settings["width"]
            )
        return network.to(self.images).train()

    def rows(self, number: int) -> slice:
        """Place of a class among the stored images."""
        return slice(number * self.learned.ipc, (number + 1) * self.learned.ipc)

    def real(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised real images at some positions, and their classes."""
        images, classes = self.data.real(positions)
        return normalise(images.to(self.images), self.mean, self.std), classes.to(self.device)

    def pixels(self) -> Tensor:
        """The stored images with pixels in [0, 1], or outside where the range is free."""
        images = self.images.detach()
        if not self.NORMALISED:
            return images
        return images * images.new_tensor(self.std)[:, None, None] + images.new_tensor(self.mean)[:, None, None]

    def decoded(self) -> Tensor:
        """The images of the set with pixels in [0, 1]: stored ones decoded, class by class, and clamped."""
        classes = torch.split(self.pixels(), self.learned.ipc)
        return torch.cat([decode(each, self.learned.factor)[0] for each in classes]).clamp(0, 1)

    @torch.no_grad()
    def project(self) -> None:
        """Move all pixels into [0, 1]."""
        limits = (torch.zeros_like(self.images), torch.ones_like(self.images))
        if self.NORMALISED:
            limits = (normalise(limits[0], self.mean, self.std), normalise(limits[1], self.mean, self.std))
        self.images.clamp_(*limits)

    # ---- a step --------------------------------------------------------------------------------------------------

    def configure_optimizers(self) -> SGD:
        """SGD over all images."""
        return SGD([self.images], self.lr, self.learned.momentum)

    def take_step(self, gradient: Tensor, counted: bool = True) -> None:
        """Step of SGD on all images with this gradient; the trainer counts it, unless more steps belong to it."""
        self.images.grad = gradient
        optimizer = self.optimizers()
        (optimizer if counted else optimizer.optimizer).step()  # type: ignore[union-attr]
        if self.range == "step":
            self.project()

    def log_losses(self, losses: Tensor) -> None:
        """Log the mean loss, that of each class, and the share of pixels outside [0, 1].

        Raises:
            InputError: If the mean is not finite.
        """
        loss = losses.mean()
        if not loss.isfinite():
            remedy = "Lower images.lr, and start again in a new folder"
            raise InputError.not_finite(f"loss of step {self.global_step}", loss.item(), remedy)
        self.log("loss", loss, prog_bar=True)
        if self.global_step % self.trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            self.log_dict({f"loss/{label}": value for label, value in zip(self.labels, losses, strict=True)})
            self.log("outside", share_outside(self.pixels()))

    # ---- resume --------------------------------------------------------------------------------------------------

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint that was made with other settings or for other images."""
        begun, own = (flat(settings) for settings in (checkpoint.get("hyper_parameters", {}), self.hparams))
        changed = [f"{name}: {begun.get(name)}" for name in own | begun if begun.get(name) != own.get(name)]
        shape = checkpoint["state_dict"].get("images", torch.empty(0)).shape
        if changed or shape != self.images.shape:
            raise InputError.resume(f"one made with {', '.join(changed) or 'other classes or images'}")


def share_outside(pixels: Tensor) -> Tensor:
    """Share of pixels below 0 or above 1, by more than rounding."""
    return ((pixels < -ROUNDING) | (pixels > 1 + ROUNDING)).double().mean()
