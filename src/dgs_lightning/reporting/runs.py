"""What an experiment's folder holds: results, scores, images and costs, as far as the run has come."""

import json
import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dgs_lightning.configs import load_yaml
from dgs_lightning.data.cards import read_card
from dgs_lightning.data.classes import readable_name
from dgs_lightning.data.folders import scan_images
from dgs_lightning.data.records import MANIFEST, read_manifest
from dgs_lightning.errors import InputError
from dgs_lightning.reporting.names import split_ipc, split_variant
from dgs_lightning.reporting.published import PUBLISHED, SETTINGS, SIDE, Setting

Difficulties = Mapping[str, NDArray[np.float64]]  # label -> difficulties of its images
ORIGINAL, FULL = "original", "full"
SELECTION = "selection.json"
_KINDS = {"methods": list, "networks": list, "ipc": int | list, "seed": int, "repeats": int, "variants": dict}
_PARTS = ("stages", "evaluation", "distilled", "pools", "scores")


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One network trained on one set: ``evaluation/ROW-ipcN/NETWORK/seedK/result.json``; IPC None: all images."""

    row: str
    ipc: int | None
    network: str
    seed: int
    accuracy_last: float
    accuracy_best: float


@dataclass(frozen=True, slots=True)
class Cost:
    """Time of a finished stage, and the images it wrote or scored where it did."""

    stage: str
    seconds: float
    images: int | None
    device: str | None


class Run:
    """An experiment's folder; it must not change while it is read.

    Args:
        folder: The folder.
        settings: The experiment's settings, as its ``experiment.yaml`` has them.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.folder = folder
        self.settings = settings
        self._listings: dict[str, Mapping[str, tuple[list[str], NDArray[np.float64]]]] = {}

    @property
    def name(self) -> str:
        """Name of the experiment."""
        return str(self.settings.get("name") or self.folder.resolve().name)

    @property
    def seed(self) -> int:
        """The run's seed."""
        return int(self.settings.get("seed") or 0)

    @property
    def variants(self) -> Mapping[str, Mapping[str, Any]]:
        """Rows that the experiment defines as variants of a method."""
        return self.settings.get("variants") or {}

    @property
    def dataset(self) -> str:
        """Slug of the data set: the class list it was checked against, or the name on its card or of its folder."""
        name = self.settings.get("classes") or self._card.get("name") or self.settings.get("data") or self.name
        return Path(str(name).removesuffix("/train")).name

    @cached_property
    def evaluations(self) -> list[Evaluation]:
        """All finished downstream trainings of the experiment as it is now set, ordered by path.

        Raises:
            InputError: If a result is broken.
        """
        found = [_evaluation(path) for path in sorted(self.folder.glob("evaluation/*/*/seed*/result.json"))]
        networks, repeats = self.settings.get("networks"), self.settings.get("repeats")
        return [
            evaluation
            for evaluation in found
            if self._has_row(evaluation.row, evaluation.ipc)
            and (networks is None or evaluation.network in networks)
            and (repeats is None or 0 <= evaluation.seed - self.seed < repeats)
        ]

    @property
    def distilled(self) -> list[tuple[str, int | None]]:
        """Row of the table and images per class of each distilled set of the experiment as it is now set."""
        return [part for part in map(split_ipc, self._folders("distilled")) if self._has_row(*part)]

    def _has_row(self, row: str, ipc: int | None) -> bool:
        """Whether the settings ask for a row; a run without settings asks for what is there."""
        methods, ipcs = self.settings.get("methods"), self.settings.get("ipc")
        ipcs = [ipcs] if isinstance(ipcs, int) else ipcs
        return (methods is None or row in methods) and (ipcs is None or ipc is None or ipc in ipcs)

    @property
    def pools(self) -> list[str]:
        """Names of the image pools, those that were made elsewhere included."""
        return self._folders("pools") + ["pool"] * (self.scores_folder("pool") is not None)

    @cached_property
    def costs(self) -> list[Cost]:
        """Time of every finished stage, ordered by name."""
        records = map(read_record, sorted(self.folder.glob("stages/**/*.json")))
        return [self._cost(record) for record in records if record.get("status") == "done" and "name" in record]

    @property
    def unfinished(self) -> list[str]:
        """Stages of the experiment that have not come to their end, the report itself aside."""
        stages = self.folder / "stages"
        planned = {path.relative_to(stages).with_suffix("").as_posix() for path in stages.glob("**/*.yaml")}
        return sorted(planned - {cost.stage for cost in self.costs} - {"report"})

    def setting(self, row: str, ipc: int, network: str) -> Setting:
        """What a row of the table was measured on, as the paper's tables are keyed."""
        method, variant = split_variant(row, self.variants)
        return Setting(self.dataset, network, method, ipc, variant)

    @cached_property
    def unlike_the_paper(self) -> str:
        """How a run on a data set of the paper's differs from its own in images, length and settings, if it does."""
        published = {setting.dataset for table in PUBLISHED.values() for setting in table}
        trained = ((e.row if e.ipc is None else f"{e.row}-ipc{e.ipc}", e.network, e.seed) for e in self.evaluations)
        configs = (self.folder / f"stages/evaluation/{row}/{network}/seed{k}.yaml" for row, network, k in trained)
        config = next((path for path in configs if path.is_file()), None)
        if config is None or self.dataset not in published:
            return ""
        parts = load_yaml(config)
        data = (parts.get("data") or {}).get("init_args") or {}
        theirs, ours = [], []
        side = data.get("image_size") or self.settings.get("image_size")
        if side not in (None, SIDE):
            theirs.append(f"images of {SIDE} x {SIDE} pixels")
            ours.append(f"images of {side} x {side} pixels")
        if (length := _length(parts)) is not None:
            theirs.append("epochs that follow from the IPC")
            ours.append(length)
        if changed := self._changed_settings():
            theirs.append("its own settings")
            ours += changed
        return f"the paper has {' and '.join(theirs)}, {self.name} {' and '.join(ours)}" if ours else ""

    def _changed_settings(self) -> list[str]:
        """Settings of all rows alike that are not the published ones; those of variants have rows of their own."""
        changed = []
        for name, published in SETTINGS.items():
            section, _, key = name.rpartition(".")
            own = (self.settings.get(section) or {}) if section else self.settings
            if own.get(key, published) != published:
                changed.append(f"{name} {own[key]}")
        return changed

    def image_folder(self, name: str) -> Path | None:
        """Folder of the images of the original data, a pool or a distilled set; None where it is not to be found.

        Args:
            name: ``original``, or the name of a pool or distilled set.
        """
        for inside in ("data/train",) if name == ORIGINAL else (f"pools/{name}", f"guided/{name}", f"distilled/{name}"):
            if (self.folder / inside).is_dir():
                return self.folder / inside
        config = self.folder / "stages" / "scores" / f"{name}.yaml"  # made elsewhere: what was scored says where it is
        if not config.is_file():
            return None
        settings = load_yaml(config)
        try:
            outside = Path(settings["data"]["init_args"]["predict"])
        except (KeyError, TypeError):
            return None
        return outside if outside.is_dir() else None

    def scores_folder(self, name: str) -> Path | None:
        """Folder of the scores of a set where they are kept apart from it."""
        folder = self.folder / "scores" / name
        return folder if (folder / MANIFEST).is_file() else None

    def difficulties(self, name: str) -> Difficulties:
        """Difficulties of a set's scored images by label, ascending; empty where it is not scored.

        Args:
            name: ``original`` or ``full``, or the name of a pool or distilled set.
        """
        scored = {label: scores[~np.isnan(scores)] for label, (_, scores) in self._listing(name).items()}
        return {label: scores for label, scores in scored.items() if len(scores)}

    def images_by_label(self, name: str) -> dict[str, list[tuple[Path, float | None]]]:
        """Paths and difficulties of a set's images, from easy to hard, those without difficulty last.

        Args:
            name: ``original``, or the name of a pool or distilled set.

        Returns:
            Images by label; empty where they are not to be found.
        """
        folder = self.image_folder(name)
        if folder is None:
            return {}
        return {
            label: [
                (folder / file, None if score != score else score)
                for file, score in zip(files, scores.tolist(), strict=True)
            ]
            for label, (files, scores) in self._listing(name).items()
        }

    def _listing(self, name: str) -> Mapping[str, tuple[list[str], NDArray[np.float64]]]:
        """File names and difficulties (NaN: none) by label, from easy to hard; each manifest is read once."""
        name = ORIGINAL if name == FULL else name
        if name not in self._listings:
            folder = self.scores_folder(name) or self.image_folder(name)
            self._listings[name] = {} if folder is None else _list_images(folder)
        return self._listings[name]

    def selection(self, name: str) -> Mapping[str, Mapping[str, Any]]:
        """Account of how a distilled set was selected, by label, as ``selection.json`` has it; empty without one."""
        path = self.folder / "distilled" / name / SELECTION
        accounts: Mapping[str, Mapping[str, Any]] = read_record(path)["classes"] if path.is_file() else {}
        return accounts

    @cached_property
    def intervals(self) -> int:
        """Number of difficulty intervals of the run's selections: that of the first; 10 where there is none."""
        paths = (self.folder / "distilled" / f"{row}-ipc{ipc}" / SELECTION for row, ipc in self.distilled)
        return next((int(read_record(path)["intervals"]) for path in paths if path.is_file()), 10)

    def readable(self, label: str) -> str:
        """Name of a class: that on the original set's card, or ImageNet's of a WordNet id, or the label itself."""
        names: Mapping[str, str] = self._card.get("labels") or {}
        return names.get(label) or readable_name(label)

    @cached_property
    def _card(self) -> Mapping[str, Any]:
        folder = self.image_folder(ORIGINAL)
        return {} if folder is None else read_card(folder)

    def legible(self, pool: str) -> float | None:
        """Share of a pool's images that the judge gives their own label; None where there was no judge."""
        folder = self.scores_folder(f"judge-{pool}")
        if folder is None:
            return None
        return float(np.mean([record.predicted == record.label for record in read_manifest(folder)]))

    def _folders(self, part: str) -> list[str]:
        return sorted(path.name for path in (self.folder / part).glob("[!.]*") if path.is_dir())

    def _cost(self, record: Mapping[str, Any]) -> Cost:
        manifest = self.folder / str(record["name"]) / MANIFEST
        images = len(manifest.read_bytes().splitlines()) if manifest.is_file() else None
        return Cost(str(record["name"]), float(record.get("seconds", 0)), images, record.get("device"))


def read_run(folder: str | Path) -> Run:
    """Open an experiment's folder.

    Raises:
        InputError: If it does not exist, or nothing in it comes from an experiment.
    """
    folder = Path(folder)
    if not any((folder / part).is_dir() for part in _PARTS):
        raise InputError(
            folder,
            found="no run" if folder.is_dir() else "no such folder",
            expected=f"the folder of a run, with {', '.join(_PARTS[:-1])} or {_PARTS[-1]} in it",
            remedy="Give the folder that 'dgs run' wrote, runs/NAME by default",
        )
    path = folder / "experiment.yaml"
    settings = load_yaml(path) if path.is_file() else {}
    for name, kind in _KINDS.items():
        value = settings.get(name)
        if value is not None and not isinstance(value, kind):
            raise InputError(
                f"{path}: {name}",
                found=repr(value),
                expected="what 'dgs run' wrote",
                remedy="Delete the file and run the experiment again",
            )
    return Run(folder, settings)


def _evaluation(path: Path) -> Evaluation:
    row, ipc = split_ipc(path.parents[2].name)
    result = read_record(path)
    try:
        last, best = float(result["accuracy_last"]), float(result["accuracy_best"])
        return Evaluation(row, ipc, path.parents[1].name, int(path.parent.name.removeprefix("seed")), last, best)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            path,
            found=f"no usable {error}",
            expected="accuracy_last and accuracy_best as numbers, in a folder seedK",
            remedy="Delete the folder and run the experiment again",
        ) from None


def _list_images(folder: Path) -> dict[str, tuple[list[str], NDArray[np.float64]]]:
    by_label: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for record in read_manifest(folder) if (folder / MANIFEST).is_file() else scan_images(folder):
        score = math.nan if record.difficulty is None else record.difficulty
        by_label[record.label].append((score, record.file_name))
    listing = {}
    for label in sorted(by_label):
        images = sorted(by_label[label], key=lambda image: (math.isnan(image[0]), *image))
        listing[label] = [file for _, file in images], np.array([score for score, _ in images])
    return listing


def read_record(path: Path) -> dict[str, Any]:
    """A JSON object that a run left behind.

    Raises:
        InputError: If it is broken.
    """
    try:
        content = dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise InputError(
            path,
            found=f"broken JSON ({error})",
            expected="a record",
            remedy="Delete the file and run the experiment again",
        ) from None
    return content


def _length(config: Mapping[str, Any]) -> str | None:
    """Length of a training that does not follow from the images per class, such as ``600 steps``."""
    trainer, task = config.get("trainer") or {}, (config.get("model") or {}).get("init_args") or {}
    callbacks = [callback for callback in trainer.get("callbacks") or [] if isinstance(callback, dict)]
    published = [c.get("init_args") or {} for c in callbacks if str(c.get("class_path")).endswith("PublishedLength")]
    limits = {unit: trainer.get(f"max_{unit}") for unit in ("epochs", "steps")}
    # Runs of version 0.1.0 have their length among the task's settings.
    lengths = ((settings.get(unit), unit) for settings in (limits, *published, task) for unit in limits)
    return next((f"{number} {unit}" for number, unit in lengths if number not in (None, -1)), None)
