"""The folder that a run writes: whether it is free, this run's, or something that must not be touched."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dgs_lightning.configs import load_yaml
from dgs_lightning.errors import InputError, listed
from dgs_lightning.experiment.settings import Experiment
from dgs_lightning.experiment.stage import Stage
from dgs_lightning.runs import layout
from dgs_lightning.runs.records import DONE, Records

_OWN = (layout.EXPERIMENT, layout.STAGES)  # what tells the folder of a run
_NO_RESULT = (  # settings that change no result, but for the rows that a generator adds, which methods has
    *("output", "jobs", "launcher", "ray", "threads", "fingerprint", "logger"),
    *("generator", "generator_methods"),
)


@dataclass(frozen=True)
class RunOutput:
    """The folder of a run, before anything is written into it.

    Args:
        folder: The folder.
        experiment: The experiment that is to be run in it.
        records: Its records.
    """

    folder: Path
    experiment: Experiment
    records: Records

    def check(self, stages: Sequence[Stage], keys: Mapping[str, str]) -> None:
        """Check that a run would touch neither its inputs nor files of others.

        Args:
            stages: The stages of the run.
            keys: Their keys.

        Raises:
            InputError: If it would, or if another version or another experiment made what is there.
        """
        self.check_place(stages)
        kept = self.kept()
        for stage in stages:
            status = DONE if kept else self.records.status(stage.name, keys[stage.name])
            if status == "changed":
                self._check_experiment(stage)
            if status in ("changed", "new"):
                self.records.check_removable(stage.name)

    def check_place(self, stages: Sequence[Stage]) -> None:
        """The part of :meth:`check` that does not depend on the content of the data, which takes long to read.

        Raises:
            InputError: See :meth:`check`.
        """
        self._check_inputs(stages)
        self._check_occupied()
        self._check_version()
        for stage in stages:
            self._check_links(stage)

    def _check_inputs(self, stages: Sequence[Stage]) -> None:
        """Check that no folder that is written is, holds, or lies in a file or folder that is read."""
        written = [self.folder / part for stage in stages for part in layout.left_by(stage.name)]
        written += [self.folder / part for part in (layout.STAGES, layout.SET_ASIDE)]
        places = {path.resolve(): path for path in written}
        for read in sorted({path for stage in stages for path in stage.inputs}):
            source = Path(read).resolve()
            for place, shown in places.items():
                if place == source or place in source.parents or source in place.parents:
                    found = f"a folder for results that is or touches {read}, which the run reads"
                    raise InputError.occupied(shown, found, "a folder apart from the data", self._elsewhere())

    def _check_occupied(self) -> None:
        """Check that the folder is new, empty, or that of a run."""
        if self.folder.exists() and not self.folder.is_dir():
            raise InputError.occupied(self.folder, "a file", "a folder", "Give another --output")
        names = sorted(path.name for path in self.folder.iterdir()) if self.folder.is_dir() else []
        others = [name for name in names if not name.startswith(layout.LOCK)]
        if others and not any(name in others for name in _OWN):
            found, expected = f"files that are not a run's ({listed(others)})", "an empty folder, or that of a run"
            raise InputError.occupied(self.folder, found, expected, self._elsewhere())

    def _elsewhere(self) -> str:
        return f"Give a folder of the run's own: --output {self.folder / self.experiment.name}"

    def kept(self) -> str | None:
        """Version before 0.3.0 that finished this very experiment. Its run has no lists of results, and is kept."""
        version = self._earlier_version()
        return version if version and not self._why_not_kept() else None

    def _earlier_version(self) -> str | None:
        """Version that made the run, where its records have no lists of results."""
        old = [record for record in self._all_records() if "versions" not in record]
        return str(old[0].get("version", "0.1.0")) if old else None

    def _all_records(self) -> list[Mapping[str, Any]]:
        paths = sorted(self.folder.glob(layout.stage_record("**/*")))
        names = [layout.stage_of(path.relative_to(self.folder).as_posix()) for path in paths]
        return [record for name in names if (record := self.records.read(name))]

    def _why_not_kept(self) -> str:
        """What an earlier version's run lacks to count as finished; empty if it lacks nothing."""
        unfinished = [str(record.get("name")) for record in self._all_records() if record.get("status") != DONE]
        if unfinished or not (self.folder / layout.SUMMARY).is_file():
            return f", not finished ({listed(unfinished or [layout.SUMMARY])})"
        path = self.folder / layout.EXPERIMENT
        made = {**vars(Experiment("", [], [])), "draws": 1, **(load_yaml(path) if path.is_file() else {})}
        found, asked = _of_results(made), _of_results(vars(self.experiment))
        changed = [f"{name}: {found.get(name)}" for name in asked if found.get(name) != asked[name]]
        return f", with other settings ({listed(changed)})" if changed else ""

    def _check_version(self) -> None:
        """Check that this version, or one with the same kind of records, made the run, or that it is kept."""
        version = self._earlier_version()
        if version and (lack := self._why_not_kept()):
            remedy = f"Give another --output, or use version {version}; 'dgs report' reads its results"
            found, expected = f"a run of version {version} without lists of its results{lack}", "a run that has them"
            raise InputError.occupied(self.folder, found, expected, remedy)

    def _check_experiment(self, stage: Stage) -> None:
        """Check that the results to be replaced are of this experiment, not of another one in the same folder."""
        path = self.folder / layout.EXPERIMENT
        found: Mapping[str, Any] = load_yaml(path) if path.is_file() else {}
        if (name := found.get("name", self.experiment.name)) != self.experiment.name:
            what, expected = f"results of the experiment {name}", f"results of {self.experiment.name}"
            raise InputError.occupied(self.folder / stage.name, what, expected, self._elsewhere())

    def _check_links(self, stage: Stage) -> None:
        """Check that no part of a stage's place in the folder is a symbolic link, which would lead elsewhere."""
        for part in layout.left_by(stage.name):
            path = self.folder / part
            for place in (path, *path.parents):
                if place == self.folder:
                    break
                if place.is_symlink():
                    raise InputError(place, "a symbolic link", "a folder of the run", "Remove the link")


def _of_results(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that results depend on, in plain values as YAML has them."""
    found: dict[str, Any] = yaml.safe_load(yaml.safe_dump(dict(settings)))
    found = {name: value for name, value in found.items() if name not in _NO_RESULT}
    found["variants"] = {name: value for name, value in found["variants"].items() if name in found["methods"]}
    if found["validation"] == "all":  # as versions before 0.3.0 wrote it
        found["validation"] = []
    return found
