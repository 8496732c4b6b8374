"""How much there is to do: counted from the stages' settings, before anything runs."""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dgs_lightning.commands.prepare import DIGITS
from dgs_lightning.data.images import is_grey, load_image
from dgs_lightning.datamodules.images import Folds
from dgs_lightning.doctor.images import Trees, val_fraction
from dgs_lightning.doctor.settings import setting
from dgs_lightning.experiment.settings import Experiment
from dgs_lightning.experiment.stage import Stage
from dgs_lightning.models.codec import latent_shape
from dgs_lightning.models.dit.formats import dit_config
from dgs_lightning.models.dit.network import DiTConfig
from dgs_lightning.tasks.diffusion_settings import ModelSize
from dgs_lightning.tasks.protocol import published_epochs

LIGHTNING_EPOCHS, EVALUATIONS = 1_000, 100  # of a trainer and of PublishedLength without settings
DIGIT_IMAGES = 1_797
TRAINING = 3  # forward passes that take as long as one forward and backward


@dataclass(frozen=True)
class Classifier:
    """A network that is trained.

    Args:
        name: Its name.
        side: Side of its images in pixels.
        width: Channels of a ConvNet.
    """

    name: str
    side: int
    width: int


@dataclass(frozen=True)
class Scale:
    """Size of the data.

    Args:
        classes: Number of classes.
        train: Training images.
        val: Validation images.
        side: Side of the images in pixels at the working size.
        channels: Their channels.
        pool: Images of a pool that was made elsewhere.
    """

    classes: int
    train: int
    val: int
    side: int
    channels: int
    pool: int = 0

    @property
    def image_bytes(self) -> int:
        """Bytes of an image, decoded; a PNG file seldom has more."""
        return self.side**2 * self.channels


@dataclass(frozen=True)
class Work:
    """One stage's share of the work.

    Args:
        stage: Name of the stage.
        what: What is counted.
        count: How many.
        passes: Images through the network, forward; none are counted where the work is quick.
        network: The network, a DiT by its architecture; none where that is not known.
    """

    stage: str
    what: str
    count: int
    passes: int = 0
    network: Classifier | DiTConfig | None = None


def scale_of(experiment: Experiment, trees: Trees) -> Scale | None:
    """Size of the data; none where there are none."""
    fraction = val_fraction(experiment)
    if experiment.data == DIGITS:
        return Scale(10, round(DIGIT_IMAGES * (1 - fraction)), round(DIGIT_IMAGES * fraction), 8, 1)
    tree = next((trees[role] for role in ("train", "data", "original", "pool") if role in trees), None)
    if tree is None:
        return None
    image = load_image(tree.sample()[0])
    side, channels = experiment.image_size or min(image.size), 1 if is_grey(image) else 3
    images, val = len(tree.records), len(trees["val"].records) if "val" in trees else 0
    if tree.role == "data":
        images, val = round(images * (1 - fraction)), round(images * fraction)
    return Scale(len(tree.labels), images, val, side, channels, len(trees["pool"].records) if "pool" in trees else 0)


def dit_of(experiment: Experiment, stages: Sequence[Stage], scale: Scale) -> DiTConfig | None:
    """Architecture of the DiT: the given one's, or that of the one trained from scratch."""
    if experiment.dit is not None:
        return dit_config(experiment.dit)
    stage = next((stage for stage in stages if stage.name == "pretrain"), None)
    if stage is None:
        return None
    size = ModelSize.of(stage.config["model"]["init_args"].get("size", {}))
    return size.config(latent_shape(experiment.codec, scale.side, scale.channels), scale.classes)


# ---- stage by stage ----------------------------------------------------------------------------------------------


def works_of(stages: Sequence[Stage], scale: Scale, dit: DiTConfig | None) -> Iterator[Work]:
    """The work of each stage."""
    for stage in stages:
        if task_of(stage) in COUNTED:
            work = COUNTED[task_of(stage)](stage, scale)
            yield replace(work, network=work.network or dit)


def task_of(stage: Stage) -> str:
    """Name of a stage's task; empty where it has none."""
    return str(stage.config.get("model", {}).get("class_path", "")).rpartition(".")[2]


def _encoding(stage: Stage, scale: Scale) -> Work:
    return Work(stage.name, "images encoded", scale.train)


def _scoring(stage: Stage, scale: Scale) -> Work:
    made = next((needed for needed in stage.needs if task_of(needed) == "GenerationTask"), None)
    given = {"scores/pool": scale.pool, "scores/val": scale.val}.get(stage.name, scale.train)
    return Work(stage.name, "images scored", given if made is None else generated(made, scale))


def generated(stage: Stage, scale: Scale) -> int:
    """Images that a stage generates."""
    return scale.classes * int(setting(stage, "data", "images_per_class"))


def _generation(stage: Stage, scale: Scale) -> Work:
    images, branches = generated(stage, scale), 1 if setting(stage, "model", "guidance_scale") == 1 else 2
    steps = int(setting(stage, "model", "steps"))
    return Work(stage.name, f"images generated in {steps} steps", images, images * steps * branches)


def _dit_training(stage: Stage, scale: Scale) -> Work:
    trainer, batch = stage.config["trainer"], int(setting(stage, "data", "batch_size"))
    steps = int(trainer.get("max_steps", -1))
    if steps < 0:
        steps = int(trainer.get("max_epochs") or 1000) * max(1, scale.train // batch)
    return Work(stage.name, f"training steps of the DiT on {batch} images", steps, TRAINING * steps * batch)


def _classification(stage: Stage, scale: Scale) -> Work:
    images, batch = train_images(stage, scale), int(setting(stage, "data", "batch_size"))
    epochs, evaluations = _length(stage, scale, images, math.ceil(images / batch))
    side = setting(stage, "data", "image_size") or scale.side
    passes = TRAINING * epochs * images + evaluations * scale.val
    network = Classifier(setting(stage, "model", "network"), side, setting(stage, "model", "width"))
    return Work(stage.name, "networks trained", 1, passes, network)


def _length(stage: Stage, scale: Scale, images: int, batches: int) -> tuple[int, int]:
    """Epochs of a classifier's training, and the number of evaluations in it."""
    trainer, named = stage.config["trainer"], callback_settings(stage, "PublishedLength")
    published = named or {}
    limits = [trainer["max_epochs"]] if trainer.get("max_epochs", -1) not in (None, -1) else []
    if (steps := trainer.get("max_steps", -1)) != -1:
        limits.append(math.ceil(steps / batches))
    if not limits and named is None:
        limits = [LIGHTNING_EPOCHS]
    elif not limits and (steps := published.get("steps")) is not None:
        limits = [math.ceil(steps / batches)]
    epochs = min(limits, default=published.get("epochs"))
    epochs = epochs or published_epochs(images / scale.classes, scale.classes)
    interval = trainer.get("check_val_every_n_epoch") or 1
    if interval == 1 and named is not None:
        interval = max(1, epochs // published.get("evaluations", EVALUATIONS))
    return epochs, epochs // interval


def callback_settings(stage: Stage, name: str) -> dict[str, Any] | None:
    """Settings of a callback that a stage names; none where it does not."""
    for callback in stage.config["trainer"].get("callbacks") or []:
        if isinstance(callback, dict) and str(callback.get("class_path")).rpartition(".")[2] == name:
            return dict(callback.get("init_args") or {})
    return None


def train_images(stage: Stage, scale: Scale) -> int:
    """Images that a classifier is trained on."""
    distilled = re.search(r"-ipc(\d+)/", stage.name)
    if distilled:
        return int(distilled[1]) * scale.classes
    folds = Folds.of(setting(stage, "data", "cross_fitting") or {}).folds
    return scale.train * (folds - 1) // folds if folds else scale.train


COUNTED = {
    "EncodingTask": _encoding,
    "DiffusionTask": _dit_training,
    "MinimaxTask": _dit_training,
    "GenerationTask": _generation,
    "ScoringTask": _scoring,
    "ClassificationTask": _classification,
}
