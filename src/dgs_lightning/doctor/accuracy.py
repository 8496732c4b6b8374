"""How well the estimator and the teacher know the images by the labels of our classes. These checks run networks."""

from collections.abc import Iterator

import torch

from dgs_lightning.configs import expand
from dgs_lightning.data.images import load_image
from dgs_lightning.data.splits import ranks_in_class
from dgs_lightning.doctor.finding import Finding, of_error, ok, warning
from dgs_lightning.doctor.images import value_range_of
from dgs_lightning.doctor.models import named_classifiers
from dgs_lightning.experiment.images import Trees
from dgs_lightning.experiment.settings import Experiment
from dgs_lightning.models.estimator import Accuracy, load_estimator, why_estimator_missing

OF_A_CLASS, IN_ALL = 20, 2_000  # most images that are looked at


def measure_accuracy(experiment: Experiment, trees: Trees) -> Iterator[Finding]:
    """The accuracy of each classifier that is on this machine, on some validation images. Nothing is downloaded."""
    role = next((role for role in ("val", "data", "train", "original") if role in trees), None)
    if role is None:
        return
    tree, value_range = trees[role], value_range_of(experiment, role)
    each = max(1, min(OF_A_CLASS, IN_ALL // len(tree.counts)))
    ranks = ranks_in_class(tree.records, "measure", experiment.seed)
    records = [record for record, (rank, _) in zip(tree.records, ranks, strict=True) if rank < each]
    for kind, name, weights in _classifiers(experiment):
        where = f"{kind} {name}"
        if error := why_estimator_missing(name, weights, kind):
            yield warning(f"{where}: not measured, since its weights are not on this machine", error.parts[-1])
            continue
        classifier = load_estimator(name, weights).to("cuda" if torch.cuda.is_available() else "cpu")
        pictures = (load_image(tree.folder / record.file_name, value_range=value_range) for record in records)
        predicted = map(classifier.predict, pictures)
        accuracy = Accuracy.of([(r.label, label) for r, label in zip(records, predicted, strict=True)])
        error = accuracy.why_at_chance(where, f"or name another {kind}")
        yield of_error(error) if error else ok(f"{where}: {accuracy} ({tree.folder}, at most {each} of a class)")


def _classifiers(experiment: Experiment) -> Iterator[tuple[str, str, str | None]]:
    """Kind of each named classifier, its name, and its weights if they are given."""
    yield from named_classifiers(experiment)
    teacher = expand(experiment.evaluate).get("model", {}).get("init_args", {}).get("teacher")
    if teacher:
        yield "teacher", teacher["name"], teacher.get("weights")
