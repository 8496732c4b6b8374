"""Downstream training: a network is trained on a (distilled) set and tested on real images."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.optim import SGD, AdamW
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix

from dgs_lightning.bounds import Between, save_settings
from dgs_lightning.data.augmentation import Augmentation, cutmix, draw_cutmix, normalise
from dgs_lightning.datamodules.images import ImageDataModule
from dgs_lightning.errors import InputError
from dgs_lightning.models.classifier import ClassifierConfig
from dgs_lightning.models.estimator import Teacher
from dgs_lightning.models.registry import check_name
from dgs_lightning.seeding import generator, named_seed
from dgs_lightning.tasks.protocol import (
    ADAMW,
    MOMENTUM,
    SCHEDULES,
    Normalisation,
    OptimizerSettings,
    TeacherSettings,
    class_weights,
    decay_groups,
    epochs_of,
    mixed_cross_entropy,
    numbers_of,
    published_sgd,
    second_part,
    soft_label_loss,
)

Batch = tuple[Tensor, Tensor]


class ClassificationTask(L.LightningModule):
    """Trains and tests a classifier by the downstream protocol of Minimax, MGD3 and DGS (Section 4.1).

    Batches are images ``(B, C, S, S)`` in ``[0, 1]`` and the positions of their classes in ``labels`` of the
    datamodule, which also has ``image_size`` and ``channels``. The trainer decides how long to train and how often to
    evaluate. The callback :class:`~dgs_lightning.callbacks.published_length.PublishedLength` sets both as published,
    and :class:`~dgs_lightning.callbacks.result_writer.ResultWriter` writes the result. The initial weights, the
    augmentation and CutMix depend on `seed` alone; each of several devices draws for its own share of a batch.

    >>> from tempfile import TemporaryDirectory
    >>> from dgs_lightning.examples import SILENT, write_images
    >>> task = ClassificationTask("convnet1", width=4, optimizer=OptimizerSettings("adamw", lr=0.01))
    >>> with TemporaryDirectory() as folder:
    ...     images = write_images(folder)
    ...     L.Trainer(**SILENT, max_epochs=2).fit(task, ImageDataModule(train=images, val=images))
    >>> task.config.labels
    ('cat', 'dog')

    Args:
        network: Name of the network, see :func:`~dgs_lightning.models.registry.build_network`.
        width: Channels of a ConvNet.
        pretrained: Weights to start from: false for none, true for those of the network's hub, or a local file.
        seed: Seed of this repeat.
        optimizer: Optimiser, learning rate and its schedule.
        augmentation: Augmentation of the training images, CutMix included.
        label_smoothing: Share of the target that is divided among all classes; 0 with a teacher.
        teacher: Classifier whose soft labels replace the labels of the images.
        normalisation: Mean and standard deviation of the channels; ImageNet's by default.
        balanced: Give all classes the same weight in the loss, whatever their numbers of images. Without it, a network
            learns to name the class with the most images.

    Raises:
        InputError: If a number is out of its range, or settings do not go together.
    """

    MOVED: ClassVar[Mapping[str, str]] = {  # settings of version 0.1.0, and where they are now
        "epochs": "trainer.max_epochs, or epochs of the callback PublishedLength",
        "steps": "trainer.max_steps, or steps of the callback PublishedLength",
        "evaluations": "trainer.check_val_every_n_epoch, or evaluations of the callback PublishedLength",
        "save_weights": "save_weights of the callback ResultWriter",
        "teacher_weights": "model.teacher.weights",
    }

    def __init__(
        self,
        network: str = "resnet_ap10",
        width: Annotated[int, Between(1, 65536)] = 128,
        pretrained: bool | str = False,
        seed: int = 0,
        optimizer: OptimizerSettings = OptimizerSettings(),
        augmentation: Augmentation = Augmentation(),
        label_smoothing: Annotated[float, Between(0, 1, open="right")] = 0.0,
        teacher: TeacherSettings | None = None,
        normalisation: Normalisation | None = None,
        balanced: bool = False,
    ) -> None:
        super().__init__()
        save_settings(self, logger=False)  # Lightning would not log a seed that differs from the datamodule's
        self.optimizer = OptimizerSettings.of(optimizer)
        self.augmentation = Augmentation.of(augmentation)
        self.teacher = None if teacher is None else TeacherSettings.of(teacher)
        self.normalisation = None if normalisation is None else Normalisation.of(normalisation)
        self.config: ClassifierConfig
        self.network: nn.Module
        self.soft_labels: Callable[[Tensor], Tensor] | None = None
        self.weights: Tensor | None = None  # of the classes in the loss

    @classmethod
    def check_combination(cls, settings: Mapping[str, Any]) -> None:
        """Refuse unknown networks, and settings of the labels' loss beside a teacher."""
        check_name(settings["network"])
        if settings["teacher"] and settings["balanced"]:
            raise InputError.setting("balanced", "true beside a teacher", "false with soft labels", "Set only one")
        if settings["teacher"] and settings["label_smoothing"]:
            found = f"{settings['label_smoothing']} beside a teacher"
            raise InputError.setting("label_smoothing", found, "0 with soft labels", "Set only one of the two")

    # ---- network and optimiser -------------------------------------------------------------------------------

    @property
    def data(self) -> ImageDataModule:
        """The datamodule of the trainer."""
        return self.trainer.datamodule  # type: ignore[attr-defined,no-any-return]

    @property
    def subsets(self) -> tuple[str, ...]:
        """Names of the subsets of the validation images, where the datamodule has any."""
        return getattr(self.data, "subsets", ())

    def configure_model(self) -> None:
        """Build the network for the images and classes of the datamodule, with weights drawn from the seed."""
        if hasattr(self, "network"):
            return
        data, settings = self.data, self.hparams
        folds = data.hparams.get("cross_fitting") or {}
        if (patches := self.augmentation.patches) > data.image_size:
            expected, remedy = f"at most {data.image_size}, the side of the images", "Set fewer patches"
            raise InputError.setting("augmentation.patches", patches, expected, remedy)
        images = (data.image_size, data.channels, *numbers_of(self.normalisation, data.channels))
        left_out = (folds.get("folds"), folds.get("fold"))
        self.config = ClassifierConfig(settings["network"], tuple(data.labels), *images, settings["width"], *left_out)
        # On a CPU, since Lightning calls this with the GPU as default device, whose random numbers are others.
        with torch.device("cpu"), torch.random.fork_rng(devices=[]):
            torch.manual_seed(named_seed("weights", settings["seed"]))
            self.network = self.config.build(settings["pretrained"])
        if self.teacher is not None:
            teacher = Teacher(self.teacher.name, self.teacher.weights, self.config)
            # A bound method is no submodule, so the teacher is neither trained nor saved.
            self.soft_labels = teacher.to(self.trainer.strategy.root_device).forward
        self.metrics = classification_metrics(len(self.config.labels))

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """SGD or AdamW, with a learning rate that changes by epoch."""
        settings, sgd = self.optimizer, self.optimizer.name == "sgd"
        lr, weight_decay = published_sgd(len(self.config.labels)) if sgd else ADAMW
        options: dict[str, Any] = {"momentum": MOMENTUM} if sgd else {}
        options["lr"] = lr if settings.lr is None else settings.lr
        weight_decay = weight_decay if settings.weight_decay is None else settings.weight_decay
        groups = decay_groups(self.network, weight_decay, settings.decayed)
        optimizer = (SGD if sgd else AdamW)(groups, **options)
        factor, epochs = SCHEDULES[settings.schedule], epochs_of(self.trainer, len(self.data.train_dataloader()))
        if epochs is None and settings.schedule != "constant":
            found = f"{settings.schedule!r} in a training without end"
            expected = "a number of epochs or steps, or 'constant'"
            remedy = "Set trainer.max_epochs or trainer.max_steps, or name the callback PublishedLength"
            raise InputError.setting("optimizer.schedule", found, expected, remedy)
        length = epochs or 1
        return {"optimizer": optimizer, "lr_scheduler": LambdaLR(optimizer, lambda epoch: factor(epoch, length))}

    # ---- training --------------------------------------------------------------------------------------------

    def on_fit_start(self) -> None:
        """Weigh the classes by their numbers of training images."""
        self.losses: list[Tensor] = []  # of the epoch at hand
        if self.hparams["balanced"]:
            counts = Counter(record.label for record in self.data.train_records)
            self.weights = class_weights([counts[label] for label in self.config.labels]).to(self.device)

    def on_train_epoch_start(self) -> None:
        """Log the learning rate. The second part of the schedule ``half`` begins without momentum."""
        self.losses.clear()
        if self.optimizer.schedule == "half":
            epochs = epochs_of(self.trainer, len(self.data.train_dataloader())) or 1
            if self.current_epoch == second_part(epochs):
                self.trainer.optimizers[0].state.clear()
        self.log("train/lr", self.trainer.optimizers[0].param_groups[0]["lr"])

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of an augmented and mixed batch. The draws depend on the seed, the epoch and the batch number alone."""
        images, classes = batch
        config, beta = self.config, self.augmentation.cutmix
        random = generator("augment", self.hparams["seed"], self.current_epoch, batch_idx, self.global_rank)
        torch.manual_seed(random.initial_seed())  # for networks with dropout
        images = self.augmentation(images, config.mean, config.std, random)
        partners, own = classes, 1.0
        if beta > 0:
            draw = draw_cutmix(len(images), config.image_size, beta, random)
            images, own = cutmix(images, draw)
            partners = classes[draw.partners.to(classes.device)]
        logits = self.network(images)
        if self.teacher is not None and self.soft_labels is not None:
            loss = soft_label_loss(logits, self.soft_labels(images), self.teacher.temperature, self.teacher.squared)
        else:
            smoothing = self.hparams["label_smoothing"]
            loss = mixed_cross_entropy(logits, classes, partners, own, smoothing, self.weights)
        self.losses.append(loss.detach())
        return loss

    def on_train_epoch_end(self) -> None:
        """Log the mean loss of the epoch, which must be finite."""
        if not self.losses:  # with max_steps, Lightning also ends the epoch of the checkpoint that it resumes from
            return
        loss = torch.stack(self.losses).mean()
        if not loss.isfinite():
            where = f"loss of {self.hparams['network']} in epoch {self.current_epoch + 1}"
            remedy = "Lower optimizer.lr, or set optimizer.name to adamw"
            raise InputError.not_finite(where, loss.item(), remedy)
        self.log("train/loss", loss)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint that was made with other settings, or by version 0.1.0."""
        begun, own = (flat(settings) for settings in (checkpoint.get("hyper_parameters", {}), self.hparams))
        # Settings that the version of the checkpoint did not have were at what is the default now.
        usual = flat(ClassificationTask("convnet3", teacher=TeacherSettings("")).hparams)
        begun |= {name: usual[name] for name in own.keys() & usual.keys() - begun.keys()}
        if "crop_scale" in begun:
            found = "one of version 0.1.0, whose settings have other names"
            remedy = "Start in a new folder, or finish the run with version 0.1.0"
            raise InputError("checkpoint to resume", found, "one of this version", remedy)
        changed = [f"{name}: {begun.get(name)}" for name in own | begun if begun.get(name) != own.get(name)]
        states = (checkpoint["state_dict"], self.state_dict())
        shapes = [{name: value.shape for name, value in state.items()} for state in states]
        if changed or shapes[0] != shapes[1]:
            raise InputError.resume(f"one made with {', '.join(changed) or 'other classes or images'}")

    # ---- evaluation ------------------------------------------------------------------------------------------

    def on_validation_epoch_start(self) -> None:
        """Begin to count the answers for each subset of the images."""
        self.answers = torch.zeros(2, len(self.subsets), dtype=torch.int64, device=self.device)  # all, right

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Count the right and wrong answers of the network for a batch of validation or test images."""
        images, classes = batch
        logits = self.network(normalise(images, self.config.mean, self.config.std))
        self.metrics.update(logits, classes)
        if self.subsets:
            members = self.data.members(batch_idx).to(self.device)
            right = members & (logits.argmax(1) == classes)
            self.answers += torch.stack([members.sum(1), right.sum(1)])

    def on_validation_epoch_end(self) -> None:
        """Log top-1 and top-5 accuracy, and the top-1 accuracy on each subset of the images."""
        stage = "test" if self.trainer.testing else "val"
        self.evaluation = self.metrics.compute()
        self.metrics.reset()
        self.log_dict({f"{stage}/{name}": self.evaluation[name] for name in ("accuracy", "top5")})
        count, right = self.trainer.strategy.reduce(self.answers, reduce_op="sum")
        self.by_subset = dict(zip(self.subsets, right / count, strict=True))
        self.log_dict({f"{stage}/accuracy_{name}": accuracy for name, accuracy in self.by_subset.items()})

    on_test_epoch_start = on_validation_epoch_start
    test_step, on_test_epoch_end = validation_step, on_validation_epoch_end


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings with the names of groups before the names of their fields: ``optimizer.lr``."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return found


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
