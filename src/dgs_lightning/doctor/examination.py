"""All that the doctor looks at, in order."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

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
from dgs_lightning.experiment.plan import Plan
from dgs_lightning.experiment.settings import Experiment
from dgs_lightning.experiment.stage import Stage


def examine(experiment: Experiment) -> list[Finding]:
    """What would go wrong with an experiment, and what it takes.

    What cannot be known for an earlier problem is left out: estimates need valid settings and images.
    """
    plan = Plan(experiment)
    stages: Sequence[Stage] = ()
    findings: list[Finding] = []
    try:
        stages = plan.everything()
    except InputError as error:
        findings.append(of_error(error))
    output = Path(experiment.output or "runs")
    findings += check_settings(stages, output)
    stages = [replace(stage, config=stage.settings(output)) for stage in stages]
    valid = all(finding.level == "ok" for finding in findings)
    trees, unreadable = open_trees(experiment)
    findings += unreadable
    checks = (
        check_classes(experiment, trees),
        check_counts(experiment, trees),
        check_edition(trees),
        check_files(experiment, trees),
        check_weights(experiment, stages),
        check_labels_of_models(experiment, stages, trees),
        check_devices(experiment),
        _estimates(experiment, stages if valid else (), trees),
    )
    for check in checks:
        findings += _collected(check)
    return list(dict.fromkeys(findings))


def _estimates(experiment: Experiment, stages: Sequence[Stage], trees: Trees) -> Iterator[Finding]:
    """What the experiment takes."""
    scale = scale_of(experiment, trees)
    if scale is None or not stages:
        return
    dit = dit_of(experiment, stages, scale)
    works = list(works_of(stages, scale, dit))
    yield from check_networks(works, scale)
    yield from check_disk(experiment, stages, scale, dit)
    yield from check_memory(stages, scale, dit)
    yield from check_time(experiment, works, scale)


def _collected(findings: Iterable[Finding]) -> Iterator[Finding]:
    """Findings up to the first error that keeps a check from going on, and that error."""
    try:
        yield from findings
    except InputError as error:
        yield of_error(error)
