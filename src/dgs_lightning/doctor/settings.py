"""Whether every stage's settings are valid, and what they come to where they are left to defaults."""

import inspect
import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

import dgs_lightning
from dgs_lightning.doctor.finding import Finding, of_error, ok, problem
from dgs_lightning.errors import InputError
from dgs_lightning.experiment.stage import Stage, one_of_each_kind


def check_settings(stages: Sequence[Stage], output: Path) -> Iterator[Finding]:
    """Parse the settings of each stage as its command would; of those that differ in what a plan counts up, one."""
    from dgs_lightning.commands.cli import check

    valid = True
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "config.yaml")
        for stage in one_of_each_kind(stages):
            config.write_text(yaml.safe_dump(stage.settings(output), allow_unicode=True), encoding="utf-8")
            try:
                check(stage.command, ["--config", str(config)])
            except InputError as error:
                valid = False
                found = of_error(error)
                yield problem(f"stage {stage.name}: {found.what}", found.remedy)
    if valid and stages:
        yield ok(f"settings of all {len(stages)} stages are valid")


def is_used(value: str, stages: Sequence[Stage]) -> bool:
    """Whether a value is in the settings of a stage; where there are no stages to ask, it is taken to be."""
    return not stages or any(
        json.dumps(value) in json.dumps(stage.config, default=lambda part: part.path) for stage in stages
    )


def setting(stage: Stage, part: str, name: str) -> Any:  # noqa: ANN401
    """A setting of a stage's ``model`` or ``data``, or its default. It is none if the class has no such setting.

    Args:
        stage: The stage.
        part: ``model`` or ``data``.
        name: Name of the setting. A setting in a group has the group before it, such as ``size.depth``.
    """
    section = stage.config[part]
    group, _, field = name.rpartition(".")
    given = section.get("init_args", {})
    given = given.get(group, {}) if group else given
    if field in given:
        return given[field]
    kind = getattr(dgs_lightning, section["class_path"].rpartition(".")[2], None)
    for base in getattr(kind, "__mro__", ()):
        if parameter := inspect.signature(base).parameters.get(group or field):
            return getattr(parameter.default, field, None) if group else parameter.default
    return None
