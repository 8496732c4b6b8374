"""The registry of methods: a method is one row here, one config, and its own code.

The plan, the tables, the figures, the names and the documentation read these rows. A method takes images by a rule of
``dgs select``: from the original images, from an image pool of the user's, or from images that stages make which the
row declares. The example registers a method that takes the easiest images of a pool that a stage of its own makes.

Examples:
    >>> from dgs_lightning.runs.methods import METHODS, MadeBy, Method, Use, register
    >>> pool = MadeBy(
    ...     "pools/dreams",
    ...     "predict",
    ...     task="GenerationTask",
    ...     data="RequestDataModule",
    ...     settings={"model.init_args.dit": Use("dit"), "data.init_args.images_per_class": Use("pool_images")},
    ...     writer="ImageWriter",
    ... )
    >>> register(Method("dreams", "Dreams", "#c0ffee", rule="easy", stages=(pool,)))
    >>> METHODS["dreams"].images
    'pools/dreams'
    >>> del METHODS["dreams"]
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from dgs_lightning.errors import InputError

ORIGINALS, GIVEN = "originals", "given"
USES = (
    "train",
    "latents",
    "dit",
    "minimax",
    "guided",
    "codec",
    "decoder",
    "original_scores",
    "previous",
    "labels",
    "ipc",
    "pool_images",
    "seed",
)


@dataclass(frozen=True)
class Use:
    """A value that the plan fills in: a path of the run, a model, or a setting of the experiment.

    Args:
        name: ``train`` (training images), ``latents`` (their latent cache), ``original_scores``; ``dit``, ``minimax``,
            ``guided`` (weights of the pretrained and of the fine-tuned DiT, and of the one that the experiment
            guides); ``codec``, ``decoder``; ``labels`` (class list); ``ipc``; ``pool_images`` (images per class of a
            pool); ``seed``; ``previous``: what the previous stage of the same method makes.
    """

    name: str

    def __post_init__(self) -> None:
        """Check the name.

        Raises:
            ValueError: If the plan has no such value.
        """
        if self.name not in USES:
            raise ValueError(f"the plan has no value {self.name!r}; use one of {', '.join(USES)}")


@dataclass(frozen=True)
class MadeBy:
    """A stage that makes images for a method.

    Args:
        name: Folder of the stage in the run. ``{set}`` stands for the distilled set, such as ``dag-ipc10``; a name
            without it is one stage for all rows and IPCs.
        command: Command of ``dgs`` that the stage runs.
        section: Section of the experiment with the settings of the stage; it may name configs.
        config: Shipped config that the stage starts from, below the section.
        task: Class of the task where neither section nor config names one.
        data: Class of the datamodule, likewise.
        settings: Values that the plan fills in, by dotted key of the stage's YAML. They may be :class:`Use`.
        callback: Class of a callback before those of the section, if any.
        takes: The method's own settings in an experiment, such as ``dag: {stop_timestep: 30}``, that belong to this
            stage: to its callback if it has one, else to its command. None: all of them.
        writer: Callback that writes what a prediction makes into the folder of the stage.
        file: Name of the file that the stage makes in its folder; empty where the folder is what it makes.
    """

    name: str
    command: str
    section: str | None = None
    config: str | None = None
    task: str | None = None
    data: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    callback: str | None = None
    takes: tuple[str, ...] | None = None
    writer: str | None = None
    file: str = ""


@dataclass(frozen=True)
class Method:
    """One method of the table.

    Args:
        key: Name in experiments and paths.
        title: Name in tables and figures.
        colour: Colour in figures, ``#rrggbb``.
        rule: Rule of ``dgs select`` that takes the set from the images; None for the whole training set, and for a
            method that is not computed here.
        source: Where the method comes from.
        pool: Where the images come from: ``originals``; ``given``, the user's own pool; or the key of another method,
            whose images are used.
        stages: Stages that make the images, in order; the last one makes the images that the rule takes from.
        compared_with: Key of the method that this one adds difficulty guidance to; a pair is compared seed by seed.
        published: Key of the method in the paper's tables; the key itself by default.
        pictured: Whether the report has figures of the images of its sets.
        quoted: Whether the method appears as published numbers alone.
    """

    key: str
    title: str
    colour: str
    rule: str | None = None
    source: str = ""
    pool: str = ORIGINALS
    stages: tuple[MadeBy, ...] = ()
    compared_with: str | None = None
    published: str = ""
    pictured: bool = False
    quoted: bool = False

    @property
    def images(self) -> str:
        """``originals``, ``given``, or the folder (with ``{set}``) of the images that the rule takes from."""
        if self.stages:
            return self.stages[-1].name
        return self.pool if self.pool in (ORIGINALS, GIVEN) else METHODS[self.pool].images

    @property
    def made_by(self) -> tuple[MadeBy, ...]:
        """Stages that make the images, this method's own or those of the method whose pool it uses."""
        if self.stages or self.pool in (ORIGINALS, GIVEN):
            return self.stages
        return METHODS[self.pool].made_by

    @property
    def family(self) -> str:
        """What the method competes with in a table: methods on the same images, with or without a guidance."""
        return self.images if self.images in (ORIGINALS, GIVEN) else self.compared_with or self.key


def register(method: Method) -> None:
    """Add a method to the registry, as the last row.

    Raises:
        InputError: If the key is taken, or cannot be the name of a folder, or the row refers to an unknown method.
    """
    problem = None
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", method.key):
        problem = "a key that is not letters, digits and underscores"
    elif method.key in METHODS:
        problem = "a key that another method has"
    elif unknown := [
        key for key in (method.compared_with, method.pool) if key not in (None, ORIGINALS, GIVEN, *METHODS)
    ]:
        problem = f"the unknown method {unknown[0]}"
    if problem:
        raise InputError(f"method {method.key!r}", problem, "a new row of known methods", "Correct the row")
    METHODS[method.key] = method


def markdown_table() -> str:
    """The methods that can be run, as a table for the documentation."""
    lines = ["| method | `methods:` | images from | rule of `dgs select` | source |", "| --- | --- | --- | --- | --- |"]
    for method in METHODS.values():
        if not method.quoted:
            rule = f"`{method.rule}`" if method.rule else "all training images"
            lines.append(f"| {method.title} | `{method.key}` | `{method.images}` | {rule} | {method.source} |")
    return "\n".join(lines) + "\n"


def _pool(model: str) -> MadeBy:
    """Stage that generates the image pool of a DiT."""
    settings = {
        "model.init_args.dit": Use(model),
        "model.init_args.codec": Use("decoder"),
        "data.init_args.seed": Use("seed"),
        "data.init_args.images_per_class": Use("pool_images"),
        "data.init_args.labels": Use("labels"),
    }
    return MadeBy(
        f"pools/{model}",
        "predict",
        section="generate",
        task="GenerationTask",
        data="RequestDataModule",
        settings=settings,
        writer="ImageWriter",
    )


def _guided(callback: str, centers: Mapping[str, Any], takes: tuple[str, ...] = ()) -> tuple[MadeBy, MadeBy]:
    """Stages that compute cluster centres and generate a set under guidance, one image for each centre."""
    pool = _pool("guided")
    computed = MadeBy(
        "centers/{set}",
        "centers",
        settings={"latents": Use("latents"), "labels": Use("labels"), "ipc": Use("ipc"), **centers},
        takes=("seed", *takes),
        file="centers.safetensors",
    )
    requests = {"data.init_args.images_per_class": Use("ipc"), "data.init_args.centers": Use("previous")}
    generated = replace(
        pool,
        name="guided/{set}",
        settings={**pool.settings, **requests},
        callback=callback,
        takes=("scale", "stop_timestep", "form"),
    )
    return computed, generated


_PAPER = "Li et al., difficulty-guided sampling"
METHODS: dict[str, Method] = {
    method.key: method
    for method in (
        Method("random", "Random", "#ccd2d8", "random", "uniform draw"),
        Method("kcenter", "K-Center", "#b7bfc7", "kcenter", "Sener and Savarese, ICLR 2018"),
        Method("herding", "Herding", "#a2acb6", "herding", "Welling, ICML 2009"),
        Method("kmeans", "K-Means", "#8e99a5", "kmeans", "images nearest to k-means centres"),
        Method("ccs", "CCS", "#7a8794", "ccs", "Zheng et al., ICLR 2023"),
        Method("dgs_ori", "DGS (Ori)", "#4a5763", "dgs", _PAPER, compared_with="random", pictured=True),
        Method("dm", "DM", "#7a8794", source="Zhao and Bilen, WACV 2023", quoted=True),
        Method("idc1", "IDC-1", "#7a8794", source="Kim et al., ICML 2022", quoted=True),
        Method("d4m", "D4M", "#7a8794", source="Su et al., CVPR 2024", quoted=True),
        Method("dit", "DiT", "#93c8be", "first", "Peebles and Xie, ICCV 2023", stages=(_pool("dit"),)),
        Method("dit_dgs", "DiT + DGS", "#2b8477", "dgs", _PAPER, "dit", compared_with="dit", pictured=True),
        Method("minimax", "Minimax", "#94bbe0", "first", "Gu et al., CVPR 2024", stages=(_pool("minimax"),)),
        Method(
            "minimax_dgs", "Minimax + DGS", "#1f5a92", "dgs", _PAPER, "minimax", compared_with="minimax", pictured=True
        ),
        Method("pool", "Pool", "#d9c9a8", "first", "a pool of the user's", GIVEN),
        Method("pool_dgs", "Pool + DGS", "#9a7a34", "dgs", _PAPER, GIVEN, compared_with="pool", pictured=True),
        Method(
            "mgd3",
            "MGD3",
            "#d7a0c0",
            "all",
            "Chan-Santiago et al., ICML 2025",
            stages=_guided("ModeGuidance", {}),
            pictured=True,
        ),
        Method(
            "dag",
            "DAG",
            "#9b4a7a",
            "all",
            _PAPER,
            stages=_guided("DifficultyAwareGuidance", {"scores": Use("original_scores")}, ("smoothing", "intervals")),
            compared_with="mgd3",
            pictured=True,
        ),
        Method("full", "Full dataset", "#22303c", source="all training images"),
    )
}
"""The methods by key, in the order of the tables."""
