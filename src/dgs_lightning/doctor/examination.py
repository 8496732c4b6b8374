"""All that the doctor looks at, in order."""

from collections.abc import Iterable, Iterator, Sequence

from dgs_lightning.doctor.devices import check_devices
from dgs_lightning.doctor.finding import Finding, of_error
from dgs_lightning.doctor.images import Trees, check_classes, check_counts, check_edition, check_files, open_trees
from dgs_lightning.doctor.labels import check_labels_of_models
from dgs_lightning.doctor.networks import check_networks
from dgs_lightning.doctor.settings import check_settings
from dgs_lightning.doctor.storage import check_disk, check_memory
from dgs_lightning.doctor.timing import check_time
from dgs_lightning.doctor.weights import check_weights
from dgs_lightning.doctor.work import dit_of, scale_of, works_of
from dgs_lightning.errors import InputError
from dgs_lightning.experiment import Experiment
from dgs_lightning.plan import Plan, Stage


def examine(experiment: Experiment) -> list[Finding]:
    """What would go wrong with an experiment, and what it takes.

    What cannot be known for an earlier problem is left out: estimates need valid settings and images.
    """
    plan = Plan(experiment)
    findings: list[Finding] = []
    stages: Sequence[Stage] = ()
    try:
        stages = plan.everything()
    except InputError as error:
        findings.append(of_error(error))
    findings += _collected(check_settings(stages, plan.output))
    valid = bool(stages) and all(finding.level == "ok" for finding in findings)
    trees, unreadable = open_trees(experiment)
    findings += unreadable
    findings += _collected(_look(experiment, trees))
    findings += _collected(check_weights(experiment, stages))
    if valid:
        findings += _collected(check_labels_of_models(experiment, stages, trees))
    findings += _collected(check_devices(experiment))
    if valid:
        findings += _collected(_estimate(experiment, stages, trees))
    return list(dict.fromkeys(findings))


def _look(experiment: Experiment, trees: Trees) -> Iterator[Finding]:
    """The images."""
    yield from check_classes(experiment, trees)
    yield from check_counts(experiment, trees)
    yield from check_edition(trees)
    yield from check_files(experiment, trees)


def _estimate(experiment: Experiment, stages: Sequence[Stage], trees: Trees) -> Iterator[Finding]:
    """What the experiment takes."""
    scale = scale_of(experiment, trees)
    if scale is None:
        return
    works, dit = list(works_of(stages, scale)), dit_of(experiment, stages, scale)
    yield from check_networks(works, scale)
    yield from check_disk(experiment, stages, scale, dit)
    yield from check_memory(stages, scale, dit)
    yield from check_time(experiment, works, scale, dit)


def _collected(findings: Iterable[Finding]) -> Iterator[Finding]:
    """Findings up to the first error that keeps a check from going on, and that error."""
    try:
        yield from findings
    except InputError as error:
        yield of_error(error)
