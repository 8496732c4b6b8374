"""What a person who helps with a fault needs to know: versions, machine and settings, without any path."""

import os
import platform
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import torch

from dgs_lightning.configs import ROOT
from dgs_lightning.data.cards import versions
from dgs_lightning.documents.texts import yaml_text
from dgs_lightning.experiment.settings import Experiment
from dgs_lightning.models.hub import licence_of

HIDDEN = "PATH"
ALWAYS = ("output", "root")  # settings that are paths whatever they look like


def report(experiment: Experiment | None) -> str:
    """Versions, machine, and the settings that are not the defaults, as YAML. Paths are replaced by ``PATH``.

    Args:
        experiment: The experiment, if there is one.
    """
    gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    content: dict[str, Any] = {
        "versions": dict(versions()),
        "machine": {"system": platform.platform(), "cores": os.cpu_count(), "gpus": gpus},
    }
    if experiment is not None:
        content["settings"] = {name: _shown(value, name) for name, value in _changed(experiment).items()}
    return yaml_text(content)


def _changed(experiment: Experiment) -> dict[str, Any]:
    """The settings of an experiment that are not the defaults."""
    found = {}
    for setting in fields(experiment):
        default = setting.default if setting.default_factory is MISSING else setting.default_factory()
        if (value := getattr(experiment, setting.name)) != default:
            found[setting.name] = value
    return found


def _shown(value: object, name: str) -> Any:  # noqa: ANN401
    """A value without the paths in it."""
    if isinstance(value, dict):
        return {_text(str(key)): _shown(inner, str(key)) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_shown(inner, name) for inner in value]
    if isinstance(value, str):
        return HIDDEN if name in ALWAYS else _text(value)
    return value


def _text(text: str) -> str:
    """A text, or ``PATH`` if it names a place of this machine. Shipped configs and published models are none."""
    if (ROOT / text).is_file() or licence_of(text) is not None:
        return text
    is_path = "/" in text or "\\" in text or text.startswith(("~", ".")) or (text != "" and Path(text).exists())
    return HIDDEN if is_path else text
