"""Writing of scores, into the metadata of the scored set or into a folder of their own."""

import logging
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import lightning as L

from dgs_lightning.bounds import Between
from dgs_lightning.callbacks.writing import ResumableWriter, hash_images
from dgs_lightning.data.cards import CARD, hash_json, read_card, versions, write_card
from dgs_lightning.data.classes import readable_name
from dgs_lightning.data.histograms import EVENTS, write_histograms
from dgs_lightning.data.order import Order
from dgs_lightning.data.records import MANIFEST, ImageRecord, read_manifest, write_manifest
from dgs_lightning.datamodules.images import ImageDataModule
from dgs_lightning.errors import BrokenFile, InputError, listed
from dgs_lightning.exchange.source import KIND as IMPORTED
from dgs_lightning.models.estimator import Accuracy
from dgs_lightning.tasks.scoring import Scores, ScoringTask

_log = logging.getLogger(__name__)
MAYBE_SEEN = (
    "not cross-fitted: where the estimator was trained on these images, their difficulties are lower than those of "
    "images that it has not seen"
)
GO_ON = "go on with these scores by check_accuracy: false of ScoringTask"
Share = Annotated[float, Between(0, 1)]
Lines = list[tuple[Share, str, Share]]  # difficulty, predicted label and its probability of each image of a batch

Batch = tuple[int, Lines]  # number and scores of a batch, as they are noted


class ScoreWriter(ResumableWriter[ScoringTask, ImageDataModule]):
    """Writes difficulty, estimator and predicted label of each image, with all digits, into ``metadata.jsonl``.

    Until all scores are there, they are in hidden journals: one for each device, with a line for each batch. A set with
    scores of the same estimators is not changed. Scores of other estimators are replaced as a whole. Beside the scores
    is a histogram of the difficulties, which TensorBoard shows.

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

    TASK, DATA, KIND = ScoringTask, ImageDataModule, "scores"

    def __init__(self, output: str | None = None) -> None:
        self.output = output

    def begin(self, trainer: L.Trainer) -> None:
        """Leave out the batches that are scored. Refuse another image set."""
        self._folder = Path(self.output) if self.output else self.data.predict_folder
        self._in_place = self._folder.resolve() == self.data.predict_folder.resolve()
        self._images, self._device = hash_images(trainer, self.data), trainer.global_rank
        batch_size, precision = self.data.hparams["val_batch_size"], str(trainer.precision)
        self._key = hash_json([self.task.settings(), batch_size, precision, self._images])
        self.data.leave_out(self.take(trainer, self._folder))

    def check(self) -> None:
        """Refuse a folder, apart from the scored set itself, that holds something else than scores."""
        ours = self.unfinished.begun() is not None or self._in_place or read_card(self._folder).get("kind") == "scores"
        if not ours:
            self.unfinished.check_free()

    def resume(self) -> list[int]:
        """Numbers of the batches that are scored."""
        wanted = range(len(self.data.predict_batches))
        begun = self.unfinished.begun()
        self._done = begun is None and self._is_done()
        if self._done:
            self.unfinished.end()
            return list(wanted)
        kept = self._noted() if begun == self._key else {}
        self.unfinished.begin(self._key, ([number, scores] for number, scores in kept.items()))
        return [number for number in wanted if number in kept]

    def _is_done(self) -> bool:
        """Whether the scores are all written, and no line of them is lost."""
        written = read_card(self._folder).get("scoring", {}).get("key") == self._key
        if not written or not (self._folder / MANIFEST).is_file():
            return False
        with suppress(BrokenFile):
            records, own = read_manifest(self._folder), self.task.identity
            scored = {record.file_name for record in records if record.estimator == own}
            return scored == {record.file_name for record in self.data.predict_records}
        return False

    def _noted(self) -> dict[int, Lines]:
        """Scores of the finished batches of all devices, by the number of the batch."""
        sizes = dict(enumerate(map(len, self.data.predict_batches)))
        return {number: scores for number, scores in self.unfinished.noted(Batch) if sizes.get(number) == len(scores)}

    def write(self, trainer: L.Trainer, prediction: Scores, batch: object) -> None:
        """Note the scores of a batch. They are then on the disk."""
        number = int(prediction.positions[0]) // self.data.hparams["val_batch_size"]
        numbers = prediction.difficulty.tolist(), prediction.predicted, prediction.confidence.clamp(max=1).tolist()
        self.unfinished.note(self._device, [number, list(zip(*numbers, strict=True))])

    def finish(self, trainer: L.Trainer) -> None:
        """Write scores and card if all batches are scored."""
        if self._done:
            return
        batches, wanted = self._noted(), self.data.predict_batches
        if len(batches) < len(wanted):
            _log.info("%d of %d batches scored; the same command scores the others", len(batches), len(wanted))
            return
        lines = [line for number in range(len(wanted)) for line in batches[number]]
        scored = zip(self.data.predict_records, lines, strict=True)
        write_manifest(self._folder, [self._scored(record, *line) for record, line in scored], durable=True)
        write_histograms(self._folder, {"difficulty": (difficulty for difficulty, *_ in lines)})
        write_card(self._folder, self._card(), durable=True)
        self.complete([MANIFEST, EVENTS, CARD])

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Put together the scores of all devices, and check what they say of the estimators.

        Raises:
            InputError: If the estimators recognise real images no better than by chance, or see the images of an
                imported set in the folders of other classes; on every device alike, and again where the scores are
                already there.
        """
        super().teardown(trainer, pl_module, stage)
        fitted_here = all(member.left_out is not None for member in self.task.members)
        imported = self._kind() == IMPORTED
        if self.task.hparams["check_accuracy"] and (imported or not (fitted_here or self._is_generated())):
            why = self._why_wrong_order if imported else self._why_at_chance
            error: InputError | None = why() if trainer.is_global_zero else None
            if (error := trainer.strategy.broadcast(error)) is not None:
                raise error

    def _is_generated(self) -> bool:
        """Whether the images were generated or selected, so that they may be hard to recognise."""
        return self._kind() in ("pool", "distilled", IMPORTED)

    def _kind(self) -> str | None:
        """Kind of the scored set, by its card."""
        return read_card(self.data.predict_folder).get("kind")

    def _answers(self) -> list[tuple[str, str]]:
        """The label and the predicted label of each image, once all are scored."""
        records = read_manifest(self._folder) if self._is_done() else []
        return [(record.label, str(record.predicted)) for record in records]

    def _why_at_chance(self) -> InputError | None:
        """The error of estimators that recognise the images no better than by chance."""
        return Accuracy.of(self._answers()).why_at_chance(f"estimator {self.task.identity}", f"to {GO_ON}")

    def _why_wrong_order(self) -> InputError | None:
        """The error of an imported set whose classes are in a wrong order, where the answers prove it."""
        order = Order.of(self._answers())
        if not order.is_wrong:
            return None
        moved = [f"{label} -> {other}" for label, other in order.seen.items() if label != other]
        found = f"{order.recognised:.1%} of the images recognised, but {order.best:.1%} in another order of the classes"
        remedy = (
            f"Say the order of the set's classes (classes=[...] of dgs import). By the estimator {self.task.identity}, "
            f"the classes are in truth: {listed(moved, 20)}. If you know better, {GO_ON}"
        )
        return InputError(
            f"set {self.data.predict_folder.name}", found, "images in the folders of their own classes", remedy
        )

    def _scored(self, record: ImageRecord, difficulty: float, predicted: str, confidence: float) -> ImageRecord:
        """A record with its scores. A folder for the scores alone has no other data of the image."""
        kept = record if self._in_place else ImageRecord(record.file_name, record.label)
        extra = {**kept.extra, "confidence": confidence} if self.task.hparams["confidence"] else kept.extra
        return replace(kept, difficulty=difficulty, estimator=self.task.identity, predicted=predicted, extra=extra)

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
