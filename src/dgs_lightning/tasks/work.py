"""Work and space that each task takes, from its settings and the size of its inputs. Nothing is built or run."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

import dgs_lightning
from dgs_lightning.bounds import with_defaults
from dgs_lightning.configs import class_name
from dgs_lightning.data.latents import CacheSettings
from dgs_lightning.datamodules.batches import settled_batch_size
from dgs_lightning.datamodules.images import whole_and_subsets
from dgs_lightning.diffusion.memory import memory_bytes
from dgs_lightning.errors import InputError
from dgs_lightning.matching.schedules import BATCH_STORED
from dgs_lightning.models.activations import guided_step_bytes
from dgs_lightning.models.codec import keeps_variances, latent_shape
from dgs_lightning.models.dit.difffit import Trained, prepare_training
from dgs_lightning.models.dit.formats import dit_config
from dgs_lightning.models.dit.network import DiT, DiTConfig
from dgs_lightning.models.registry import has_batch_norm
from dgs_lightning.models.trial import Classifier, Network, kept_bytes
from dgs_lightning.tasks.diffusion import TRAINING, ModelSize
from dgs_lightning.tasks.distribution_matching import DistributionMatchingTask, classes_at_once
from dgs_lightning.tasks.generation import start_index
from dgs_lightning.tasks.gradient_matching import GradientMatchingTask
from dgs_lightning.tasks.learned_images import LearnedImages
from dgs_lightning.tasks.protocol import EVALUATIONS, asked_epochs, epochs_of, evaluation_interval
from dgs_lightning.tasks.refinement import Refinement
from dgs_lightning.tasks.size import DataSize, steps_by_size

Settings = Mapping[str, Any]
REFINING = 2  # forward passes that take as long as one for the gradient of latents alone
SECOND = 9  # forward passes that take as long as a gradient of a gradient
FLOAT = 4  # bytes of a parameter
SMALLER_MEMORIES = "finetune.model.init_args.criteria.memory_dtype=bfloat16"
LEARNED = 3  # copies of learned images: themselves, gradient, momentum
IN_TRAINING = 4  # further copies of a trained parameter: gradient, two of Adam, moving average
ON_DISK = 6  # copies of it: itself, two of Adam and the average in a checkpoint; raw and averaged as weights
_INFLUENCE = "InfluenceGuidance"  # by its name, since it stands above the tasks
UNLIMITED = {"max_epochs": None, "max_steps": -1, "limit_train_batches": 1.0, "accumulate_grad_batches": 1}
LIGHTNING_EPOCHS = 1_000  # of a trainer without any limit


@dataclass
class Inputs:
    """Sizes of the inputs of tasks."""

    classes: int  # number of classes
    side: int  # of the images, in pixels
    channels: int  # of the images
    latent_shape: tuple[int, int, int]  # (C, h, w)
    images: dict[str, int]  # number of images or latents in each folder
    dits: dict[str, DiTConfig] = field(default_factory=dict)  # not trained yet, by their folder of weights
    surrogates: dict[str, Classifier] = field(default_factory=dict)  # by the folder of their influence

    @property
    def image_bytes(self) -> int:
        """Bytes of a decoded image. A PNG file rarely has more."""
        return self.side**2 * self.channels

    def count(self, folder: str | None) -> int:
        """Number of images or latents in a folder; 0 for an unknown folder."""
        return 0 if folder is None else self.images.get(Path(folder).as_posix(), 0)


@dataclass(frozen=True)
class Work:
    """Work and space that a stage takes."""

    what: str  # the things that are counted; empty if they are made too quickly to count
    count: int = 0  # the number of these things
    passes: int = 0  # images that pass forward through the network; 0 if they are not counted
    network: Network | None = None  # None if its architecture is not known
    images: int = 0  # images or latents that the stage writes into its folder
    files: str = "images"  # kind of its large files
    disk: int = 0  # bytes of its large files
    memory: int = 0  # bytes in memory; activations of a DiT's training are not counted
    memory_for: str = "training the DiT, activations aside"
    less_memory: str = f"Keep smaller memories ({SMALLER_MEMORIES})"


def work_of(config: Settings, inputs: Inputs) -> Work | None:
    """Work of a ``dgs fit`` or ``dgs predict`` with these settings; ``None`` if its task is not one of this package."""
    model, data = settings_of(config["model"]), settings_of(config["data"])
    work = _WORK.get(class_name(config["model"]) or "")
    return work(model, data, config["trainer"], inputs) if model and data and work else None


def settings_of(section: Settings) -> Settings | None:
    """All settings in a section ``model`` or ``data``, defaults included; ``None`` for a class of another package."""
    name = class_name(section)
    kind = getattr(dgs_lightning, name) if name in dgs_lightning.__all__ else None
    return None if kind is None else with_defaults(kind, section.get("init_args") or {})


def encoding(model: Settings, data: Settings, trainer: Settings, inputs: Inputs) -> Work:
    """Work of ``EncodingTask``: the latents of each image."""
    images, codec = inputs.count(data["predict"]), model["codec"]
    shape, flips = latent_shape(codec, inputs.side, inputs.channels), 2 if model["flips"] else 1
    cache = CacheSettings("", "", shape, keeps_variances(codec), flips, model["dtype"])
    return Work("images encoded", images, images=images, files="latent cache", disk=cache.bytes_for(images))


def inversion(model: Settings, data: Settings, trainer: Settings, inputs: Inputs) -> Work:
    """Work of ``InversionTask``: that of the encoding, and the denoising steps that are inverted."""
    work, steps = encoding(model, data, trainer, inputs), model["index"] + 1
    passes = _denoising(work.count * (2 if model["flips"] else 1) * steps, model)
    return replace(work, what=f"images inverted in {steps} steps", passes=passes, network=_dit(model, inputs))


def diffusion(model: Settings, data: Settings, trainer: Settings, inputs: Inputs) -> Work:
    """Work of ``DiffusionTask`` and ``MinimaxTask``: training steps, and the memories of the criteria."""
    batch, steps, dit = data["batch_size"], trainer.get("max_steps", -1), _dit(model, inputs)
    images, epochs = max(1, inputs.count(data["cache"])), trainer.get("max_epochs")
    if (steps, epochs) == (-1, -1) and (length := _of_callback(trainer, "StepsBySize")):
        size = DataSize(images, inputs.classes, inputs.latent_shape[-1])
        steps = steps_by_size(length["steps"], DataSize.of(length["meant_for"]), size)
    if steps < 0:
        steps = (epochs or LIGHTNING_EPOCHS) * max(1, images // batch)
    work = Work(f"training steps of the DiT on {batch} images", steps, TRAINING * steps * batch, dit)
    if dit is None:
        return work
    total, trained = parameters(dit, model["train"] if model["dit"] else "full")
    memories, values = 0, math.prod(dit.latent_shape)
    if criteria := model.get("criteria"):
        dtype = getattr(torch, criteria["memory_dtype"])
        memories = 2 * memory_bytes(inputs.classes, criteria["memory_size"], values, dtype)  # of real and generated
    disk, memory = FLOAT * ON_DISK * trained + memories, FLOAT * (total + IN_TRAINING * trained) + memories
    return replace(work, files="DiT checkpoints", disk=disk, memory=memory)


def parameters(dit: DiTConfig, train: Trained) -> tuple[int, int]:
    """Numbers of parameters of a DiT with the setting ``train`` of ``DiffusionTask``: all, and those that it trains."""
    with torch.device("meta"):
        prepare_training(model := DiT(dit), train)
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return sum(size for size, _ in sizes), sum(size for size, trained in sizes if trained)


def _dit(model: Settings, inputs: Inputs) -> DiTConfig | None:
    """Architecture of the DiT that a task loads or makes; ``None`` if it is not known."""
    if not model["dit"]:
        return ModelSize.of(model["size"]).config(inputs.latent_shape, inputs.classes)
    return inputs.dits.get(model["dit"]) or dit_config(model["dit"])


def generation(model: Settings, data: Settings, trainer: Settings, inputs: Inputs) -> Work:
    """Work of ``GenerationTask``: denoising steps, each with two passes under classifier-free guidance.

    A step of influence guidance goes through the network once more, and back.
    """
    images, steps, dit = inputs.classes * data["images_per_class"], model["steps"], _dit(model, inputs)
    if data["images"] is not None:
        images = inputs.count(data["images"])
    if start := _started(trainer, "PrototypeStart"):
        steps = start_index(steps, start["strength"]) + 1
    elif start := _started(trainer, "InvertedStart"):
        steps = start["index"] + 1
    disk, guided, memory = images * inputs.image_bytes, 0, 0
    if (own := _of_callback(trainer, _INFLUENCE)) is not None:
        guidance = with_defaults(getattr(dgs_lightning, _INFLUENCE), own)
        guided = len(range(guidance["last"], min(guidance["first"], steps - 1) + 1)) if guidance["scale"] else 0
        disk += images * FLOAT * math.prod(inputs.latent_shape)
        if guided and dit is not None:
            surrogate = inputs.surrogates.get(Path(guidance["surrogate"]).as_posix())
            memory = guided_step_bytes(dit, model["codec"], surrogate, guidance["chunk"], model["checkpointing"])
    passes = _denoising(images * (steps + TRAINING * guided), model)
    work = Work(f"images generated in {steps} steps", images, passes, dit, images, disk=disk, memory=memory)
    smaller = "Set generate.model.init_args.checkpointing=true, or a smaller options.igd.chunk"
    return replace(work, memory_for="the gradients of a step of IGD, weights aside", less_memory=smaller)


def _denoising(steps: int, model: Settings) -> int:
    """Forward passes of denoising steps of images: two for each under classifier-free guidance."""
    return steps * (1 if model["guidance_scale"] == 1 else 2)


def _started(trainer: Settings, kind: str) -> Settings | None:
    """All settings of a trainer's callback of a class, defaults included; ``None`` where there is no such callback."""
    found = _of_callback(trainer, kind)
    return None if found is None else settings_of({"class_path": kind, "init_args": found})


def refinement(model: Settings, data: Settings, trainer: Settings, inputs: Inputs) -> Work:
    """Work of ``RefinementTask``: generation, steps of the refinement, and its measures before and after them."""
    work, settings = generation(model, data, trainer, inputs), Refinement.of(model["refinement"])
    passes = work.passes + work.count * (REFINING * settings.steps + 2 * settings.last_index)
    work = replace(work, what=f"images refined in {settings.steps} steps", passes=passes)
    if (dit := _dit(model, inputs)) is None:
        return work
    batch = 1 if data["batch_size"] == "auto" else min(data["batch_size"], max(1, work.count))
    memory = FLOAT * parameters(dit, "full")[0] + batch * kept_bytes(dit)
    smaller = "Set a smaller batch_size, or auto, in options.METHOD.data.init_args"
    return replace(work, memory=memory, memory_for="refining a batch of latents", less_memory=smaller)


def scoring(model: Settings, data: Settings, trainer: Settings, inputs: Inputs) -> Work:
    """Work of ``ScoringTask``: the difficulty of each image."""
    return Work("images scored", inputs.count(data["predict"]))


def classification(model: Settings, data: Settings, trainer: Settings, inputs: Inputs) -> Work:
    """Work of ``ClassificationTask``: epochs on the training images, and evaluations on the validation images."""
    images = inputs.count(data["train"])
    if folds := data["cross_fitting"]["folds"]:
        images = images * (folds - 1) // folds
    side = data["image_size"] or inputs.side
    size = DataSize(max(1, images), inputs.classes, side)
    batch_size = settled_batch_size(data["batch_size"], images, inputs.classes)
    epochs, evaluations = training_length(trainer, batch_size, size)
    if trainer.get("limit_val_batches") == 0:
        evaluations = 0
    passes = TRAINING * epochs * images + evaluations * inputs.count(whole_and_subsets(data["val"])[0])
    network = Classifier(model["network"], inputs.classes, side, inputs.channels, model["width"])
    return Work("networks trained", 1, passes, network)


def matching(kind: type[LearnedImages], model: Settings, data: Settings, trainer: Settings, inputs: Inputs) -> Work:
    """Work of the tasks that learn images: steps on the images, and the training of networks between them."""
    task, steps, learned = kind(**model), max(trainer.get("max_steps", -1), 0), model["images"]
    images = inputs.classes * learned["ipc"] * learned["factor"] ** 2
    real = min(inputs.classes * task.batch_real, inputs.count(data["train"]))
    if isinstance(task, GradientMatchingTask):
        fitting = task.fitting
        fitted = fitting.seen + fitting.epochs * images + fitting.early * inputs.count(data["train"]) // fitting.rounds
        step = TRAINING * (real + fitted) + SECOND * images
    else:
        step = real + TRAINING * images
    side = data["image_size"] or inputs.side
    network = Classifier(model["network"], inputs.classes, side, inputs.channels, model["width"])
    size = side**2 * inputs.channels
    disk, memory = images * size * (1 + FLOAT), images * size * FLOAT * LEARNED + _kept(task, network, real)
    work = Work("steps on images", steps, steps * step, network, images, disk=disk, memory=memory)
    return replace(work, memory_for="learning images", less_memory="Take fewer images per class, or a smaller network")


def _kept(task: LearnedImages, network: Classifier, real: int) -> int:
    """Bytes that autograd keeps in a step on images; 0 for a network that cannot be built, or not be matched.

    ``real`` is the number of real images of a step, of all classes.
    """
    learned, each = task.learned, min(task.batch_real, -(-real // network.classes))
    stored = learned.ipc * learned.factor**2
    try:
        once = kept_bytes(network)
        if not isinstance(task, GradientMatchingTask):
            with torch.device("meta"):
                whole = has_batch_norm(network.build())
            together = network.classes if whole else classes_at_once(task.batch_real + stored, network.side)
            return min(together, network.classes) * stored * once
        matched = min(stored, BATCH_STORED) if task.idc else stored
        return max(each * once, matched * kept_bytes(network, twice=True), task.fitting.batch_size * once)
    except (InputError, RuntimeError):  # it is named elsewhere, or has an operation without second derivative
        return 0


def training_length(trainer: Settings, batch_size: int, size: DataSize) -> tuple[int, int]:
    """Epochs of a classifier's training, and the number of evaluations in it.

    ``trainer`` holds the settings of the trainer, with its callbacks as in YAML; ``size`` is that of the training set.
    """
    given = {name: value for name, value in trainer.items() if value is not None}
    batches, limits = max(1, math.ceil(size.images / batch_size)), SimpleNamespace(**UNLIMITED | given)
    published = _of_callback(given, "PublishedLength")
    interval = trainer.get("check_val_every_n_epoch") or 1
    if (limits.max_epochs, limits.max_steps) == (None, -1):
        limits.max_epochs = LIGHTNING_EPOCHS
    if published is not None and (limits.max_epochs, limits.max_steps) == (-1, -1):
        asked = {name: value for name, value in published.items() if name != "evaluations"}
        limits.max_epochs = asked_epochs(**asked, batches=batches, batch_size=batch_size, size=size)
    epochs = epochs_of(limits, batches) or 0
    if published is not None and interval == 1:
        interval = evaluation_interval(epochs, published.get("evaluations", EVALUATIONS))
    last = published is not None and epochs % interval > 0  # the callback evaluates after the last epoch, too
    return epochs, epochs // interval + last


def _of_callback(trainer: Settings, kind: str) -> Settings | None:
    """Settings of a trainer's last callback of a class; ``None`` where there is no such callback."""
    found = [callback for callback in trainer.get("callbacks") or [] if class_name(callback) == kind]
    return ((isinstance(found[-1], dict) and found[-1].get("init_args")) or {}) if found else None


_WORK: Mapping[str, Callable[[Settings, Settings, Settings, Inputs], Work]] = {
    "EncodingTask": encoding,
    "InversionTask": inversion,
    "DiffusionTask": diffusion,
    "MinimaxTask": diffusion,
    "GenerationTask": generation,
    "RefinementTask": refinement,
    "ScoringTask": scoring,
    "ClassificationTask": classification,
    "DistributionMatchingTask": partial(matching, DistributionMatchingTask),
    "GradientMatchingTask": partial(matching, GradientMatchingTask),
}
