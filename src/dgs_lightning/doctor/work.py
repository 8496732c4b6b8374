"""The work of an experiment, as its tasks count it: stage by stage, in the order of the plan."""

from collections.abc import Sequence
from math import inf
from pathlib import Path

import dgs_lightning
from dgs_lightning.bounds import with_defaults
from dgs_lightning.commands.prepare import DIGIT_COUNTS, DIGIT_SIDE, SPLITS
from dgs_lightning.configs import class_name
from dgs_lightning.data.images import is_grey, load_image
from dgs_lightning.data.splits import split_sizes
from dgs_lightning.doctor.images import Trees, are_digits, classes_from, val_fraction
from dgs_lightning.experiment.settings import Experiment
from dgs_lightning.experiment.stage import Settings, Stage
from dgs_lightning.models.codec import latent_shape
from dgs_lightning.runs import layout
from dgs_lightning.tasks.work import WORK, Inputs, Transformer, Work


def inputs_of(experiment: Experiment, trees: Trees) -> Inputs | None:
    """Sizes of the images that an experiment starts from and of those that it prepares; ``None`` without images."""
    if are_digits(experiment):
        counts, side, channels = list(DIGIT_COUNTS), experiment.image_size or DIGIT_SIDE, 1
    elif tree := classes_from(trees):
        image = load_image(tree.sample()[0])
        counts = list(tree.counts.values())
        side, channels = experiment.image_size or min(image.size), 1 if is_grey(image) else 3
    else:
        return None
    images = {tree.folder.as_posix(): len(tree.records) for tree in trees.values()}
    if experiment.prepare is not None:
        split = split_sizes(counts, val_fraction(experiment))
        for name, size in zip(SPLITS, split, strict=True):
            images[_folder(experiment, f"{layout.DATA}/{name}")] = len(trees[name].records) if name in trees else size
    return Inputs(len(counts), side, channels, latent_shape(experiment.codec, side, channels), images)


def works_of(experiment: Experiment, stages: Sequence[Stage], inputs: Inputs) -> dict[str, Work]:
    """The work of each stage that is counted, by its name. What a stage makes is added to the inputs of later ones."""
    works = {}
    for stage in stages:
        work = _work(experiment, stage, inputs)
        if work is not None:
            inputs.images[_folder(experiment, stage.name)] = work.images
            if isinstance(work.network, Transformer):
                inputs.dits[_folder(experiment, layout.weights(stage.name))] = work.network
            works[stage.name] = work
    return works


def settings_of(stage: Stage, part: str) -> Settings | None:
    """All settings of a stage's ``model`` or ``data``, defaults included; ``None`` if its class is not ours."""
    section = stage.config.get(part) or {}
    kind = getattr(dgs_lightning, class_name(section) or "", None)
    return None if kind is None else with_defaults(kind, section.get("init_args") or {})


def _work(experiment: Experiment, stage: Stage, inputs: Inputs) -> Work | None:
    """The work of a stage; ``None`` if it is not counted."""
    images = 0
    if stage.command == "prepare":
        images = sum(inputs.count(_folder(experiment, f"{layout.DATA}/{name}")) for name in SPLITS)
    if stage.command == "select":
        images = int(min(inputs.classes * int(stage.config["ipc"]), inputs.count(stage.config["pool"]) or inf))
    if images:
        return Work("", images=images, disk=images * inputs.image_bytes)
    model, data = settings_of(stage, "model"), settings_of(stage, "data")
    counted = WORK.get(class_name(stage.config.get("model")) or "")
    if model is None or data is None or counted is None:
        return None
    return counted(model, data, stage.config["trainer"], inputs)


def _folder(experiment: Experiment, path: str) -> str:
    """A folder of the run, as the settings of resolved stages name it."""
    return (Path(experiment.output or "runs") / path).as_posix()
