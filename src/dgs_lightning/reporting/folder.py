"""Reads an experiment's folder: results, scores, images and costs, finished or not."""

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dgs_lightning.configs import load_yaml
from dgs_lightning.data.cards import read_card, versions
from dgs_lightning.data.classes import in_natural_order, readable_name
from dgs_lightning.data.folders import read_scores, scan_images
from dgs_lightning.data.generated import REFINEMENT_MEASURES
from dgs_lightning.data.records import MANIFEST, ImageRecord, read_manifest
from dgs_lightning.data.trees import Links
from dgs_lightning.documents.files import read_yaml
from dgs_lightning.errors import InputError
from dgs_lightning.reporting.names import show_row, split_variant, table_order, trained_row
from dgs_lightning.reporting.published import Setting
from dgs_lightning.reporting.records import (
    REMEDY,
    Cost,
    Evaluation,
    Recognition,
    Result,
    RunSettings,
    Selection,
    evaluations_of,
    read_record,
)
from dgs_lightning.runs import layout
from dgs_lightning.runs.layout import SetName
from dgs_lightning.runs.methods import SET
from dgs_lightning.runs.records import DONE, StageRecord

Difficulties = Mapping[str, NDArray[np.float64]]  # label -> difficulties of its images
Listing = Mapping[str, list[tuple[str, float | None]]]  # label -> file names and difficulties, from easy to hard
_PARTS = (layout.STAGES, layout.EVALUATION, layout.DISTILLED, layout.POOLS, layout.SCORES)


class RunFolder:
    """An experiment's folder with the settings of its ``experiment.yaml``. It must not change while it is read."""

    has_pictures = True  # or only what is kept of a run without them

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.folder = folder
        self.settings = settings
        self._listings: dict[str, Listing] = {}
        self._recognitions: dict[str, Recognition | None] = {}

    @property
    def name(self) -> str:
        """Name of the experiment."""
        return str(self.settings.get("name") or self.folder.resolve().name)

    @property
    def title(self) -> str:
        """Title of the experiment; its name if it has none."""
        return str(self.settings.get("title") or self.name)

    @property
    def seed(self) -> int:
        """The run's seed."""
        return int(self.settings.get("seed") or 0)

    @property
    def variants(self) -> Mapping[str, Mapping[str, Any]]:
        """The variants of methods that the experiment defines."""
        return self.settings.get("variants") or {}

    @property
    def versions(self) -> Mapping[str, str]:
        """Versions of the libraries that report the run."""
        return versions()

    @property
    def links(self) -> Links:
        """Which links in the data outside of the run are followed."""
        return "follow" if self.settings.get("links") == "follow" else "refuse"

    @property
    def dataset(self) -> str:
        """Key of the data set: its class list, else the name on its card, else the name of its folder."""
        name = self.settings.get("classes") or self.card.get("name") or self.settings.get("data") or self.name
        return Path(str(name).removesuffix("/train")).name

    def method(self, row: str) -> str:
        """The method of a row of the experiment."""
        return split_variant(row, self.variants)[0]

    def show(self, row: str, ipc: int | None = None) -> str:
        """The name of a row in tables and figures, or of its distilled set if an IPC is given."""
        return show_row(row, self.variants) + ("" if ipc is None else f", IPC {ipc}")

    @cached_property
    def evaluations(self) -> list[Evaluation]:
        """All finished trainings of the rows and protocols that the settings ask for, ordered by path."""
        protocols = self.settings.get("protocols") or [layout.PROTOCOL]
        return [
            e
            for e in self.all_evaluations
            if self._has_row(e.training.trained_on.row, e.ipc) and e.training.protocol in protocols
        ]

    @cached_property
    def all_evaluations(self) -> list[Evaluation]:
        """Those, and the finished trainings that only scores compare.

        A training is there once for all validation images, and once for each subset of them.

        Raises:
            InputError: If a result is broken.
        """
        found = [e for stage, result in self.results for e in evaluations_of(stage, result, self.folder, self.seed)]
        networks = self.settings.get("networks")
        return [
            e
            for e in found
            if (networks is None or e.training.network in networks)
            and self._asks_for("draws", e.draw)
            and self._asks_for("repeats", e.repeat)
        ]

    @property
    def results(self) -> list[tuple[str, Result]]:
        """The folder of each finished training, and its result."""
        paths = sorted(self.folder.glob(f"{layout.EVALUATION}/**/seed*/{layout.RESULT}"))
        return [(path.parent.relative_to(self.folder).as_posix(), read_record(path, Result)) for path in paths]

    def _asks_for(self, setting: str, number: int) -> bool:
        """Whether the settings ask for the draw or repeat with a number, from 0."""
        count = self.settings.get(setting)
        return number >= 0 and (count is None or number < count)

    @property
    def distilled(self) -> list[SetName]:
        """The distilled sets that the settings ask for, of all draws."""
        names = map(SetName.parse, self.folders(layout.DISTILLED))
        return [name for name in names if self._has_row(name.row, name.ipc) and self._asks_for("draws", name.draw)]

    @property
    def distilled_by_ipc(self) -> list[SetName]:
        """The distilled sets of the first draw that have an IPC, in the order of the tables."""
        sets = [name for name in self.distilled if name.ipc is not None and name.draw == 0]
        return sorted(sets, key=lambda name: (name.ipc, table_order("method", self.method(name.row)), name))

    def sets(self, row: str, ipc: int) -> list[SetName]:
        """The distilled sets of a row, one for each draw."""
        row = trained_row(row, self.variants)
        return [name for name in self.distilled if (name.row, name.ipc) == (row, ipc)]

    def _has_row(self, row: str, ipc: int | None) -> bool:
        """Whether the settings ask for a row; without settings, every row that exists is shown."""
        methods, ipcs = self.settings.get("methods"), self.settings.get("ipc")
        ipcs = [ipcs] if isinstance(ipcs, int) else ipcs
        return (methods is None or row in methods) and (ipcs is None or ipc is None or ipc in ipcs)

    @property
    def pools(self) -> list[str]:
        """Names of the image pools of the first draw, with a pool that was made outside of this run."""
        own = list(filter(layout.is_first_draw, self.folders(layout.POOLS)))
        return own + [layout.GIVEN_POOL] * self.is_scored(layout.GIVEN_POOL)

    @property
    def imported(self) -> list[str]:
        """Names of the scored sets of other people that the settings ask for."""
        rows = {self.method(row) for row in self.settings.get("methods") or ()}
        names = [name for name in self.folders(layout.IMPORTED) if f"{SET}{name}" in rows]
        return [name for name in names if self.is_scored(layout.scored_as(f"{layout.IMPORTED}/{name}"))]

    @cached_property
    def costs(self) -> list[Cost]:
        """Time of every finished stage, ordered by name."""
        costs = []
        for path in sorted(self.folder.glob(layout.stage_record("**/*"))):
            record = read_record(path, StageRecord)
            if record.get("status") == DONE and "name" in record:
                manifest = self.folder / record["name"] / MANIFEST
                images = len(manifest.read_bytes().splitlines()) if manifest.is_file() else None
                costs.append(Cost(record["name"], float(record.get("seconds", 0)), images, record.get("device")))
        return costs

    @property
    def unfinished(self) -> list[str]:
        """Stages of the experiment that have not finished, except the report itself."""
        paths = self.folder.glob(layout.stage_settings("**/*"))
        planned = {layout.stage_of(path.relative_to(self.folder).as_posix()) for path in paths}
        return sorted(planned - {cost.stage for cost in self.costs} - {layout.REPORT})

    def setting(self, row: str, ipc: int, network: str) -> Setting:
        """The setting of a row, as in the keys of the paper's tables."""
        method, variant = split_variant(row, self.variants)
        return Setting(self.dataset, network, method, ipc, variant)

    def image_folder(self, name: str) -> Path | None:
        """Folder of the images of ``original``, or of a pool or distilled set; None if it does not exist."""
        for inside in layout.image_folders(name):
            if (self.folder / inside).is_dir():
                return self.folder / inside
        config = self.folder / layout.stage_settings(layout.scores(name))  # names the folder of images made elsewhere
        outside = _init_args(load_yaml(config), "data").get("predict") if config.is_file() else None
        return Path(outside) if isinstance(outside, str) and os.path.isdir(outside) else None

    def scores_folder(self, name: str) -> Path | None:
        """Folder of a set's scores; None if they are not stored apart from the set."""
        folder = self.folder / layout.scores(name)
        return folder if (folder / MANIFEST).is_file() else None

    def is_scored(self, name: str) -> bool:
        """Whether a set has scores that are stored apart from it."""
        return self.scores_folder(name) is not None

    @property
    def is_cross_fitted(self) -> bool:
        """Whether each original image is scored by an estimator that was not trained on it."""
        folder = self.scores_folder(layout.ORIGINAL)
        return bool(folder and read_card(folder).get("scoring", {}).get("cross_fit"))

    def difficulties(self, name: str) -> Difficulties:
        """Difficulties of the scored images of ``original``, ``full``, a pool or a set, by label, ascending."""
        scored = {label: [d for _, d in images if d is not None] for label, images in self._listing(name).items()}
        return {label: np.array(difficulties) for label, difficulties in scored.items() if difficulties}

    def counts(self, name: str) -> dict[str, int]:
        """Number of images of ``original``, ``full``, a pool or a set by label; empty where there are none."""
        return {label: len(images) for label, images in self._listing(name).items()}

    def images_by_label(self, name: str) -> dict[str, list[tuple[Path, float | None]]]:
        """Paths and difficulties of the images of ``original``, a pool or a set by label, from easy to hard.

        Images without difficulty come last. The result is empty if there is no such set.
        """
        folder = self.image_folder(name)
        if folder is None:
            return {}
        return {label: [(folder / file, d) for file, d in images] for label, images in self._listing(name).items()}

    def _listing(self, name: str) -> Listing:
        """File names and difficulties of a set; each manifest is read once."""
        name = layout.ORIGINAL if name == layout.FULL else name
        if name not in self._listings:
            self._listings[name] = self._read_listing(name)
        return self._listings[name]

    def _read_listing(self, name: str) -> Listing:
        if scores := self.scores_folder(name):
            return _by_difficulty(read_scores(scores).values())
        images = self.image_folder(name)
        return _by_difficulty(_read_records(images, self.links) if images else ())

    def selection(self, name: SetName) -> Mapping[str, Any]:
        """The report ``selection.json`` of how a distilled set was selected; empty without that file."""
        return read_record(self.folder / layout.distilled(name) / layout.SELECTION, Selection, default={})

    def measures(self, name: SetName) -> Mapping[str, float]:
        """Means of what was measured of the images of a set when their latents were refined; empty if none were."""
        measures: Mapping[str, float] = read_card(self.folder / layout.REFINED / str(name)).get("measures", {})
        return measures if measures.keys() >= set(REFINEMENT_MEASURES) else {}

    @cached_property
    def intervals(self) -> int:
        """Number of difficulty intervals in the run's first selection; 10 without a selection."""
        selections = (self.selection(name) for name in self.distilled)
        return next((number for selection in selections if (number := selection.get("intervals"))), 10)

    def readable(self, label: str) -> str:
        """Name of a class: from the original set's card, else ImageNet's name of a WordNet id, else the label."""
        names: Mapping[str, str] = self.card.get("labels") or {}
        return names.get(label) or readable_name(label)

    @cached_property
    def card(self) -> Mapping[str, Any]:
        """The card of the original images; empty without one."""
        folder = self.image_folder(layout.ORIGINAL)
        return {} if folder is None else read_card(folder)

    def is_judged(self, pool: str) -> bool:
        """Whether a judge says how legible a pool is."""
        return self.is_scored(layout.judged(pool))

    def legible(self, pool: str) -> Recognition | None:
        """How well the judge recognises a pool's images; without a judge, see :meth:`recognised`."""
        return self.recognised(layout.judged(pool) if self.is_judged(pool) else pool)

    def recognised(self, name: str) -> Recognition | None:
        """How well the difficulty estimator recognises the images of ``original`` or a pool.

        It is None where the set has no scores with predicted labels. Each set's scores are read once for it.
        """
        if name not in self._recognitions:
            self._recognitions[name] = Recognition.of(self.answers(name))
        return self._recognitions[name]

    def answers(self, name: str) -> list[tuple[str, str]]:
        """The label of each scored image of a set, and the one that the estimator gives it; empty without scores."""
        folder = self.scores_folder(name)
        records = read_scores(folder).values() if folder else ()
        return [(record.label, record.predicted) for record in records if record.predicted is not None]

    def folders(self, part: str) -> list[str]:
        """Names of the folders in a part of the run."""
        return sorted(path.name for path in (self.folder / part).glob("[!.]*") if path.is_dir())


def read_run(folder: str | Path, changes: Mapping[str, Any] | None = None) -> RunFolder:
    """Open an experiment's folder.

    Args:
        folder: The folder.
        changes: Settings that take the place of those of its ``experiment.yaml``.

    Raises:
        InputError: If it does not exist, or holds no part of an experiment.
    """
    folder = Path(folder)
    if not any((folder / part).is_dir() for part in _PARTS):
        found = "no run" if folder.is_dir() else "no such folder"
        expected = f"the folder of a run, with {', '.join(_PARTS[:-1])} or {_PARTS[-1]} in it"
        raise InputError(folder, found, expected, "Give the folder that 'dgs run' wrote, runs/NAME by default")
    path = folder / layout.EXPERIMENT
    expected = "the settings that 'dgs run' wrote"
    settings = read_yaml(path, RunSettings, expected, REMEDY) if path.is_file() else {}
    return RunFolder(folder, {**settings, **(changes or {})})


def _read_records(images: Path, links: Links) -> list[ImageRecord]:
    return read_manifest(images) if (images / MANIFEST).is_file() else scan_images(images, links)


def _by_difficulty(records: Iterable[ImageRecord]) -> Listing:
    by_label: dict[str, list[tuple[str, float | None]]] = defaultdict(list)
    for record in records:
        by_label[record.label].append((record.file_name, record.difficulty))
    for images in by_label.values():
        images.sort(key=lambda image: (image[1] is None, image[1] or 0, image[0]))
    return {label: by_label[label] for label in in_natural_order(by_label)}


def _init_args(config: Mapping[str, Any], part: str) -> Mapping[str, Any]:
    """Settings of the class that a part of a stage's config names."""
    section = config.get(part)
    return (section.get("init_args") or {}) if isinstance(section, dict) else {}
