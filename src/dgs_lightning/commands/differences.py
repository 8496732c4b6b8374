"""How a run's settings differ from the paper's: each stage as it ran, beside the shipped experiment of its data set."""

import os
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from dgs_lightning.bounds import with_defaults
from dgs_lightning.configs import as_list, class_name, expand, load_config, load_yaml, merge
from dgs_lightning.data.editions import PUBLISHED as IMAGENETS_OWN
from dgs_lightning.data.editions import edition_of
from dgs_lightning.data.folders import scan_images
from dgs_lightning.distil.centers import Centers
from dgs_lightning.distil.selection import Selection
from dgs_lightning.reporting.folder import RunFolder
from dgs_lightning.reporting.published import PUBLISHED
from dgs_lightning.runs import layout
from dgs_lightning.tasks.classification import ClassificationTask, flat
from dgs_lightning.tasks.work import settings_of

Settings = dict[str, Any]
MOST = 10  # differences that a note names
TRAININGS = 3  # of each number of the paper
SECTIONS = {  # first part of a stage's name -> section of the experiment with its settings
    layout.LATENTS: "latents",
    layout.FINETUNE: "finetune",
    layout.POOLS: "generate",
    layout.GUIDED: "generate",
    layout.CENTERS: "centers",
    layout.SCORES: "score",
    layout.DISTILLED: "select",
    layout.EVALUATION: "evaluate",
}
FUNCTIONS = {"select": Selection, "centers": Centers}  # sections of commands that are plain functions
OF_ROWS = (layout.GUIDED, layout.CENTERS, layout.DISTILLED, layout.EVALUATION)  # stages of one row of the table
EXPERIMENT = {  # settings of the experiment itself -> what a file without them means, and the section that uses them
    "dit": (None, "generate"),
    "estimator": (None, "score"),
    "image_size": (None, "generate"),
    "guided": ("dit", "centers"),
    "pool_multiple": (5, "generate"),
    "codec": ("pixels", "generate"),
    "decoder": (None, "generate"),
    "prepare": (None, "evaluate"),
}
LOCAL = ("dit", "codec", "decoder")  # models that may be local copies of the published ones
TRAINER = {"precision": "32-true"}  # Lightning's default
WORDS = {  # keys of settings, the most important first -> words for them
    "dit": "DiT",
    "estimator": "difficulty estimator",
    "edition": "",
    "image_size": "side of the generated images",
    r"evaluate\.data\.image_size": "side of the images that the classifier sees",
    "trainings": "trainings of a row",
    r"evaluate\.length": "length of a classifier's training",
    "guided": "model that is guided",
    r"select\.distribution": "sampling distribution",
    r"select\.smoothing": "smoothing",
    r"select\.smoothing_forks\.(\w+)": r"\1 in the smoothing",
    r"select\.shortage": "images that replace those that an interval lacks",
    r"select\.intervals": "difficulty intervals",
    "pool_multiple": "size of the pool as a multiple of the IPC",
    r"centers\.(\w+)": r"\1 of the difficulties in DAG",
    r"generate\.ModeGuidance\.(\w+)": r"\1 of MGD3",
    r"generate\.DifficultyAwareGuidance\.(\w+)": r"\1 of DAG",
    r"generate\.model\.guidance_scale": "scale of classifier-free guidance",
    r"generate\.model\.(\w+)": r"\1 of the generation",
    r"finetune\.model\.optimizer\.learning_rate": "learning rate of the fine-tuning",
    r"finetune\.model\.criteria\.(\w+)": r"\1 of the Minimax criteria",
    r"finetune\.(model|data|trainer)\.([\w.]+)": r"\2 of the fine-tuning",
    r"evaluate\.model\.teacher\.name": "teacher of soft labels",
    r"evaluate\.model\.augmentation\.cutmix": "CutMix",
    r"evaluate\.model\.optimizer\.lr": "learning rate of the classifier",
    r"evaluate\.PublishedLength\.evaluations": "evaluations in a training",
    r"evaluate\.(model|data|trainer)\.([\w.]+)": r"\2 of the classifier's training",
    "score.model.definition": "definition of difficulty",
    "features": "features of K-Center and Herding",
    r"(\w+)\.trainer\.precision": r"precision of '\1'",
    r"(\w+)\.class": r"classes of '\1'",
    "codec": "autoencoder of the latents",
    "decoder": "autoencoder that decodes",
    "prepare": "preparation of the images by dgs",
}
NOTHING = {  # words for a setting without a value; others have their default
    "dit": "one trained from scratch",
    "estimator": "one trained on the originals, out of fold",
    "prepare": "none",
    "evaluate.length": "epochs that follow from the IPC",
    "evaluate.model.teacher.name": "none",
}
_PLACES = "train|val|predict|cache|images|labels|seed|images_per_class|centers"
_SPEED = "accelerator|devices|num_nodes|strategy|plugins|sync_batchnorm|benchmark|deterministic|use_distributed_sampler"
IGNORED = re.compile(  # places, seeds, devices and speed; what other keys here say; what rows differ in
    r"latents\.data\.image_size"
    rf"|\w+\.data\.({_PLACES}|channels|val_batch_size|num_workers|loading\..*|cross_fitting\..*)"
    rf"|\w+\.model\.(dit|codec|network|seed|num_heads|decode_batch|compile|checkpointing|keep_latents|optimizer\.fused|size\..*)"
    rf"|\w+\.trainer\.({_SPEED}|callbacks|logger|profiler|default_root_dir|enable_\w+|log_every_n_steps"
    r"|num_sanity_val_steps|inference_mode)"
    r"|evaluate\.(trainer\.max_(epochs|steps)|PublishedLength\.(epochs|steps|steps_ipc|most_times|meant_for.*))"
    r"|(latents|generate|score)\.data\.batch_size|score\.data\..*|score\.model\.(estimator|weights|cross_fit|originals|check_\w+)"
    r"|generate\.\w+Guidance\.(latents|scores|centers|ipc|seed|store|smoothing|intervals)|generate\.InfluenceGuidance\..*"
    r"|select\.(method|ipc|seed|output|pool|original|\w+_scores|pool_images|links|features|features_weights|allow_fewer|threads)"
    r"|centers\.(output|latents|scores|ipc|labels|seed|threads)"
)


def differences_from_paper(run: RunFolder) -> list[str]:
    """How a run differs from the paper's experiments on its data set, the most important first.

    Compared are the settings of the experiment, those of each stage as they were when it ran, and the numbers of
    images. What a row changes as a variant is no difference, since its name says it. Without trained networks, or on a
    data set that the paper has no numbers for, there is none.

    Raises:
        InputError: If the settings of a stage are not valid YAML.
    """
    datasets = {setting.dataset for table in PUBLISHED.values() for setting in table}
    if run.dataset not in datasets or not run.evaluations:
        return []
    paper = load_config(run.dataset, "experiments")
    stages = _stages(run)
    found = dict(_of_experiment(run, paper, {section for section, _ in stages}))
    for (section, row), settings in stages.items():
        if section == "evaluate" and ClassificationTask.MOVED.keys() & _section(settings, "model")["init_args"].keys():
            return ["settings of version 0.1.0, which are not compared"]
        ours = _flat(section, settings)
        theirs = _flat(section, _published(run, paper, section, row, settings))
        for key in ours | theirs:
            if not IGNORED.fullmatch(key) and ours.get(key) != theirs.get(key):
                found[key] = _instead(key, ours.get(key), theirs.get(key))
    return list(dict.fromkeys(found[key] for key in sorted(found, key=lambda key: (_place(key), key))))


def note_on(run: RunFolder, differences: list[str]) -> str:
    """The differences of a run as a part of a sentence that names the first ten; empty if there are none."""
    more = [f"and {len(differences) - MOST} more"] if len(differences) > MOST else []
    named = "; ".join([*differences[:MOST], *more])
    return f"the set-up of {run.name} is not the paper's ({named})" if named else ""


def _of_experiment(run: RunFolder, paper: Settings, sections: Collection[str]) -> Iterator[tuple[str, str]]:
    """Differences of the experiment's own settings, of the number of trainings and of the images, by their keys.

    Settings that only sections without a stage use do not count.
    """
    for key, (default, section) in EXPERIMENT.items():
        theirs = paper.get(key, default)
        ours = run.settings.get(key, theirs)
        if key == "decoder" and ours is None:
            ours = run.settings.get("codec")
        copy = key in LOCAL and ours and Path(ours).name.startswith(Path(str(theirs)).name)
        if section in sections and ours != theirs and not copy:
            yield key, _instead(key, "dgs prepare" if key == "prepare" else ours, theirs)
    compare, estimator = (run.settings.get("select") or {}).get("features"), paper["estimator"]
    if compare not in (None, estimator, run.settings.get("estimator")):  # by default those of the estimator
        yield "features", _instead("features", compare, estimator)
    trainings = (run.settings.get("repeats") or TRAININGS) * (run.settings.get("draws") or 1)
    if trainings < TRAININGS:
        yield "trainings", _instead("trainings", trainings, TRAININGS)
    train, val = run.counts(layout.ORIGINAL), _validation_counts(run)
    if train and val and (edition := edition_of(train, val)) and edition.advice:
        yield "edition", f"{edition.name} instead of {IMAGENETS_OWN}"


def _validation_counts(run: RunFolder) -> Mapping[str, int]:
    """Validation images of each class; empty where they are not on this machine any more."""
    places = (run.folder / layout.DATA, Path(str(run.settings.get("data"))))
    folder = next((place / "val" for place in places if os.path.isdir(place / "val")), None)
    return Counter(record.label for record in scan_images(folder, run.links)) if folder else {}


def _stages(run: RunFolder) -> dict[tuple[str, str], Settings]:
    """Settings of the first stage of each section and row."""
    found: dict[tuple[str, str], Settings] = {}
    for path in sorted(run.folder.glob(layout.stage_settings("**/*"))):
        stage = layout.stage_of(path.relative_to(run.folder).as_posix())
        part, _, name = stage.partition("/")
        if part == layout.EVALUATION and layout.Training.parse(stage).protocol != layout.PROTOCOL:
            continue  # the paper has no soft labels
        row = layout.SetName.parse(name.split("/")[0]).row if part in OF_ROWS else ""
        asked = row in ("", *(run.settings.get("methods") or [row]))
        key = SECTIONS.get(part, ""), row
        if key[0] and key not in found and asked and not name.startswith(layout.judged("")):
            found[key] = load_yaml(path)
    return found


def _published(run: RunFolder, paper: Settings, section: str, row: str, ours: Settings) -> Settings:
    """The paper's settings of a section, with what a row changes on purpose."""
    changes = {key: value for key, value in run.variants.get(row, {}).items() if key != "method"}
    paper = merge(paper, changes)
    own = paper.get(run.method(row))
    guidance: Settings = own if isinstance(own, dict) else {}
    if section == "centers":
        return {key: value for key, value in guidance.items() if key in ours}
    settings = expand(paper.get(section) or {})
    for callback in _callbacks(ours):
        if class_name(callback) in ("ModeGuidance", "DifficultyAwareGuidance"):
            given = {key: value for key, value in guidance.items() if key in callback["init_args"]}
            published = {"class_path": class_name(callback), "init_args": given}
            settings = merge(settings, {"trainer": {"callbacks": [published]}})
    return settings


def _flat(section: str, settings: Settings) -> Settings:
    """Settings of a stage or section with their defaults, by dotted keys such as ``evaluate.model.optimizer.lr``."""
    if owner := FUNCTIONS.get(section):
        parts: Settings = with_defaults(owner, settings)
    else:
        named = {part: _section(settings, part) for part in ("model", "data") if part in settings}
        parts = {part: _complete(section) for part, section in named.items()}
        parts["class"] = [class_name(section) for section in named.values()]
        parts["trainer"] = {**TRAINER, **(settings.get("trainer") or {})}
        for callback in _callbacks(settings):
            name = class_name(callback) or ""
            if name == "PublishedLength" or name.endswith("Guidance"):
                parts[name] = _complete(callback)
        if section == "evaluate":
            parts["length"] = _length(parts["trainer"], parts.get("PublishedLength", {}))
    plain = {key: list(value) if isinstance(value, tuple) else value for key, value in flat(parts).items()}
    return {f"{section}.{key}": value for key, value in plain.items()}


def _callbacks(settings: Settings) -> list[Settings]:
    """Callbacks of a stage, as mappings."""
    return [_class(callback) for callback in as_list((settings.get("trainer") or {}).get("callbacks"))]


def _section(settings: Settings, part: str) -> Settings:
    """The section ``model`` or ``data`` of a stage."""
    return _class(settings.get(part) or {})


def _class(named: Settings | str) -> Settings:
    """A class and its settings, as a mapping with ``init_args``."""
    section = {"class_path": named} if isinstance(named, str) else named
    return {**section, "init_args": section.get("init_args") or {}}


def _complete(section: Settings) -> Mapping[str, Any]:
    """Settings of a class, with its defaults where it is one of this package."""
    return settings_of(section) or section["init_args"]


def _length(trainer: Mapping[str, Any], published: Mapping[str, Any]) -> str | None:
    """Length of a training that does not follow from the images per class, such as ``600 steps``."""
    limits = {unit: trainer.get(f"max_{unit}") for unit in ("epochs", "steps")}
    lengths = ((settings.get(unit), unit) for settings in (limits, published) for unit in limits)
    return next((f"{number} {unit}" for number, unit in lengths if number not in (None, -1)), None)


def _place(key: str) -> int:
    """Rank of a setting by its importance; settings without words come last."""
    return next((rank for rank, pattern in enumerate(WORDS) if re.fullmatch(pattern, key)), len(WORDS))


def _instead(key: str, ours: object, theirs: object) -> str:
    """Words for a setting that has another value than in the paper."""
    matches = ((re.fullmatch(pattern, key), words) for pattern, words in WORDS.items())
    words = next((match.expand(words) for match, words in matches if match), key)

    def shown(value: object) -> str:
        if value is None:
            return NOTHING.get(key, "the default")
        if isinstance(value, bool):
            return "on" if value else "off"
        return f"{value:g}" if isinstance(value, float) else str(value)

    return f"{words}: {shown(ours)} instead of {shown(theirs)}"
