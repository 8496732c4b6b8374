"""All checks of the doctor, in order."""

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from dgs_lightning.doctor.accuracy import measure_accuracy
from dgs_lightning.doctor.cluster import check_cluster
from dgs_lightning.doctor.files import check_endings, check_identical, check_ignored
from dgs_lightning.doctor.finding import Finding, error_of, of_error, ok
from dgs_lightning.doctor.images import (
    check_balance,
    check_classes,
    check_counts,
    check_drawn,
    check_edition,
    check_files,
    check_named_set,
    check_validation_sets,
    open_trees,
)
from dgs_lightning.doctor.machine import check_devices, check_disk, check_memory, check_output
from dgs_lightning.doctor.models import check_labels_of_models, check_weights
from dgs_lightning.doctor.networks import check_fast, check_networks, check_time
from dgs_lightning.documents.texts import yaml_text
from dgs_lightning.errors import InputError
from dgs_lightning.experiment.images import Trees
from dgs_lightning.experiment.loggers import check_logger
from dgs_lightning.experiment.plan import Plan
from dgs_lightning.experiment.settings import Experiment
from dgs_lightning.experiment.stage import Stage, one_of_each_kind
from dgs_lightning.experiment.work import inputs_of, resolved, work_by_stage


def examine(experiment: Experiment, measure: bool = False) -> list[Finding]:
    """What would go wrong with an experiment, and the work, space and time that it takes.

    Estimates need valid settings and images, and are left out without them.

    Args:
        experiment: The experiment.
        measure: Run the named estimator and teacher on some images, to see that they know our labels.
    """
    planned: Sequence[Stage] = ()
    findings: list[Finding] = []
    try:
        planned = Plan(experiment).everything()
    except InputError as error:
        findings.append(of_error(error))
    stages = resolved(planned, experiment)
    kinds = {stage.name for stage in one_of_each_kind(planned)}
    findings += check_settings(stages, kinds)
    valid = all(finding.level == "ok" for finding in findings)
    trees, unreadable = open_trees(experiment)
    findings += unreadable
    checks = (
        _logger(experiment),
        check_output(experiment, planned),
        check_named_set(experiment),
        check_classes(experiment, trees),
        check_counts(experiment, trees),
        check_balance(experiment, trees),
        check_drawn(experiment, trees),
        check_validation_sets(experiment, trees),
        check_edition(trees),
        check_ignored(experiment, trees),
        check_endings(experiment, trees),
        check_identical(experiment, trees),
        check_files(experiment, trees),
        check_weights(experiment, stages),
        check_labels_of_models(experiment, stages, trees),
        measure_accuracy(experiment, trees) if measure else (),
        check_devices(experiment),
        check_cluster(experiment),
        _estimates(experiment, stages if valid else (), trees, measure),
    )
    for check in checks:
        findings += _until_error(check)
    return list(dict.fromkeys(findings))


def check_settings(stages: Sequence[Stage], checked: set[str]) -> Iterator[Finding]:
    """Parse the settings of the stages to check as their commands would."""
    from dgs_lightning.commands.cli import check

    valid = True
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "config.yaml")
        for stage in (stage for stage in stages if stage.name in checked):
            config.write_text(yaml_text(stage.config), encoding="utf-8")
            if error := error_of(check, stage.command, ["--config", str(config)]):
                valid = False
                yield of_error(error, f"stage {stage.name}: ")
    if valid and stages:
        yield ok(f"settings of all {len(stages)} stages are valid")


def _estimates(experiment: Experiment, stages: Sequence[Stage], trees: Trees, measure: bool) -> Iterator[Finding]:
    """The work, space and time that the experiment takes."""
    inputs = inputs_of(experiment, trees)
    if inputs is None or not stages:
        return
    works = work_by_stage(experiment, stages, inputs)
    yield from check_networks(works)
    yield from check_disk(experiment, works)
    yield from check_memory(works)
    yield from check_time(experiment, works)
    yield from check_fast(experiment, stages, works, measure)


def _logger(experiment: Experiment) -> Iterator[Finding]:
    """Whether the package of the logger is there."""
    if error := error_of(check_logger, experiment):
        yield of_error(error)


def _until_error(findings: Iterable[Finding]) -> Iterator[Finding]:
    """Findings up to the first error that ends a check, and that error."""
    try:
        yield from findings
    except InputError as error:
        yield of_error(error)
