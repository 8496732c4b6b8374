"""Whether the models that settings name are on this machine, and how to get those that are not. No network is used."""

from collections.abc import Sequence
from pathlib import Path

from dgs_lightning.errors import InputError
from dgs_lightning.models.estimator import EstimatorSource
from dgs_lightning.models.hub import WEIGHT_SUFFIXES, find_model, has_weights, is_hub_id


class NotFetched(InputError):
    """A model that is not on this machine. A run fetches it from its hub, if that is allowed."""


def why_missing(role: str, name: str, patterns: Sequence[str]) -> InputError | None:
    """The error of a model that cannot be loaded from this machine; ``None`` if it can.

    Args:
        role: The setting that names the model.
        name: A path or a hub id.
        patterns: The files needed of a model on the hub.
    """
    found, where = find_model(name, patterns), f"{role} {name}"
    if found is None and is_hub_id(name):
        return _not_fetched(where, f"'hf download {name}'", f"set {role} to the folder of a copy")
    if found is None:
        return InputError.missing(where, "a model", f"Correct the path, or set {role} to a hub id")
    if not has_weights(found):
        expected = f"a file ending in {', '.join(WEIGHT_SUFFIXES)}"
        return InputError.weights(where, f"no weights in {found}", expected, "Fetch them again")
    return None


def why_estimator_missing(name: str, weights: str | None) -> InputError | None:
    """The error of a classifier that cannot be loaded from this machine; ``None`` if it can.

    Args:
        name: Name of the classifier, as for :func:`~dgs_lightning.models.estimator.load_estimator`.
        weights: Its weights, as there.
    """
    source, where = EstimatorSource.of(name, weights), f"estimator {name}"
    if source.local is None:
        try:
            here, fetch = source.in_cache()
        except ValueError:
            expected, remedy = f"a network of {source.library}", "Name another, such as torchvision:resnet50"
            return InputError.setting(where, "no such network", expected, remedy)
        return None if here else _not_fetched(where, fetch, "set estimator_weights=FILE")
    if Path(source.local).exists():
        return why_missing("estimator", source.local, ())
    if source.library:
        return InputError.missing(source.local, f"weights of {where}", "Correct the path, or remove estimator_weights")
    expected = "torchvision:NAME, timm:NAME, or a folder of trained weights"
    return InputError.setting(where, "no such folder", expected, "Correct the name")


def _not_fetched(where: str, fetch: str, instead: str) -> NotFetched:
    return NotFetched(
        where, "neither a path nor a model in the cache", "a local copy", f"Fetch it once with {fetch}, or {instead}"
    )
