"""The models that an experiment starts from: are they on this machine, and do they know the classes? No network."""

import json
from collections.abc import Iterator, Sequence

from dgs_lightning.configs import expand
from dgs_lightning.data.classes import check_known
from dgs_lightning.doctor.finding import Finding, error_of, of_error, ok, problem, warning
from dgs_lightning.errors import InputError, counted, listed
from dgs_lightning.experiment.images import Trees, classes_from
from dgs_lightning.experiment.settings import Experiment, variant_of
from dgs_lightning.experiment.stage import Stage
from dgs_lightning.models.codec import PIXELS
from dgs_lightning.models.dit.formats import dit_labels
from dgs_lightning.models.estimator import EstimatorSource, why_estimator_missing
from dgs_lightning.models.hub import AUTOENCODER, TRANSFORMER, NotFetched, licence_of, why_missing
from dgs_lightning.runs import layout
from dgs_lightning.runs.methods import METHODS
from dgs_lightning.tasks.scoring import how_to_know
from dgs_lightning.tasks.work import settings_of

ROLES = {"dit": TRANSFORMER, "codec": AUTOENCODER, "decoder": AUTOENCODER}
INSTEAD = {  # kind of a classifier -> what to do if it does not know the classes
    "estimator": "leave 'estimator' out, and one is trained on the data, out of fold",
    "teacher": "leave 'teacher' out and give a section 'judge', which is trained on the data",
}
RENAME = "If the classes are ImageNet's, name the class folders by WordNet id"


def check_weights(experiment: Experiment, stages: Sequence[Stage]) -> Iterator[Finding]:
    """Whether the DiT, the autoencoders and the named classifiers are here, as far as a stage uses them."""
    for role, patterns in ROLES.items():
        name = getattr(experiment, role)
        if name not in (None, PIXELS) and _is_used(name, stages):
            yield _availability(f"{role} {name}", why_missing(role, name, patterns), licence_of(name))
    for kind, name, weights in named_classifiers(experiment):
        yield _availability(f"{kind} {name}", why_estimator_missing(name, weights, kind))


def _is_used(value: str, stages: Sequence[Stage]) -> bool:
    """Whether a value is in the settings of a stage; also true without any stages."""
    return not stages or json.dumps(value) in json.dumps([stage.config for stage in stages])


def _availability(model: str, error: InputError | None, licence: str | None = None) -> Finding:
    """Finding about a model that is here, or that is missing with this error."""
    from huggingface_hub.constants import HF_HUB_OFFLINE

    terms = f" (licence {licence})" if licence else ""
    if error is None:
        return ok(f"{model}: on this machine{terms}")
    found = of_error(error)
    if isinstance(error, NotFetched) and not HF_HUB_OFFLINE:
        return warning(f"{found.what}{terms}; a run with a network fetches it", found.remedy)
    return problem(f"{found.what}{terms}", found.remedy)


def named_classifiers(experiment: Experiment) -> Iterator[tuple[str, str, str | None]]:
    """Kind of each classifier that the experiment names and uses, its name, and its local weights if it gives any."""
    if (name := experiment.estimator) is not None:
        in_section = expand(experiment.score).get("model", {}).get("init_args", {}).get("weights")
        weights = experiment.estimator_weights or in_section
        yield "estimator", name, None if weights is None else str(weights)
    methods = (METHODS.get(variant_of(experiment, row)[0]) for row in experiment.methods)
    used = layout.SOFT in experiment.protocols or any(method and method.uses("teacher") for method in methods)
    if used and (name := experiment.teacher) is not None:
        yield "teacher", name, experiment.teacher_weights


def check_labels_of_models(experiment: Experiment, stages: Sequence[Stage], trees: Trees) -> Iterator[Finding]:
    """Whether the DiT and the named classifiers know the classes of the data."""
    tree = classes_from(trees)
    if tree is None:
        return
    if (name := experiment.dit) is not None and _is_used(name, stages):
        yield _labels_of_dit(name, set(tree.counts), stages)
    for kind, name, weights in named_classifiers(experiment):
        known = EstimatorSource.of(name, weights).labels()
        remedy = f"{RENAME}; otherwise {INSTEAD[kind]}"
        if experiment.data is None and kind == "estimator":
            remedy = how_to_know(tree.folder)
        yield _knows(f"{kind} {name}", known, set(tree.counts), remedy)


def _labels_of_dit(name: str, wanted: set[str], stages: Sequence[Stage]) -> Finding:
    tuned = next((settings_of(stage.config["model"]) for stage in stages if stage.name == layout.FINETUNE), None) or {}
    untuned = [s.name for s in stages if s.command == "predict" and s.config["model"]["init_args"].get("dit") == name]
    if tuned.get("label_table", "keep") != "keep" and not untuned:
        return ok(f"dit {name}: fine-tuning gives its label table the classes of the data")
    methods = f" and leave out the stages that generate before fine-tuning ({listed(untuned, 3)})" if untuned else ""
    remedy = f"{RENAME}; otherwise set finetune.model.init_args.label_table=replace{methods}"
    return _knows(f"dit {name}", dit_labels(name), wanted, remedy)


def _knows(model: str, known: Sequence[str] | None, wanted: set[str], remedy: str) -> Finding:
    """Finding about the labels that a model knows."""
    if known is None:
        return warning(f"{model}: its files do not say which classes it knows", "See that they are those of the data")
    error = error_of(check_known, wanted, known, model, remedy)
    return of_error(error) if error else ok(f"{model}: knows all {counted(len(wanted), 'class')} by their labels")
