"""What a report reads of a run, without its images, as one small file; and the run that such a file opens as."""

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, TypedDict, cast

import numpy as np

from dgs_lightning.bounds import AtLeast, Between
from dgs_lightning.data.cards import Card
from dgs_lightning.documents.files import read_json
from dgs_lightning.errors import InputError
from dgs_lightning.files import write_text
from dgs_lightning.reporting.album import example_classes
from dgs_lightning.reporting.folder import Listing, RunFolder, read_run
from dgs_lightning.reporting.records import (
    Accuracies,
    ClassAccount,
    Cost,
    Draw,
    Result,
    RunSettings,
    SmoothedDistance,
)
from dgs_lightning.runs import layout
from dgs_lightning.runs.layout import ORIGINAL, SetName

RECORDS = "records.json"
SCALE = 10**6  # difficulties are kept in whole numbers of 1 / SCALE
Steps = list[Annotated[int, Between(0, SCALE)]]  # from each difficulty to the next greater one; the first from 0
Count = Annotated[int, AtLeast(0)]
PARTS = (layout.DISTILLED, layout.POOLS, layout.IMPORTED)


class KeptTraining(Result):
    """A finished training."""

    folder: str


class KeptSelection(TypedDict, total=False):
    """How a distilled set was selected: for the classes that a figure shows, or else how near it is."""

    intervals: Annotated[int, Between(1, 1000)]
    classes: dict[str, ClassAccount | SmoothedDistance]
    smoothing: dict[str, Any] | str | None
    features: str


class Records(TypedDict):
    """Content of ``records.json``."""

    settings: RunSettings
    card: Card
    originals: dict[str, Count]  # images by label
    versions: dict[str, str]
    differences: list[str]  # from the paper's set-up
    cross_fitted: bool
    unfinished: list[str]
    folders: dict[str, list[str]]  # names by the part of the run
    scored: list[str]
    trainings: list[KeptTraining]
    costs: list[Cost]
    measures: dict[str, dict[str, float]]  # by distilled set
    selections: dict[str, KeptSelection]
    answers: dict[str, dict[str, dict[str, Count]]]  # set -> label -> label that a classifier gives -> images
    difficulties: dict[str, dict[str, Steps]]  # set -> label


class KeptRun(RunFolder):
    """A run of which only ``records.json`` is left."""

    has_pictures = False

    def __init__(self, folder: Path, records: Records, changes: Mapping[str, Any]) -> None:
        super().__init__(folder, {**records["settings"], **changes})
        self.records = records

    @property
    def results(self) -> list[tuple[str, Result]]:
        """The folder of each finished training, and its result."""
        return [(training["folder"], training) for training in self.records["trainings"]]

    @property
    def versions(self) -> Mapping[str, str]:
        """Versions of the libraries that the records were kept with."""
        return self.records["versions"]

    @cached_property
    def costs(self) -> list[Cost]:
        """Time of every finished stage."""
        return [Cost(**cast(dict[str, Any], cost)) for cost in self.records["costs"]]

    @property
    def unfinished(self) -> list[str]:
        """Stages that had not finished."""
        return self.records["unfinished"]

    @property
    def card(self) -> Mapping[str, Any]:
        """The name and the labels on the card of the original images."""
        return self.records["card"]

    @property
    def is_cross_fitted(self) -> bool:
        """Whether each original image is scored by an estimator that was not trained on it."""
        return self.records["cross_fitted"]

    def folders(self, part: str) -> list[str]:
        """Names of the folders in a part of the run."""
        return self.records["folders"].get(part, [])

    def image_folder(self, name: str) -> None:
        """No images are kept."""

    def is_scored(self, name: str) -> bool:
        """Whether a set had scores that were stored apart from it."""
        return name in self.records["scored"]

    def counts(self, name: str) -> dict[str, int]:
        """Number of images of ``original`` or ``full``, or of the scored images of another set, by label."""
        return self.records["originals"] if name in (ORIGINAL, layout.FULL) else super().counts(name)

    def selection(self, name: SetName) -> Mapping[str, Any]:
        """How a distilled set was selected; empty where nothing is kept of it."""
        return cast(Mapping[str, Any], self.records["selections"].get(str(name), {}))

    def measures(self, name: SetName) -> Mapping[str, float]:
        """Means of what was measured of refined images; empty if they were not refined."""
        return self.records["measures"].get(str(name), {})

    def answers(self, name: str) -> list[tuple[str, str]]:
        """The label of each scored image of a set, and the one that a classifier gives it."""
        kept = self.records["answers"].get(name, {})
        return [(label, predicted) for label in kept for predicted, n in kept[label].items() for _ in range(n)]

    def _read_listing(self, name: str) -> Listing:
        kept = self.records["difficulties"].get(name, {})
        return {label: [("", float(d)) for d in np.cumsum(steps) / SCALE] for label, steps in kept.items()}


def open_run(folder: str | Path, changes: Mapping[str, Any] | None = None) -> RunFolder:
    """Open the folder of a run, or one with the records that are kept of a run.

    Args:
        folder: The folder.
        changes: Settings that take the place of those of the experiment.

    Raises:
        InputError: If it is none of them, or the records are broken.
    """
    path = Path(folder) / RECORDS
    if not path.is_file() or (path.parent / layout.STAGES).is_dir():
        return read_run(folder, changes)
    remedy = "Keep the records of the run again (dgs report RUN --keep FOLDER)"
    records = read_json(path, Records, "the records of a run", remedy)
    for name, by_label in records["difficulties"].items():
        for label, steps in by_label.items():
            if sum(steps) > SCALE:
                raise InputError.broken(path, f"a difficulty above 1 ({name}, {label})", "difficulties up to 1", remedy)
    return KeptRun(Path(folder), records, changes or {})


def keep_records(run: RunFolder, differences: Sequence[str], folder: Path) -> None:
    """Write what a report reads of a run, without its images and without paths of this machine.

    A few numbers of each image are kept, so the file is small: 60,000 originals need about 0.2 MB.

    Args:
        run: The run.
        differences: How its set-up differs from the paper's.
        folder: Folder for ``records.json``.
    """
    pools, sets = run.pools, {str(name): name for name in run.distilled}
    judged = [layout.judged(pool) for pool in pools]
    imported = [layout.scored_as(f"{layout.IMPORTED}/{name}") for name in run.imported]
    settings = {name: value for name, value in run.settings.items() if name in RunSettings.__annotations__}
    data = Path(str(settings.get("data") or "").removesuffix("/train")).name
    records = {
        "settings": settings | {"name": run.name, "data": data or None},
        "card": {name: run.card[name] for name in ("name", "labels") if name in run.card},
        "originals": run.counts(ORIGINAL),
        "versions": run.versions,
        "differences": differences,
        "cross_fitted": run.is_cross_fitted,
        "unfinished": run.unfinished,
        "folders": {part: run.folders(part) for part in PARTS},
        "scored": [name for name in (ORIGINAL, *pools, *judged, *imported) if run.is_scored(name)],
        "trainings": [{"folder": stage} | _accuracies(result) for stage, result in run.results],
        "costs": [asdict(cost) for cost in run.costs],
        "measures": _filled({name: run.measures(of) for name, of in sets.items()}),
        "selections": _filled({name: _selection(run, of) for name, of in sets.items()}),
        "answers": _filled({name: _answers(run, name) for name in (ORIGINAL, *pools, *judged, *imported)}),
        "difficulties": _filled({name: _steps(run, name) for name in (ORIGINAL, *pools, *sets)}),
    }
    write_text(folder / RECORDS, _text(_without_places(records)))


def _filled(parts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: part for name, part in parts.items() if part}


def _accuracies(result: Result) -> dict[str, Any]:
    """The accuracies of a result, without its history."""
    numbers, subsets = Accuracies.__annotations__, result.get("subsets", {})
    kept = {name: {key: value for key, value in of.items() if key in numbers} for name, of in subsets.items()}
    return {key: value for key, value in result.items() if key in numbers} | _filled({"subsets": kept})


def _selection(run: RunFolder, name: SetName) -> dict[str, Any]:
    """How a set was selected: for the classes that a figure shows, or else how near it is."""
    selection = run.selection(name)
    shown = example_classes(run, [*run.difficulties(str(name))])[0] if name in run.distilled_by_ipc else []
    accounts = selection.get("classes", {}) if selection.get("smoothing") else {}
    classes = {label: _account(of, label in shown) for label, of in accounts.items()}
    found = {key: selection.get(key) for key in ("intervals", "smoothing", "features")}
    return _filled(found | {"classes": classes})


def _account(account: Mapping[str, Any], shown: bool) -> dict[str, dict[str, Any]]:
    if not shown:
        return {"smoothed": {"distance": account.get("smoothed", {}).get("distance")}}
    stages = {key: account[key] for key in ("unsmoothed", "smoothed") if key in account}
    return {key: {part: of[part] for part in Draw.__annotations__ if part in of} for key, of in stages.items()}


def _answers(run: RunFolder, name: str) -> dict[str, dict[str, int]]:
    """How many images of each label are given each label."""
    counts = Counter(run.answers(name))
    found: dict[str, dict[str, int]] = defaultdict(dict)
    for (label, predicted), count in counts.items():
        found[label][predicted] = count
    return found


def _steps(run: RunFolder, name: str) -> dict[str, list[int]]:
    """The difficulties of a set by label, each as its distance to the one before it."""
    found = run.difficulties(name).items()
    return {label: np.diff((of * SCALE).round().astype(int), prepend=0).tolist() for label, of in found}


def _without_places(value: Any) -> Any:  # noqa: ANN401  (any value of JSON)
    """A value in which each path of this machine is replaced by its last part."""
    if isinstance(value, Mapping):
        return {key: _without_places(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_without_places(part) for part in value]
    return Path(value).name if isinstance(value, str) and value.startswith(("/", "~", "./", "../")) else value


def _text(records: Mapping[str, Any]) -> str:
    """JSON with a line for each item of each part."""

    def lines(part: Any) -> str:  # noqa: ANN401
        if isinstance(part, Mapping):
            return "{\n" + ",\n".join(f"{line(key)}: {line(part[key])}" for key in part) + "\n}"
        return "[\n" + ",\n".join(map(line, part)) + "\n]" if isinstance(part, list) else line(part)

    def line(item: Any) -> str:  # noqa: ANN401
        return json.dumps(item, ensure_ascii=False, separators=(",", ":"), allow_nan=False)

    return "{\n" + ",\n".join(f"{line(key)}: {lines(part)}" for key, part in records.items()) + "\n}\n"
