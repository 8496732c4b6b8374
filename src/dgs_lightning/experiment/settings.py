"""An experiment file: what to distil, with which methods, and how each kind of stage is run."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Annotated, Any, Literal, get_origin, get_type_hints

from dgs_lightning.bounds import Between, check_bounds
from dgs_lightning.configs import find_config, load_config, merge
from dgs_lightning.data.named import check_name
from dgs_lightning.data.trees import Links
from dgs_lightning.documents.shapes import FolderName, check_shape, words
from dgs_lightning.documents.texts import Unreadable
from dgs_lightning.errors import InputError, listed
from dgs_lightning.experiment.changes import parsed_change
from dgs_lightning.experiment.cluster import RaySettings
from dgs_lightning.experiment.given_sets import check_sets, own_ipc, settings_of_set
from dgs_lightning.runs.ddranking import WEIGHT, ScoreName, check_scores
from dgs_lightning.runs.fingerprints import Kind
from dgs_lightning.runs.methods import METHODS
from dgs_lightning.seeding import REPEATS

Settings = dict[str, Any]


@dataclass
class Experiment:
    """Settings of an experiment, as in its YAML file. The key ``base`` of a file names another one to start from.

    The sections (``latents`` to ``evaluate``) say how a kind of stage runs. A section is the YAML of the stage's
    ``dgs`` command. Its key ``config`` names files to start from, shipped ones or the user's.

    Args:
        title: One line on what the experiment shows.
        methods: Rows of the table: keys of ``dgs_lightning.runs.methods.METHODS``, names of ``variants``, and
            ``set:NAME`` for one of the ``sets``.
        ipc: Images per class, one number or several.
        name: Name of the experiment; that of its file by default.
        output: Folder of the run; ``runs/NAME`` by default.
        data: A folder with ``train`` and ``val``; one tree of class folders; or the name of a data set, such as
            ``digits``, ``fashion_mnist`` or ``torchvision:NAME`` (see ``dgs prepare``).
        root: Folder with the files of a data set by name; see ``dgs prepare``.
        original: Scored originals where there is no ``data`` to prepare: a tree of class folders.
        pool: An image pool made elsewhere: a tree of class folders.
        val: Validation images in place of those of ``data``: a tree of class folders.
        sets: Sets of other people by name: ``{NAME: {path: FILE, ...}}`` with settings of ``dgs import``; ``ipc`` says
            which one of several the set has.
        links: ``follow`` reads the images and class folders that links in ``data``, ``original`` and ``pool`` lead to.
            By default, links to folders and out of them are an error. They always are in a folder with a manifest.
        classes: Name of a class list (``imagewoof``, ...) that the data are checked against.
        networks: Downstream networks that are trained on each distilled set; none: nothing is trained.
        protocols: How they are trained: ``hard``, with the labels of the images (section ``evaluate``); ``soft``, with
            the soft labels of a teacher (section ``soft``); or both, side by side.
        teacher: Classifier that gives soft labels: ``torchvision:NAME``, ``timm:NAME`` or a folder of trained weights;
            none: the one of the section ``judge``, which is trained on the originals.
        teacher_weights: Local file of the named teacher's weights; by default they come from its hub.
        scores: Scores of DD-Ranking for each row: ``lrs`` (label-robust score), ``ars`` (augmentation-robust score), or
            both. Trainings that a score compares and that no row has are added.
        lrs_weight: Weight w of LRS, from 0 to 1: that of the gain over random images; the recovery of the full data
            set with the labels of the images has 1 - w.
        ars_weight: Weight gamma of ARS, from 0 to 1: that of the gain with data augmentation; the gain without has
            1 - gamma.
        seed: Seed of everything; image ``i`` of a class has a seed of its own derived from it.
        draws: Independent image pools and distilled sets of each method in which chance has a part. The estimator, the
            latents, the DiT and the scores of the originals are the same for all draws.
        repeats: Downstream trainings for each distilled set and network. A method without chance in its set has draws
            x repeats trainings on one set.
        variants: Rows that differ from a method in some settings: name to ``{method: ..., CHANGES}``, where the changes
            are to ``select``, ``mgd3``, ``dag``, ``options`` or ``pool_multiple``.
        validation: Subsets of the validation images. Each training is evaluated on all validation images and on each
            subset. A subset is what ``dgs select`` takes by the config ``select/validation_NAME`` (Table 6).
        pool_multiple: Images per class of a pool, as a multiple of the largest ``ipc``.
        image_size: Side of the images in pixels that the DiT works on; read from prepared data by default.
        codec: ``pixels``, or folder or hub id of the autoencoder of the DiT's latents.
        decoder: Autoencoder that decodes generated latents; ``codec`` by default.
        dit: Pretrained DiT (folder, checkpoint or hub id); none: one is trained from scratch (``pretrain``).
        generator: ``scratch`` adds the rows ``generator_methods``, whose DiT is trained from scratch.
        generator_methods: Rows that are added to ``methods`` where there is a ``generator`` or a ``dit``.
        guided: Which of ``dit`` and ``minimax`` generates under guidance.
        estimator: Difficulty estimator by name; none: one is trained out of fold (``cross_fit``).
        estimator_weights: Local file of the named estimator's weights, also for its features; by default they come from
            its hub.
        folds: Folds of the estimator's cross-fitting.
        trainer: Trainer settings of every stage, for example ``{devices: 8}``.
        jobs: Stages that run side by side, by the launcher ``local``.
        launcher: What runs the stages: ``local``, processes of this machine; or ``ray``, as many as there is room for
            on the machines that Ray has.
        ray: How Ray is reached and used; see :class:`~dgs_lightning.experiment.cluster.RaySettings`.
        threads: Threads of each stage on a CPU; part of what a result depends on.
        fast: Let the DiT, and distribution matching, compute in bfloat16 if the processor has instructions for it
            (AVX512-BF16 or AMX), and compile the DiT where a stage is long enough and there is a C++ compiler. The
            images differ a little from the exact ones. What takes gradients through the DiT to the latents stays exact.
            ``trainer.precision`` wins.
        logger: What shows the stages as they run, and gets the report at the end: ``tensorboard``, ``csv``, ``wandb``,
            ``mlflow``, or class and settings of a logger of Lightning. It changes no result.
        fingerprint: How the data are recognised in the next run: by their ``content``, which is read once, or by the
            ``names`` and sizes of the files, which is quicker for very large trees.
        prepare: Section for ``dgs prepare``; none: ``data`` has ``train`` and ``val`` and is used as it is.
        latents: Section for encoding the training images.
        pretrain: Section for training a DiT from scratch.
        finetune: Section for Minimax fine-tuning.
        generate: Section for image pools and guided sets.
        mgd3: Settings of ``ModeGuidance``, such as ``{stop_timestep: 30}``.
        dag: Settings of ``DifficultyAwareGuidance``.
        options: Settings of other methods by key, such as ``{METHOD: {config: FILE}}``; ``ipc`` says which one
            of several a method has a row for.
        cross_fit: Section for training the difficulty estimator.
        judge: Section for the strong classifier that says how legible a pool is, and is the teacher where no other is
            named; none: no judge.
        score: Section for scoring difficulty.
        select: Section for ``dgs select``. By default, its ``features`` are those of the difficulty estimator, or those
            of fold 0's network.
        evaluate: Section for downstream training.
        soft: Section for downstream training with soft labels. It starts from ``classify/rded.yaml``, unless it names
            another ``config``.
    """

    title: str
    methods: list[str]
    ipc: Annotated[int | list[int], Between(1, 1_000_000)]
    name: str = ""
    output: str | None = None
    data: str | None = None
    root: str | None = None
    original: str | None = None
    pool: str | None = None
    val: str | None = None
    sets: dict[str, Settings] = field(default_factory=dict)
    links: Links = "refuse"
    classes: str | None = None
    networks: list[str] = field(default_factory=list)
    protocols: list[Literal["hard", "soft"]] = field(default_factory=lambda: ["hard"])
    teacher: str | None = None
    teacher_weights: str | None = None
    scores: list[ScoreName] = field(default_factory=list)
    lrs_weight: Annotated[float, Between(0, 1)] = WEIGHT
    ars_weight: Annotated[float, Between(0, 1)] = WEIGHT
    seed: Annotated[int, Between(0, 4294967295)] = 0
    draws: Annotated[int, Between(1, 1000)] = 3
    repeats: Annotated[int, Between(1, REPEATS)] = 1
    variants: dict[str, Settings] = field(default_factory=dict)
    validation: list[str] = field(default_factory=list)
    pool_multiple: Annotated[int, Between(1, 1000)] = 5
    image_size: Annotated[int | None, Between(1, 16384)] = None
    codec: str = "pixels"
    decoder: str | None = None
    dit: str | None = None
    generator: Literal["scratch"] | None = None
    generator_methods: list[str] = field(default_factory=list)
    guided: Literal["dit", "minimax"] = "dit"
    estimator: str | None = None
    estimator_weights: str | None = None
    folds: Annotated[int, Between(2, 1000)] = 5
    trainer: Settings = field(default_factory=dict)
    jobs: Annotated[int, Between(1, 1024)] = 1
    launcher: Literal["local", "ray"] = "local"
    ray: Settings = field(default_factory=dict)
    threads: Annotated[int, Between(1, 1024)] = 1
    fast: bool = False
    logger: Literal["tensorboard", "csv", "wandb", "mlflow"] | Settings = "tensorboard"
    fingerprint: Kind = "content"
    prepare: Settings | None = None
    latents: Settings = field(default_factory=dict)
    pretrain: Settings = field(default_factory=dict)
    finetune: Settings = field(default_factory=dict)
    generate: Settings = field(default_factory=dict)
    mgd3: Settings = field(default_factory=dict)
    dag: Settings = field(default_factory=dict)
    options: dict[str, Settings] = field(default_factory=dict)
    cross_fit: Settings = field(default_factory=dict)
    judge: Settings | None = None
    score: Settings = field(default_factory=dict)
    select: Settings = field(default_factory=dict)
    evaluate: Settings = field(default_factory=dict)
    soft: Settings = field(default_factory=dict)

    @property
    def ipcs(self) -> list[int]:
        """The values of ``ipc``, smallest first."""
        return sorted({self.ipc} if isinstance(self.ipc, int) else set(self.ipc))

    def settings_of(self, method: str) -> Settings:
        """The experiment's own settings of a method, by its key."""
        own = {"mgd3": self.mgd3, "dag": self.dag, **self.options}.get(method, {})
        return {name: value for name, value in own.items() if name != "ipc"} or settings_of_set(self.sets, method)

    @property
    def rows(self) -> list[tuple[str, int]]:
        """The rows of the table with their IPCs."""
        own = {row: variant_of(self, row) for row in self.methods}
        only = {row: own_ipc(method, varied.sets, varied.options) for row, (method, varied) in own.items()}
        return [(row, ipc) for ipc in self.ipcs for row in only if only[row] in (None, ipc)]


VARIABLE = ("select", "mgd3", "dag", "options", "pool_multiple")  # what a variant may change


def variant_of(experiment: Experiment, name: str) -> tuple[str, Experiment]:
    """Method of a row and the experiment with the row's own settings.

    Raises:
        InputError: If a variant has no method, or changes what it shares with the other rows.
    """
    if name not in experiment.variants:
        return name, experiment
    changes = dict(experiment.variants[name])
    method = changes.pop("method", None)
    if "validation" in changes:
        expected = "it as a list in the experiment itself, which evaluates each training on all subsets"
        remedy = f"Move it there, as validation: [{changes['validation']}]"
        raise InputError(f"variants.{name}.validation", repr(changes["validation"]), expected, remedy)
    if not isinstance(method, str) or not set(changes) <= set(VARIABLE):
        found = listed(experiment.variants[name]) or "nothing"
        expected = f"'method' and changes to {', '.join(VARIABLE)}"
        raise InputError(f"variants.{name}", found, expected, "Move other changes to an experiment of their own")
    return method, Experiment(**merge(vars(experiment), changes))


def load_experiment(name: str, changes: list[str], output: str | None = None) -> Experiment:
    """Read an experiment file and apply the user's changes.

    Args:
        name: A YAML file, or the name of a shipped experiment.
        changes: ``key=value`` with dotted keys, such as ``finetune.trainer.max_steps=100``. Values are YAML, except
            those of settings that hold a text, such as ``data``: these are taken as they are.
        output: Folder of the run, instead of the one that the file names.

    Raises:
        InputError: If the file or a change has an unknown key, or a value of the wrong type or range.
    """
    path = find_config(name, "experiments")
    settings = load_config(name, "experiments")
    keys = []
    for change in changes:
        key, parsed = parsed_change(change, _kinds())
        keys.append(key)
        settings = merge(settings, parsed)
    settings = {"name": path.stem, **settings}
    settings["output"] = output or settings.get("output") or f"runs/{settings['name']}"
    try:
        experiment = _with_generator(_experiment(settings))
        for row in experiment.variants:
            _experiment(vars(variant_of(experiment, row)[1]), f"variants.{row}.")
    except InputError as error:
        place, found, expected, remedy = error.parts
        raise InputError(_typed(place, keys) or f"{path}: {place}", found, expected, remedy) from None
    return experiment


def _typed(place: str, keys: Sequence[str]) -> str:
    """The option that changed the setting at a place, as the user typed it; empty if none did."""
    for key in reversed(keys):
        if f"{place}.".startswith((f"{key}.", f"{key}[")) or f"{key}.".startswith(f"{place}."):
            return f"--set {max(place, key, key=len)}"
    return ""


def _experiment(settings: Settings, above: str = "") -> Experiment:
    """The experiment with these settings, after checking the type and limits of each.

    Raises:
        InputError: If one is wrong. The error's place is its dotted key, after the text ``above``.
    """
    if isinstance(text := settings.get("validation"), str):
        expected = "a list of subsets; all validation images are always evaluated"
        remedy = "Remove it" if text == "all" else f"Write it as validation: [{text}]"
        raise InputError(f"{above}validation", repr(text), expected, remedy)
    kinds = _kinds()
    for name, value in settings.items():
        if name not in kinds:
            near = difflib.get_close_matches(name, kinds, n=3) or kinds
            raise InputError(f"{above}{name}", "an unknown setting", f"one of {', '.join(near)}", "Correct its name")
        try:
            check_shape(value, kinds[name], name)
        except Unreadable as error:
            remedy = _remedy(value, kinds[name])
            raise InputError(f"{above}{error.place}", error.found, error.expected, remedy) from None
    for name in ("title", "methods", "ipc"):
        if name not in settings:
            raise InputError(f"{above}{name}", "nothing", words(kinds[name]), "Give one")
    experiment = Experiment(**settings)
    _check_values(experiment, above)
    return experiment


@cache
def _kinds() -> dict[str, Any]:
    """The type of each setting, without its limits."""
    return get_type_hints(Experiment) | {"ray": RaySettings}


def _remedy(value: object, kind: Any) -> str:  # noqa: ANN401
    """What to do about a value of a wrong type."""
    if isinstance(value, str) and (get_origin(kind) is list or ("," in value and "a list" in words(kind))):
        return f"Write a list in brackets: [{value}]"
    return "Give one, or remove the key" if value is None else "Correct the value"


def _with_generator(experiment: Experiment) -> Experiment:
    """The experiment with the rows that its generator adds.

    Raises:
        InputError: If it adds none, or there is a pretrained DiT, too.
    """
    added, dit = experiment.generator_methods, experiment.dit
    if experiment.generator and (dit or not added):
        found = f"{experiment.generator}, beside dit {dit}" if dit else f"{experiment.generator}, but no rows to add"
        expected, remedy = "one generator, and rows in generator_methods", "Remove generator, or correct the others"
        raise InputError.setting("generator", found, expected, remedy)
    rows = [row for row in added if row not in experiment.methods] if experiment.generator or dit else []
    return replace(experiment, methods=[*experiment.methods, *rows])


def _check_values(experiment: Experiment, above: str) -> None:
    """Check what the types do not say: limits, keys of methods, names of folders and of data sets."""
    settings = vars(experiment)
    check_bounds(Experiment, settings, above)
    if experiment.data is not None:
        check_name(experiment.data)
    if unknown := sorted(experiment.options.keys() - METHODS.keys()):
        raise InputError.choice(f"{above}options.{unknown[0]}", unknown[0], METHODS)
    if not experiment.ipcs:
        raise InputError.unset(f"{above}ipc", "at least one number", "10")
    if not experiment.protocols:
        raise InputError.unset(f"{above}protocols", "hard, soft or both", "[hard, soft]")
    check_sets(experiment.sets, experiment.ipcs, above)
    for name, own in experiment.options.items():
        if not isinstance(ipc := own.get("ipc", 1), int) or ipc < 1:
            raise InputError.setting(
                f"{above}options.{name}.ipc", repr(ipc), "the one IPC that the method has a row for"
            )
    check_scores(experiment.scores, experiment.networks, experiment.variants, above)
    for name in ("methods", "generator_methods", "networks", "validation"):
        for value in settings[name]:
            if not FolderName().allows(value):
                raise InputError.setting(f"{above}{name}", repr(value), "names of folders", "Correct the name")
