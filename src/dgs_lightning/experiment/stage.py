"""Stages: what a plan consists of, and the key that a stage is known by."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Settings = dict[str, Any]
# Whole numbers that tell the stages of one kind apart.
VARYING = ("seed", "seed_everything", "fold", "ipc", "pool_images", "images_per_class")


@dataclass(frozen=True)
class InRun:
    """A path in the run's folder, in a stage's settings; the folder itself is the empty path.

    Plans hold these in place of text, so that neither the name nor the place of the run's folder is part of a key.
    """

    path: str = ""


@dataclass(frozen=True)
class Given:
    """A file or folder of the user's, in a stage's settings.

    Names and content of its files are part of the key. The place where it lies is not.
    """

    path: str


@dataclass(frozen=True)
class Apart:
    """A setting of a stage that changes none of its results, and is no part of its key."""

    path: str


def given(value: str) -> "Given | str":
    """A path that exists as an input of the run; other text, such as the name of a model on a hub, as it is."""
    return Given(value) if Path(value).exists() else value


@dataclass(frozen=True)
class Stage:
    """One ``dgs`` command of an experiment.

    Args:
        name: Path of the stage's folder in the run's; a stage writes nowhere else.
        command: Subcommand of ``dgs``.
        config: Settings of the command. They may hold :class:`InRun`, :class:`Given` and :class:`Apart`.
        needs: Stages whose results it reads.
    """

    name: str
    command: str
    config: Settings
    needs: tuple["Stage", ...] = ()

    def settings(self, output: Path, absolute: bool = False) -> Settings:
        """The settings as the command takes them, for a run in this folder.

        Args:
            output: The folder.
            absolute: Give absolute paths, for a command that starts in another folder than this process.
        """

        def path(part: InRun | Given | Apart) -> str:
            place = (output / part.path).as_posix() if isinstance(part, InRun) else part.path
            return Path(place).absolute().as_posix() if absolute else place

        resolved: Settings = replaced(self.config, path)
        return resolved

    @property
    def inputs(self) -> list[str]:
        """Files and folders outside the run that the stage reads."""
        found: list[str] = []
        replaced(self.config, lambda part: found.append(part.path) if isinstance(part, Given) else None)
        return found


def within(path: str, folder: str) -> bool:
    """Whether a path is a folder, or lies in it."""
    return path == folder or path.startswith(f"{folder}/")


def replaced(content: Any, path: Callable[[InRun | Given | Apart], Any]) -> Any:  # noqa: ANN401
    """Settings with each of their paths replaced by what a function makes of it."""
    if isinstance(content, InRun | Given | Apart):
        return path(content)
    if isinstance(content, Mapping):
        return {key: replaced(value, path) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [replaced(value, path) for value in content]
    return content


def stage_keys(stages: Sequence[Stage], inputs: Mapping[str, str]) -> dict[str, str]:
    """Hash of each stage's settings, of its inputs and of the stages it needs, wherever the run's folder is.

    Args:
        stages: Stages, each after what it needs.
        inputs: Fingerprint of each file or folder outside the run that a stage reads.
    """
    keys: dict[str, str] = {}
    for stage in stages:
        identity = {
            "command": stage.command,
            "config": replaced(
                {name: value for name, value in stage.config.items() if not isinstance(value, Apart)},
                lambda part: ["run", part.path] if isinstance(part, InRun) else inputs[part.path],
            ),
            "needs": [keys[needed.name] for needed in stage.needs],
        }
        keys[stage.name] = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    return keys


def one_of_each_kind(stages: Sequence[Stage]) -> list[Stage]:
    """The first of the stages that differ only in paths of the run and in ``VARYING`` settings."""

    def counted(content: Any) -> Any:  # noqa: ANN401
        if isinstance(content, Mapping):
            return {
                key: 0 if key in VARYING and isinstance(value, int) else counted(value)
                for key, value in content.items()
            }
        return [counted(value) for value in content] if isinstance(content, list) else content

    def kind(stage: Stage) -> tuple[str, str]:
        settings = replaced(stage.config, lambda part: "RUN" if isinstance(part, InRun) else part.path)
        return stage.command, json.dumps(counted(settings), sort_keys=True)

    return list({kind(stage): stage for stage in reversed(stages)}.values())
