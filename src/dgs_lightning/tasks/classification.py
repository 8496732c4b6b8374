"""Downstream training: a network from scratch on a (distilled) set, judged on real images."""

from collections.abc import Callable, Mapping, Sequence, Sized
from typing import Any, ClassVar, Literal, Protocol

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.optim import SGD, AdamW
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix

from dgs_lightning.bounds import Ranged
from dgs_lightning.data.augmentation import Augmentation, augment, cutmix, draw_cutmix, normalise
from dgs_lightning.errors import InputError
from dgs_lightning.models.allocator import keep_freed_memory
from dgs_lightning.models.classifier import ClassifierConfig
from dgs_lightning.models.registry import check_name
from dgs_lightning.models.teacher import Teacher
from dgs_lightning.seeding import generator, named_seed
from dgs_lightning.tasks.protocol import (
    ADAMW,
    MOMENTUM,
    SCHEDULES,
    channel_statistics,
    epochs_of,
    mixed_cross_entropy,
    published_sgd,
    soft_label_loss,
)

Batch = tuple[Tensor, Tensor]


class LabelledImages(Protocol):
    """What the task asks of a datamodule, besides loaders of ``(images, positions in labels)``.

    Attributes:
        labels: All classes.
        image_size: Side of the images in pixels.
        channels: Channels of the images.
        train_images: Number of training images.
    """

    labels: Sequence[str]
    image_size: int
    channels: int
    train_images: int

    def train_dataloader(self) -> Sized:
        """Batches of one epoch."""


class ClassificationTask(L.LightningModule, Ranged):
    """Trains and tests a classifier by the downstream protocol of Minimax, MGD3 and DGS (Section 4.1).

    Batches are images ``(B, C, S, S)`` in ``[0, 1]`` and the positions of their classes in the datamodule's
    ``labels``. The trainer decides how long to train and how often to evaluate; the callback
    :class:`~dgs_lightning.PublishedLength` sets both as published, and
    :class:`~dgs_lightning.ResultWriter` writes the result. Initial weights, augmentation and CutMix depend on
    `seed` alone.

    Args:
        network: Name of the network, see :func:`~dgs_lightning.models.registry.build_network`.
        width: Channels of a ConvNet.
        pretrained: Weights to start from: none, a local file, or true for the network's own from its hub.
        seed: Seed of this repeat.
        optimizer: ``sgd`` with momentum 0.9, or ``adamw``.
        lr: Learning rate; by default the published one of SGD for as many classes, 1e-3 of AdamW.
        weight_decay: Weight decay; by default the published one of SGD, 0.01 of AdamW.
        schedule: ``steps``: x 0.2 at 2/3 and 5/6 of the epochs; ``cosine``; or ``constant``.
        crop_scale: Least and largest share of the area that a random crop keeps.
        flip: Flip images left to right; wrong for digits and letters.
        jitter: Strength of the changes of brightness, contrast and saturation.
        lighting: Strength of the PCA lighting.
        cutmix: Beta of CutMix, on every batch; 0 for none.
        label_smoothing: Share of the target that all classes have in common; without a teacher.
        teacher: Classifier whose soft labels replace the images' labels: the folder of weights of one of this
            project's, or ``torchvision:NAME`` or ``timm:NAME`` of ImageNet-1K.
        teacher_weights: Local file of a named teacher's weights; by default they come from its hub.
        temperature: Temperature of a teacher's soft labels.
        mean: Mean of each channel that images are normalised with; ImageNet's by default.
        std: Standard deviation of each channel.

    Raises:
        InputError: If a number is out of its range.
    """

    RANGES: ClassVar[Mapping[str, str]] = {
        "width": "[1, 65536]",
        "lr": "[0, inf)",
        "weight_decay": "[0, inf)",
        "crop_scale": "(0, 1]",
        "jitter": "[0, inf)",
        "lighting": "[0, inf)",
        "cutmix": "[0, inf)",
        "label_smoothing": "[0, 1)",
        "temperature": "(0, inf)",
        "mean": "(-inf, inf)",
        "std": "(0, inf)",
    }

    def __init__(
        self,
        network: str = "resnet_ap10",
        width: int = 128,
        pretrained: bool | str = False,
        seed: int = 0,
        optimizer: Literal["sgd", "adamw"] = "sgd",
        lr: float | None = None,
        weight_decay: float | None = None,
        schedule: Literal["steps", "cosine", "constant"] = "steps",
        crop_scale: tuple[float, float] = (0.5, 1.0),
        flip: bool = True,
        jitter: float = 0.4,
        lighting: float = 0.1,
        cutmix: float = 1.0,
        label_smoothing: float = 0.0,
        teacher: str | None = None,
        teacher_weights: str | None = None,
        temperature: float = 20.0,
        mean: list[float] | None = None,
        std: list[float] | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)  # Lightning would not log a seed that differs from the datamodule's
        self.check_settings(self.hparams)
        self.augmentation = Augmentation(crop_scale, flip, jitter, lighting)
        self.config: ClassifierConfig
        self.network: nn.Module
        self.soft_labels: Callable[[Tensor], Tensor] | None = None

    @classmethod
    def check_settings(cls, settings: Mapping[str, Any]) -> None:
        """Refuse settings that no data could go with.

        Raises:
            InputError: If a number is out of its range, labels that a teacher makes soft are to be smoothed, or no
                network has the name.
        """
        super().check_settings(settings)
        check_name(settings["network"])
        least, most = settings["crop_scale"]
        for name, valid, expected in (
            ("label_smoothing", not (settings["teacher"] and settings["label_smoothing"]), "0 with soft labels"),
            ("crop_scale", least <= most, "shares of the area in rising order, such as 0.5, 1"),
        ):
            if not valid:
                raise InputError(name, found=str(settings[name]), expected=expected, remedy="Correct the setting")

    # ---- what is trained -----------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Keep the memory that is freed for the next batch."""
        keep_freed_memory()

    @property
    def data(self) -> LabelledImages:
        """The datamodule at hand."""
        return self.trainer.datamodule  # type: ignore[attr-defined,no-any-return]

    def configure_model(self) -> None:
        """Build the network for the datamodule's images and classes, its weights drawn from the seed."""
        if hasattr(self, "network"):
            return
        data, settings = self.data, self.hparams
        images = self.trainer.datamodule.hparams  # type: ignore[attr-defined]
        mean, std = channel_statistics(data.channels)
        for name in ("mean", "std"):
            if len(settings[name] or mean) != data.channels:
                found, expected = f"{len(settings[name])} numbers", f"one for each channel, {data.channels}"
                raise InputError(name, found=found, expected=expected, remedy="Correct it, or leave it to its default")
        self.config = ClassifierConfig(
            network=settings["network"],
            labels=tuple(data.labels),
            image_size=data.image_size,
            channels=data.channels,
            mean=tuple(settings["mean"] or mean),
            std=tuple(settings["std"] or std),
            width=settings["width"],
            folds=images.get("folds"),
            fold=images.get("fold"),
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(named_seed("weights", settings["seed"]))
            self.network = self.config.build(settings["pretrained"])
        if settings["teacher"] is not None:
            teacher = Teacher(settings["teacher"], settings["teacher_weights"], self.config)
            # A bound method is no submodule: the teacher is neither trained nor saved.
            self.soft_labels = teacher.to(self.trainer.strategy.root_device).forward
        self.metrics = classification_metrics(len(self.config.labels))

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """SGD or AdamW, the learning rate changing by epoch.

        Raises:
            InputError: If the learning rate changes over a training without end.
        """
        settings, sgd = self.hparams, self.hparams["optimizer"] == "sgd"
        lr, weight_decay = published_sgd(len(self.config.labels)) if sgd else ADAMW
        options: dict[str, Any] = {
            "lr": lr if settings["lr"] is None else settings["lr"],
            "weight_decay": weight_decay if settings["weight_decay"] is None else settings["weight_decay"],
        }
        parameters = self.network.parameters()
        optimizer = SGD(parameters, momentum=MOMENTUM, **options) if sgd else AdamW(parameters, **options)
        factor, epochs = SCHEDULES[settings["schedule"]], epochs_of(self.trainer, len(self.data.train_dataloader()))
        if epochs is None and settings["schedule"] != "constant":
            raise InputError(
                "schedule",
                found=f"{settings['schedule']!r} in a training without end",
                expected="a number of epochs or steps, or 'constant'",
                remedy="Set trainer.max_epochs or trainer.max_steps, or name the callback PublishedLength",
            )
        length = epochs or 1
        return {"optimizer": optimizer, "lr_scheduler": LambdaLR(optimizer, lambda epoch: factor(epoch, length))}

    # ---- training --------------------------------------------------------------------------------------------

    def on_train_epoch_start(self) -> None:
        """Log the learning rate."""
        self.losses: list[Tensor] = []
        self.log("train/lr", self.trainer.optimizers[0].param_groups[0]["lr"])

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of an augmented and mixed batch, whose draws depend on seed, epoch and the batch's number alone."""
        images, classes = batch
        settings, config = self.hparams, self.config
        random = generator("augment", settings["seed"], self.current_epoch, batch_idx, self.global_rank)
        torch.manual_seed(random.initial_seed())  # for networks with dropout
        draws = self.augmentation.draw(len(images), config.image_size, random)
        images = augment(images, draws.to(images.device), config.mean, config.std)
        partners, own = classes, 1.0
        if settings["cutmix"] > 0:
            draw = draw_cutmix(len(images), config.image_size, settings["cutmix"], random)
            images, own = cutmix(images, draw)
            partners = classes[draw.partners.to(classes.device)]
        logits = self.network(images)
        if self.soft_labels is not None:
            loss = soft_label_loss(logits, self.soft_labels(images), settings["temperature"])
        else:
            loss = mixed_cross_entropy(logits, classes, partners, own, settings["label_smoothing"])
        self.losses.append(loss.detach())
        return loss

    def on_train_epoch_end(self) -> None:
        """Log the epoch's loss.

        Raises:
            InputError: If the loss is no longer a number.
        """
        loss = torch.stack(self.losses).mean()
        if not loss.isfinite():
            raise InputError(
                f"training of {self.hparams['network']}",
                found=f"a loss of {loss.item()} in epoch {self.current_epoch + 1}",
                expected="a finite one",
                remedy="Lower lr, or use optimizer: adamw",
            )
        self.log("train/loss", loss)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """See to it that a run goes on as it began.

        Raises:
            InputError: If the checkpoint was made with other settings.
        """
        begun = checkpoint.get("hyper_parameters", {})
        changed = [name for name, value in self.hparams.items() if begun.get(name) != value]
        states = (checkpoint["state_dict"], self.state_dict())
        shapes = [{name: value.shape for name, value in state.items()} for state in states]
        if changed or shapes[0] != shapes[1]:
            settings = ", ".join(f"{name}: {begun.get(name)}" for name in changed)
            raise InputError(
                "checkpoint to resume",
                found=f"one made with {settings or 'other classes or images'}",
                expected="the settings of this run",
                remedy="Resume with the old settings, or start in a new folder",
            )

    # ---- evaluation ------------------------------------------------------------------------------------------

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Count how the network classifies a batch."""
        images, classes = batch
        self.metrics.update(self.network(normalise(images, self.config.mean, self.config.std)), classes)

    def on_validation_epoch_end(self) -> None:
        """Log top-1 and top-5 accuracy."""
        self._log_metrics("val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """The same on test images."""
        self.validation_step(batch, batch_idx)

    def on_test_epoch_end(self) -> None:
        """Log top-1 and top-5 accuracy."""
        self._log_metrics("test")

    def _log_metrics(self, stage: str) -> None:
        self.evaluation = self.metrics.compute()
        self.metrics.reset()
        self.log_dict({f"{stage}/{name}": self.evaluation[name] for name in ("accuracy", "top5")})


def classification_metrics(classes: int) -> MetricCollection:
    """Top-1 and top-5 accuracy, accuracy of each class, and the confusion matrix (rows: true classes)."""
    return MetricCollection(
        {
            "accuracy": MulticlassAccuracy(classes, average="micro"),
            "top5": MulticlassAccuracy(classes, average="micro", top_k=min(5, classes)),
            "per_class": MulticlassAccuracy(classes, average="none"),
            "confusion": MulticlassConfusionMatrix(classes),
        }
    )
