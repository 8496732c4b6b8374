"""The records of a run: which of its stages are done, with which settings, and how long they took."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dgs_lightning import __version__
from dgs_lightning.errors import InputError
from dgs_lightning.files import write_json
from dgs_lightning.runs import layout

DONE, RUNNING = "done", "running"


@dataclass(frozen=True)
class Records:
    """The records of the stages in a run's folder, ``stages/NAME.json``.

    Args:
        folder: Folder of the run.
    """

    folder: Path

    def path(self, stage: str) -> Path:
        """File of a stage's record."""
        return self.folder / layout.stage_record(stage)

    def read(self, stage: str) -> Mapping[str, Any]:
        """The record of a stage; empty where there is none, or a broken one."""
        try:
            record = json.loads(self.path(stage).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return {}
        return record if isinstance(record, dict) else {}

    def write(self, stage: str, command: str, key: str, status: str, **results: float | str) -> None:
        """Record a stage.

        Args:
            stage: Name of the stage.
            command: Command of ``dgs`` that it runs.
            key: Hash of its settings and inputs.
            status: ``running`` or ``done``.
            results: ``seconds`` and ``device`` of a stage that is done.
        """
        record = {"name": stage, "command": command, "key": key, "status": status, "version": __version__}
        write_json(self.path(stage), record | results)

    def reopen(self, stage: str) -> None:
        """Record that a stage which was done has to run again."""
        write_json(self.path(stage), {**self.read(stage), "status": RUNNING})

    def forget(self, stage: str) -> None:
        """Remove the record of a stage."""
        self.path(stage).unlink(missing_ok=True)

    def status(self, stage: str, key: str, results: str) -> str:
        """How far a stage is.

        Args:
            stage: Name of the stage.
            key: Hash of its settings and inputs as they are now.
            results: What it leaves, a path in the run's folder.

        Returns:
            ``done``; ``resume``: begun with these settings; ``changed``: run with others; or ``new``.

        Raises:
            InputError: If version 0.1.0 wrote the record, which had keys of another form.
        """
        record = self.read(stage)
        if not record:
            return "new"
        if "version" not in record:
            raise InputError(
                self.folder,
                found="a run of dgs-lightning 0.1.0",
                expected="a run of this version, or a new folder",
                remedy="Give another --output, or finish the run with version 0.1.0; 'dgs report' reads its results",
            )
        if record.get("key") != key:
            return "changed"
        return DONE if record.get("status") == DONE and (self.folder / results).exists() else "resume"
