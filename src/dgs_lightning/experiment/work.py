"""The work of an experiment, as its tasks count it: stage by stage, in the order of the plan."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dgs_lightning.bounds import with_defaults
from dgs_lightning.commands.crops import crops
from dgs_lightning.data.images import FULL, is_grey, load_image
from dgs_lightning.data.named import known_set
from dgs_lightning.data.sources import SPLITS
from dgs_lightning.data.splits import split_sizes
from dgs_lightning.experiment.images import Trees, classes_from, val_fraction
from dgs_lightning.experiment.settings import Experiment
from dgs_lightning.experiment.stage import Stage
from dgs_lightning.models.codec import latent_shape
from dgs_lightning.models.dit.network import DiTConfig
from dgs_lightning.models.trial import Classifier
from dgs_lightning.runs import layout
from dgs_lightning.tasks.work import Inputs, Work, work_of


def inputs_of(experiment: Experiment, trees: Trees) -> Inputs | None:
    """Sizes of the images that an experiment starts from and of those that it prepares; ``None`` without images."""
    known = known_set(experiment.data or "")
    if known is not None:
        counts, side, channels = list(known.counts), experiment.image_size or known.side, known.channels
    elif tree := classes_from(trees):
        image = load_image(tree.folder / tree.records[0].file_name, value_range=FULL)  # any will do for sizes
        counts = list(tree.counts.values())
        side, channels = experiment.image_size or min(image.size), 1 if is_grey(image) else 3
    else:
        return None
    images = {tree.folder.as_posix(): len(tree.records) for tree in trees.values()}
    if experiment.prepare is not None:
        split = split_sizes(counts, val_fraction(experiment))
        if known is not None and known.val is not None:
            split = (sum(counts), known.val)
        for name, size in zip(SPLITS, split, strict=True):
            images[_folder(experiment, f"{layout.DATA}/{name}")] = len(trees[name].records) if name in trees else size
    return Inputs(len(counts), side, channels, latent_shape(experiment.codec, side, channels), images)


def resolved(stages: Sequence[Stage], experiment: Experiment) -> list[Stage]:
    """Stages with the paths that their settings have in the run's folder."""
    output = Path(experiment.output or "runs")
    return [replace(stage, config=stage.settings(output)) for stage in stages]


def work_by_stage(experiment: Experiment, stages: Sequence[Stage], inputs: Inputs) -> dict[str, Work]:
    """The work of each stage that is counted, by its name. What a stage makes is added to the inputs of later ones."""
    works = {}
    for stage in stages:
        if work := _work(experiment, stage, inputs):
            inputs.images[_folder(experiment, stage.name)] = work.images
            if isinstance(work.network, DiTConfig):
                inputs.dits[_folder(experiment, layout.weights(stage.name))] = work.network
            elif isinstance(work.network, Classifier):
                inputs.surrogates[_folder(experiment, layout.influence(stage.name))] = work.network
            works[stage.name] = work
    return works


def _work(experiment: Experiment, stage: Stage, inputs: Inputs) -> Work | None:
    """The work of a stage; ``None`` if it is not counted."""
    if stage.command == "prepare":
        images = sum(inputs.count(_folder(experiment, f"{layout.DATA}/{name}")) for name in SPLITS)
    elif stage.command == "select":
        available, share = inputs.count(stage.config["pool"]), stage.config.get("share")
        wanted = inputs.classes * int(stage.config["ipc"]) if share is None else int(share * available)
        images = min(wanted, available or wanted)
    elif stage.command == "crops":
        drawn = with_defaults(crops, stage.config)["mipc"]  # None: all images
        images = inputs.count(stage.config["images"]) if drawn is None else inputs.classes * drawn
    elif stage.command in ("stitch", "import"):
        images = inputs.classes * int(stage.config["ipc"])
    else:
        return work_of(stage.config, inputs) if "model" in stage.config else None
    return Work("", images=images, disk=images * inputs.image_bytes)


def _folder(experiment: Experiment, path: str) -> str:
    """A folder of the run, as the settings of resolved stages name it."""
    return (Path(experiment.output or "runs") / path).as_posix()
