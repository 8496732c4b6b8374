"""Writing of scores, into the metadata of the scored set or into a folder of their own."""

import json
import logging
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, TypedDict

import lightning as L

from dgs_lightning.bounds import Between
from dgs_lightning.callbacks.writing import ResumableWriter, hash_images
from dgs_lightning.data.cards import hash_json, read_card, versions, write_card
from dgs_lightning.data.classes import readable_name
from dgs_lightning.data.histograms import write_histograms
from dgs_lightning.data.records import MANIFEST, ImageRecord, read_manifest, write_manifest
from dgs_lightning.datamodules.images import ImageDataModule
from dgs_lightning.errors import InputError
from dgs_lightning.files import explain_disk_errors, write_text
from dgs_lightning.models.estimator import Accuracy
from dgs_lightning.reading.documents import lines_of, parse_line
from dgs_lightning.tasks.scoring import Scores, ScoringTask

_log = logging.getLogger(__name__)
MAYBE_SEEN = (
    "not cross-fitted: where the estimator was trained on these images, their difficulties are lower than those of "
    "images that it has not seen"
)
Pairs = list[tuple[Annotated[float, Between(0, 1)], str]]  # difficulty and predicted label of each image of a batch


class JournalLine(TypedDict):
    """The scores of one batch."""

    key: str
    batch: int
    scores: Pairs


class ScoreWriter(ResumableWriter[ScoringTask, ImageDataModule]):
    """Writes difficulty, estimator and predicted label of each image, with all digits, into ``metadata.jsonl``.

    Until all scores are there, they are in hidden journals: one for each device, with one line for each batch. A set
    with scores of the same estimators is not changed. Scores of other estimators are replaced as a whole. Beside the
    scores is a histogram of the difficulties, which TensorBoard shows.

    Args:
        output: A folder for the scores alone. By default they go into the metadata and card of the scored set.

    Examples:
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

    def begin(self, trainer: L.Trainer) -> None:
        """Leave out the batches that are scored, and begin this device's journal. Refuse another image set."""
        self._folder = Path(self.output) if self.output else self.data.predict_folder
        self._in_place = self._folder.resolve() == self.data.predict_folder.resolve()
        occupied = not self._in_place and (self._folder / MANIFEST).exists()
        if occupied and read_card(self._folder).get("kind") != "scores":
            remedy = "Name another output, or the set itself to write into its metadata"
            raise InputError.occupied(self._folder, "an image set", "an empty folder, or scores", remedy)
        self._images = hash_images(trainer, self.data)
        batch_size, precision = self.data.hparams["val_batch_size"], str(trainer.precision)
        self._key = hash_json([self.task.settings(), batch_size, precision, self._images])
        self._done, scored = self._is_done(), self._read_journals()
        self.data.leave_out(range(len(self.data.predict_batches)) if self._done else scored.keys())
        trainer.strategy.barrier("scores read")
        self._journal = self._folder / f".scores-{trainer.global_rank}.jsonl"
        if not self._done:
            write_text(self._journal, "".join(self._line(*batch) for batch in self._lines(self._journal)))

    def _is_done(self) -> bool:
        """Whether the scores are all written, and no line of them is lost."""
        if read_card(self._folder).get("scoring", {}).get("key") != self._key:
            return False
        with suppress(InputError):
            records, own = read_manifest(self._folder), self.task.identity
            scored = {record.file_name for record in records if record.estimator == own}
            return scored == {record.file_name for record in self.data.predict_records}
        return False

    def _journals(self) -> list[Path]:
        return sorted(self._folder.glob(".scores-*.jsonl"))

    def _read_journals(self) -> dict[int, Pairs]:
        """Scores of the finished batches of all devices, by the number of the batch."""
        sizes = dict(enumerate(map(len, self.data.predict_batches)))
        lines = (line for path in self._journals() for line in self._lines(path))
        return {number: scores for number, scores in lines if sizes.get(number) == len(scores)}

    def _lines(self, path: Path) -> Iterator[tuple[int, Pairs]]:
        """Batches of a journal, up to a broken line or a line of another estimator or set."""
        with (
            suppress(FileNotFoundError, ValueError),
            path.open(encoding="utf-8", errors="replace") as lines,
        ):
            for line in lines_of(lines):
                entry = parse_line(line, JournalLine)
                if entry["key"] != self._key:
                    return
                yield entry["batch"], entry["scores"]

    def _line(self, number: int, scores: Pairs) -> str:
        return json.dumps({"key": self._key, "batch": number, "scores": scores}, ensure_ascii=False) + "\n"

    def write(self, trainer: L.Trainer, prediction: Scores, batch: object) -> None:
        """Append the scores of a batch to the journal. They are then on the disk."""
        number = int(prediction.positions[0]) // self.data.hparams["val_batch_size"]
        pairs = list(zip(prediction.difficulty.tolist(), prediction.predicted, strict=True))
        with explain_disk_errors(self._folder), self._journal.open("a", encoding="utf-8") as journal:
            journal.write(self._line(number, pairs))

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
            write_histograms(self._folder, {"difficulty": (difficulty for difficulty, _ in pairs)})
            write_card(self._folder, self._card())
        for path in self._journals():
            path.unlink()

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Put together the scores of all devices, and check what they say of the estimators.

        Raises:
            InputError: If the estimators recognise real images no better than by chance, on every device alike, and
                again where the scores are already there.
        """
        super().teardown(trainer, pl_module, stage)
        fitted_here = all(member.left_out is not None for member in self.task.members)
        if self.task.hparams["check_accuracy"] and not fitted_here and not self._is_generated():
            error: InputError | None = self._why_at_chance() if trainer.is_global_zero else None
            if (error := trainer.strategy.broadcast(error)) is not None:
                raise error

    def _is_generated(self) -> bool:
        """Whether the images were generated or selected, so that they may be hard to recognise."""
        return read_card(self.data.predict_folder).get("kind") in ("pool", "distilled")

    def _why_at_chance(self) -> InputError | None:
        """The error of estimators that recognise the images no better than by chance, once all are scored."""
        records = read_manifest(self._folder) if self._is_done() else []
        remedy = "to go on with these scores, set check_accuracy of ScoringTask to false"
        accuracy = Accuracy.of([(record.label, str(record.predicted)) for record in records])
        return accuracy.why_at_chance(f"estimator {self.task.identity}", remedy)

    def _scored(self, record: ImageRecord, difficulty: float, predicted: str) -> ImageRecord:
        """A record with its scores. A folder for the scores alone has no other data of the image."""
        kept = record if self._in_place else ImageRecord(record.file_name, record.label)
        return replace(kept, difficulty=difficulty, estimator=self.task.identity, predicted=predicted)

    def _card(self) -> dict[str, Any]:
        """Card of the set, or of the scores alone, with the settings that the scores depend on."""
        data, settings = self.data, self.task.settings()
        original = read_card(data.predict_folder)
        note = {} if self._is_generated() or settings["cross_fit"] else {"note": MAYBE_SEEN}
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
