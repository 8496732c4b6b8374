"""Writing of scores: into the scored set's own metadata or a folder beside it, whole, and resumed where killed."""

import errno
import json
import logging
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from io import FileIO
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from dgs_lightning.data.cards import hash_files, hash_json, read_card, versions, write_card
from dgs_lightning.data.classes import readable_name
from dgs_lightning.data.records import MANIFEST, ImageRecord, read_manifest, write_manifest
from dgs_lightning.datamodules.images import ImageDataModule
from dgs_lightning.errors import InputError
from dgs_lightning.files import explain_disk_errors, write_text
from dgs_lightning.tasks.scoring import Scores, ScoringTask

_log = logging.getLogger(__name__)
MAYBE_SEEN = (
    "not cross-fitted: where the estimator was trained on these images, their difficulties are lower than those of "
    "images that it has not seen"
)
BatchScores = dict[int, list[tuple[float, str]]]  # number of a batch -> difficulty and predicted label of its images


class ScoreWriter(Callback):
    """Writes difficulty, estimator and predicted label of each image, with all digits, into ``metadata.jsonl``.

    While scores are computed they wait in hidden journals, one of each device and one line a batch. A run that was
    killed leaves out the batches in them, and ends in the same bytes as one that nobody disturbed. A set that these
    estimators have already scored is left alone; scores of others are replaced as a whole.

    Args:
        output: A folder for the scores alone; by default they go into the scored set's own metadata and card.
    """

    def __init__(self, output: str | None = None) -> None:
        self.output = output
        self._journal: FileIO | None = None

    # ---- before: what is there already -----------------------------------------------------------------------

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Find what earlier runs have scored, and leave it out.

        Raises:
            InputError: If task or data are of another kind, or the output is another image set.
        """
        trainer.predict_loop.return_predictions = False
        self._task, self._data = _matching(pl_module, trainer.datamodule)  # type: ignore[attr-defined]
        self._folder = Path(self.output) if self.output else self._data.predict_folder
        self._in_place = self._folder.resolve() == self._data.predict_folder.resolve()
        self._check_output()
        self._images = trainer.strategy.broadcast(
            hash_files(self._data.predict_folder, self._data.predict_records) if trainer.is_global_zero else ""
        )
        settings = [self._task.settings(), self._data.hparams["val_batch_size"], str(trainer.precision)]
        self._key = hash_json([*settings, self._images])
        self._done = self._is_done()
        numbers = range(len(self._data.predict_batches))
        finished = set(numbers) if self._done else self._read_journals().keys()
        trainer.strategy.barrier("scores read")  # all devices read before one of them writes
        self._data.leave_out(finished)
        if not self._done:
            self._open_journal(trainer.global_rank)

    def _check_output(self) -> None:
        occupied = not self._in_place and (self._folder / MANIFEST).exists()
        if occupied and read_card(self._folder).get("kind") != "scores":
            raise InputError(
                self._folder,
                found="an image set",
                expected="an empty folder, or scores",
                remedy="Name another output, or the set itself to write into its metadata",
            )

    def _is_done(self) -> bool:
        """Whether these very scores are all written, and still whole."""
        if read_card(self._folder).get("scoring", {}).get("key") != self._key:
            return False
        with suppress(InputError):
            scored = {
                record.file_name for record in read_manifest(self._folder) if record.estimator == self._task.identity
            }
            return scored == {record.file_name for record in self._data.predict_records}
        return False

    # ---- journals --------------------------------------------------------------------------------------------

    def _journals(self) -> list[Path]:
        return sorted(self._folder.glob(".scores-*.jsonl"))

    def _read_journals(self) -> BatchScores:
        """Scores of finished batches."""
        return {number: scores for path in self._journals() for number, scores in self._lines(path)}

    def _lines(self, path: Path) -> Iterator[tuple[int, list[tuple[float, str]]]]:
        """Batches of a journal, up to a line that was cut off; none where they are of another estimator or set."""
        with path.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                try:
                    entry = json.loads(line)
                    if entry["key"] != self._key:
                        return
                    yield entry["batch"], entry["scores"]
                except (ValueError, KeyError, TypeError):
                    return

    def _open_journal(self, rank: int) -> None:
        """Begin this device's journal with what it had finished before."""
        path = self._folder / f".scores-{rank}.jsonl"
        kept = dict(self._lines(path)) if path.is_file() else {}
        write_text(path, "".join(self._line(number, scores) for number, scores in kept.items()))
        self._journal = path.open("ab", buffering=0)

    def _line(self, number: int, scores: list[tuple[float, str]]) -> str:
        return json.dumps({"key": self._key, "batch": number, "scores": scores}, ensure_ascii=False) + "\n"

    def on_predict_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,  # noqa: ANN401
        batch: Any,  # noqa: ANN401
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Note a batch's scores, whole or not at all."""
        scores: Scores = outputs
        number = int(scores.positions[0]) // self._data.hparams["val_batch_size"]
        pairs = list(zip(scores.difficulty.tolist(), scores.predicted, strict=True))
        if self._journal is not None:
            self._append(self._journal, self._line(number, pairs).encode())

    def _append(self, journal: FileIO, line: bytes) -> None:
        with explain_disk_errors(self._folder):
            if journal.write(line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    # ---- after: the scores -----------------------------------------------------------------------------------

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Bring the journals of all devices together."""
        if self._journal is not None:
            self._journal.close()
        trainer.strategy.barrier("all images scored")
        if trainer.is_global_zero and (self._done or self._finish()):
            for path in self._journals():
                path.unlink()
        trainer.strategy.barrier("scores written")

    def _finish(self) -> bool:
        """Write the scores if they are all there."""
        batches = self._read_journals()
        wanted = self._data.predict_batches
        if len(batches) < len(wanted):
            _log.info("%d of %d batches scored; the same command goes on", len(batches), len(wanted))
            return False
        scores = [pair for number in range(len(wanted)) for pair in batches[number]]
        records = [self._scored(record, *pair) for record, pair in zip(self._data.predict_records, scores, strict=True)]
        write_manifest(self._folder, records)
        write_card(self._folder, self._card())
        return True

    def _scored(self, record: ImageRecord, difficulty: float, predicted: str) -> ImageRecord:
        """A record with its scores: all of it for the set's own metadata, else what ties the scores to the image."""
        kept = record if self._in_place else ImageRecord(record.file_name, record.label)
        return replace(kept, difficulty=difficulty, estimator=self._task.identity, predicted=predicted)

    def _card(self) -> dict[str, Any]:
        """The set's own card, or one for the scores alone, with what they depend on."""
        data, settings = self._data, self._task.settings()
        original = read_card(data.predict_folder)
        generated = original.get("kind") in ("pool", "distilled")
        note = {} if generated or settings["cross_fit"] else {"note": MAYBE_SEEN}
        scoring = {"scoring": {**settings, **note, "key": self._key}}
        if self._in_place:
            return {**original, **scoring}
        return {
            "name": f"scores of {original.get('name', data.predict_folder.name)}",
            "kind": "scores",
            "labels": {label: readable_name(label) for label in data.labels},
            "images": len(data.predict_records),
            "versions": versions(),
            "hashes": {"images": self._images},
            "provenance": original.get("provenance", []),
            "licences": original.get("licences", []),
            **scoring,
        }


def _matching(task: object, data: object) -> tuple[ScoringTask, ImageDataModule]:
    """Task and datamodule, checked to be those that this callback works with."""
    if isinstance(task, ScoringTask) and isinstance(data, ImageDataModule):
        return task, data
    raise InputError(
        "ScoreWriter",
        found=f"{type(task).__name__} with {type(data).__name__}",
        expected="ScoringTask with ImageDataModule",
        remedy="Set model and data to them, or remove the callback",
    )
