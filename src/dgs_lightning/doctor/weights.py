"""The models that an experiment does not train itself: are they on this machine, or how to get them; no network."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from dgs_lightning.doctor.finding import Finding, ok, problem, warning
from dgs_lightning.doctor.settings import is_used
from dgs_lightning.experiment.sections import expand
from dgs_lightning.experiment.settings import Experiment
from dgs_lightning.experiment.stage import Stage
from dgs_lightning.models.codec import PIXELS
from dgs_lightning.models.estimator import EstimatorSource
from dgs_lightning.models.hub import (
    AUTOENCODER,
    TRANSFORMER,
    WEIGHT_SUFFIXES,
    find_model,
    has_weights,
    is_hub_id,
    licence_of,
)

ROLES = {"dit": TRANSFORMER, "codec": AUTOENCODER, "decoder": AUTOENCODER}


def check_weights(experiment: Experiment, stages: Sequence[Stage]) -> Iterator[Finding]:
    """The DiT, the autoencoders and the estimator, as far as a stage uses them."""
    for role, patterns in ROLES.items():
        name = getattr(experiment, role)
        if name not in (None, PIXELS) and is_used(name, stages):
            yield _model(role, name, patterns)
    if experiment.estimator is not None:
        yield _estimator(experiment)


def _model(role: str, name: str, patterns: Sequence[str]) -> Finding:
    """A model that is named by path or hub id."""
    found = find_model(name, patterns)
    if found is None:
        if is_hub_id(name):
            return _to_fetch(f"{role} {name}", f"'hf download {name}'", f"set {role} to the folder of a copy")
        return problem(f"{role} {name}: no such file or folder", f"Correct the path, or set {role} to a hub id")
    if has_weights(found):
        return ok(f"{role} {name}: on this machine{_licence(name)}")
    return problem(
        f"{role} {name}: no weights in {found}", f"Fetch them again: a file ending in {', '.join(WEIGHT_SUFFIXES)}"
    )


def _estimator(experiment: Experiment) -> Finding:
    """The difficulty estimator: local weights, or a network of torchvision or timm."""
    asked = estimator_source(experiment)
    name = f"estimator {experiment.estimator}"
    if asked.local is not None:
        if Path(asked.local).exists():
            return _model("estimator", asked.local, ())
        if asked.library:
            return problem(f"{name}: no weights {asked.local}", "Correct the path, or leave estimator_weights out")
        return problem(f"{name}: neither a folder nor the name of a network", "Write torchvision:NAME or timm:NAME")
    try:
        found, fetch = asked.in_cache()
    except ValueError:
        return problem(f"{name}: no such network in {asked.library}", "Name another, such as torchvision:resnet50")
    return ok(f"{name}: on this machine") if found else _to_fetch(name, fetch, "set estimator_weights=FILE")


def estimator_source(experiment: Experiment) -> EstimatorSource:
    """Where the estimator of an experiment comes from."""
    in_section = expand(experiment.score).get("model", {}).get("init_args", {}).get("weights")
    weights = experiment.estimator_weights or in_section
    return EstimatorSource.of(experiment.estimator or "", None if weights is None else str(weights))


def _to_fetch(what: str, fetch: str, instead: str) -> Finding:
    """Weights that are not here: fetched when first needed, where that is allowed."""
    from huggingface_hub.constants import HF_HUB_OFFLINE

    what = f"{what}: neither a path nor in this machine's cache{_licence(what.partition(' ')[2])}"
    if HF_HUB_OFFLINE:
        return problem(f"{what}, and HF_HUB_OFFLINE forbids to fetch it", f"Fetch it once with {fetch}, or {instead}")
    return warning(what, f"A run fetches it when first needed; where there is no network, use {fetch} or {instead}")


def _licence(name: str) -> str:
    licence = licence_of(name)
    return f" (licence {licence})" if licence else ""
