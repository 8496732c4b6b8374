"""Writing of scores, into the metadata of the scored set or into a folder of their own."""

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

from dgs_lightning.callbacks.writing import ResumableWriter, hash_images
from dgs_lightning.data.cards import hash_json, read_card, versions, write_card
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


class ScoreWriter(ResumableWriter[ScoringTask, ImageDataModule]):
    """Writes difficulty, estimator and predicted label of each image, with all digits, into ``metadata.jsonl``.

    Until all scores are there, they are in hidden journals, one for each device with one line for each batch. A set
    that the same estimators have already scored is left alone. Scores of other estimators are replaced as a whole.

    Args:
        output: A folder for the scores alone. By default they go into the metadata and card of the scored set.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from dgs_lightning.examples import QUIET, write_classifier, write_images
        >>> with TemporaryDirectory() as folder:
        ...     task = ScoringTask(write_classifier(f"{folder}/estimator"))
        ...     trainer = L.Trainer(**QUIET, callbacks=[ScoreWriter(f"{folder}/scores")])
        ...     nothing = trainer.predict(task, ImageDataModule(predict=write_images(f"{folder}/images")))
        ...     record = read_manifest(Path(folder, "scores"))[0]
        >>> record.file_name, 0 <= record.difficulty <= 1
        ('cat/0.png', True)
    """

    TASK, DATA = ScoringTask, ImageDataModule

    def __init__(self, output: str | None = None) -> None:
        self.output = output
        self._journal: FileIO | None = None

    # ---- before: what is in the folder -----------------------------------------------------------------------

    def begin(self, trainer: L.Trainer) -> None:
        """Leave out the batches that are scored, and open the journal of this device.

        Raises:
            InputError: If the output is another image set.
        """
        self._folder = Path(self.output) if self.output else self.data.predict_folder
        self._in_place = self._folder.resolve() == self.data.predict_folder.resolve()
        self._check_output()
        self._images = hash_images(trainer, self.data)
        settings = [self.task.settings(), self.data.hparams["val_batch_size"], str(trainer.precision)]
        self._key = hash_json([*settings, self._images])
        self._done = self._is_done()
        self.data.leave_out(range(len(self.data.predict_batches)) if self._done else self._read_journals().keys())
        trainer.strategy.barrier("scores read")
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
        """Whether the scores are all written, and no line of them is lost."""
        if read_card(self._folder).get("scoring", {}).get("key") != self._key:
            return False
        with suppress(InputError):
            scored = {
                record.file_name for record in read_manifest(self._folder) if record.estimator == self.task.identity
            }
            return scored == {record.file_name for record in self.data.predict_records}
        return False

    # ---- journals --------------------------------------------------------------------------------------------

    def _journals(self) -> list[Path]:
        return sorted(self._folder.glob(".scores-*.jsonl"))

    def _read_journals(self) -> BatchScores:
        """Scores of finished batches."""
        return {number: scores for path in self._journals() for number, scores in self._lines(path)}

    def _lines(self, path: Path) -> Iterator[tuple[int, list[tuple[float, str]]]]:
        """Batches of a journal, up to a line that was cut off; none of another estimator or another set."""
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
        """Open the journal of this device. It keeps its finished batches."""
        path = self._folder / f".scores-{rank}.jsonl"
        kept = dict(self._lines(path)) if path.is_file() else {}
        write_text(path, "".join(self._line(number, scores) for number, scores in kept.items()))
        self._journal = path.open("ab", buffering=0)

    def _line(self, number: int, scores: list[tuple[float, str]]) -> str:
        return json.dumps({"key": self._key, "batch": number, "scores": scores}, ensure_ascii=False) + "\n"

    def write(self, trainer: L.Trainer, prediction: Scores, batch: object) -> None:
        """Append the scores of a batch to the journal."""
        number = int(prediction.positions[0]) // self.data.hparams["val_batch_size"]
        pairs = list(zip(prediction.difficulty.tolist(), prediction.predicted, strict=True))
        line = self._line(number, pairs).encode()
        with explain_disk_errors(self._folder):
            if self._journal is not None and self._journal.write(line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    # ---- after: the scores -----------------------------------------------------------------------------------

    def flush(self) -> None:
        """Close the journal; each line is on the disk already."""
        if self._journal is not None:
            self._journal.close()

    def finish(self, trainer: L.Trainer) -> None:
        """Write scores and card if all batches are scored, and delete the journals."""
        if not self._done:
            batches, wanted = self._read_journals(), self.data.predict_batches
            if len(batches) < len(wanted):
                _log.info("%d of %d batches scored; the same command scores the others", len(batches), len(wanted))
                return
            pairs = [pair for number in range(len(wanted)) for pair in batches[number]]
            scored = zip(self.data.predict_records, pairs, strict=True)
            write_manifest(self._folder, [self._scored(record, *pair) for record, pair in scored])
            write_card(self._folder, self._card())
        for path in self._journals():
            path.unlink()

    def _scored(self, record: ImageRecord, difficulty: float, predicted: str) -> ImageRecord:
        """A record with its scores. In a folder of their own, the scores have only name and label of the image."""
        kept = record if self._in_place else ImageRecord(record.file_name, record.label)
        return replace(kept, difficulty=difficulty, estimator=self.task.identity, predicted=predicted)

    def _card(self) -> dict[str, Any]:
        """Card of the set, or of the scores alone, with what the scores depend on."""
        data, settings = self.data, self.task.settings()
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
