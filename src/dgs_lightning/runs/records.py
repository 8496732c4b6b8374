"""The records of a run: which of its stages are done, with which settings, how long they took and what they left."""

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypedDict

from dgs_lightning import __version__
from dgs_lightning.bounds import AtLeast
from dgs_lightning.data.cards import CARD, LATENTS_CARD, versions
from dgs_lightning.data.records import MARK
from dgs_lightning.data.unfinished import Unfinished
from dgs_lightning.documents.files import read_json
from dgs_lightning.errors import InputError, listed
from dgs_lightning.files import write_json
from dgs_lightning.runs import layout
from dgs_lightning.runs.results import Results, changes, files_of, is_passing, read_results, remove, write_results

DONE, RUNNING = "done", "running"
_REMEDY = "Move the folder elsewhere, or give another --output"
_FORMATS = (".png", ".json", ".jsonl", ".safetensors", ".yaml")  # of what an unfinished stage writes
_REPORT_FORMATS = (*_FORMATS, ".md", ".html", ".csv", ".tex", ".pdf")


class StageRecord(TypedDict, total=False):
    """The record of a stage. Other keys are allowed."""

    name: str
    command: str
    key: str  # hash of its settings and inputs
    status: str
    seconds: Annotated[float, AtLeast(0)]
    device: str | None
    version: str  # of this package
    versions: dict[str, str]  # of the libraries, too


@dataclass(frozen=True)
class Records:
    """The records of the stages in a run's folder: ``stages/NAME.json``, and ``stages/NAME.results`` of what is done.

    A record is written before the first file of its stage. So it proves that a folder with a record is this run's.

    Args:
        folder: Folder of the run.
    """

    folder: Path

    def path(self, stage: str) -> Path:
        """File of a stage's record."""
        return self.folder / layout.stage_record(stage)

    def read(self, stage: str) -> Mapping[str, Any]:
        """The record of a stage; empty where there is none, or a broken one."""
        with suppress(InputError):
            return {**read_json(self.path(stage), StageRecord, "a record of the run", default={})}
        return {}

    def results(self, stage: str) -> Results:
        """What a stage left; empty as long as it is not done."""
        return read_results(self.folder / layout.stage_results(stage)) or {}

    def begin(self, stage: str, command: str, key: str) -> None:
        """Record that a stage runs.

        Args:
            stage: Name of the stage.
            command: Command of ``dgs`` that it runs.
            key: Hash of its settings and inputs.
        """
        self._write(stage, {"name": stage, "command": command, "key": key, "status": RUNNING})

    def end(self, stage: str, results: Results, seconds: float, device: str) -> None:
        """Record that a stage is done.

        Args:
            stage: Name of the stage.
            results: What it left. The disk must have it already.
            seconds: How long it took.
            device: What it ran on.
        """
        write_results(self.folder / layout.stage_results(stage), results)
        self._write(stage, {**self.read(stage), "status": DONE, "seconds": seconds, "device": device})

    def reopen(self, stage: str) -> None:
        """Record that a stage which was done has to run again."""
        self._write(stage, {**self.read(stage), "status": RUNNING})

    def _write(self, stage: str, record: Mapping[str, Any]) -> None:
        own = {"version": __version__, "versions": versions()}
        write_json(self.path(stage), {**record, **own}, durable=True)

    def status(self, stage: str, key: str) -> str:
        """How far a stage is.

        Args:
            stage: Name of the stage.
            key: Hash of its settings and inputs as they are now.

        Returns:
            ``done``; ``resume``: begun with these settings, or done and then damaged; ``changed``: run with others; or
            ``new``.
        """
        record = self.read(stage)
        if not record:
            return "new"
        if record.get("key") != key:
            return "changed"
        results = self.results(stage)
        done = record.get("status") == DONE and results and not changes(self.folder, results)
        return DONE if done else "resume"

    def damage(self, stage: str, key: str, *, hashes: bool = False) -> dict[str, str]:
        """Results of a finished stage that are not as it left them: their names, and what is wrong with each.

        Args:
            stage: Name of the stage.
            key: Hash of its settings and inputs as they are now. A stage with another key has nothing to be kept.
            hashes: Compare hashes, too, for which all files are read.
        """
        record = self.read(stage)
        done = record.get("key") == key and record.get("status") == DONE
        return changes(self.folder, self.results(stage), hashes) if done else {}

    def version_changes(self, stage: str) -> list[str]:
        """Versions of libraries that are others now than when a stage was run, such as ``torch 2.14.0, now 2.15.0``."""
        before, now = self.read(stage).get("versions", {}), versions()
        return [f"{name} {before[name]}, now {now.get(name)}" for name in before if before[name] != now.get(name)]

    def check_removable(self, stage: str) -> None:
        """Check that nothing but this run wrote the files of a stage, before they are removed.

        Raises:
            InputError: If there are files without a record, or files that the stage did not write.
        """
        present, results = self._present(stage), self.results(stage)
        if not self.read(stage):
            foreign = present
            expected = "a free place for the results of the stage"
        elif results:
            foreign = [name for name in present if name not in results and not is_passing(name)]
            expected = "only the files that the stage left"
        else:
            formats = _REPORT_FORMATS if stage == layout.REPORT else _FORMATS
            foreign = [name for name in present if not name.endswith(formats) and not is_passing(name)]
            expected = "only files that the unfinished stage can have written"
        if foreign:
            found = f"{len(foreign)} files that this run did not write ({listed(foreign, 3)})"
            place = next(part for part in layout.left_by(stage) if f"{foreign[0]}/".startswith(f"{part}/"))
            raise InputError(self.folder / place, found, expected, _REMEDY)

    def clear(self, stage: str) -> None:
        """Remove the record of a stage, and the files that it wrote. Files that were changed since are set aside.

        So are the files of a report that was cut short: a table or a figure beside them may be yours.

        Raises:
            InputError: See :meth:`check_removable`.
        """
        self.check_removable(stage)
        results = self.results(stage)
        self.set_aside(changes(self.folder, results) if results or stage != layout.REPORT else self._present(stage))
        remove(self.folder, self._present(stage))
        for path in (layout.stage_results(stage), layout.stage_record(stage)):
            (self.folder / path).unlink(missing_ok=True)

    def set_aside(self, names: Iterable[str]) -> list[str]:
        """Move results that something else than the run has changed to ``set_aside``, so that they are made anew.

        Args:
            names: Their names, as from :func:`~dgs_lightning.runs.results.changes`.

        Returns:
            Those that were moved. Missing and empty ones leave nothing to move.
        """
        moved = []
        for name in names:
            path, place = self.folder / name, self.folder / layout.SET_ASIDE / name
            if path.is_file() and path.stat().st_size:
                place.parent.mkdir(parents=True, exist_ok=True)
                os.replace(path, place)
                moved.append(name)
            else:
                path.unlink(missing_ok=True)
        return moved

    def adopt(self, stage: str) -> None:
        """Mark the folders of a stage that have lost the card that proves what they are: the record proves it, too."""
        results = self.results(stage)
        for name in results:
            path = self.folder / name
            marked = (path.parent / MARK).exists()
            if path.name in (CARD, LATENTS_CARD) and path.parent.is_dir() and not path.exists() and not marked:
                below = f"{Path(name).parent.as_posix()}/"
                inside = {n.removeprefix(below): held.sha256 for n, held in results.items() if n.startswith(below)}
                Unfinished(path.parent, stage).adopt(inside)

    def _present(self, stage: str) -> list[str]:
        return list(files_of(self.folder, layout.left_by(stage)))
