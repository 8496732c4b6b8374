"""Scoring: how hard each image is for a classifier, or for several."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import lightning as L
import torch
from PIL import Image
from torch import Tensor, nn

from dgs_lightning.bounds import Ranged
from dgs_lightning.data.cards import hash_json
from dgs_lightning.data.classes import readable_name
from dgs_lightning.data.splits import folds_of
from dgs_lightning.datamodules.images import ImageDataModule
from dgs_lightning.errors import InputError
from dgs_lightning.models.allocator import keep_freed_memory
from dgs_lightning.models.estimator import Estimator, load_estimator
from dgs_lightning.models.registry import Preprocess
from dgs_lightning.selection.difficulty import DIFFICULTIES, ensemble_difficulty


class Scores(NamedTuple):
    """Scores of a batch.

    Attributes:
        positions: Positions of the records, shape ``(B,)``.
        difficulty: In [0, 1], float64, shape ``(B,)``.
        predicted: The label that the estimator gives each image.
    """

    positions: Tensor
    difficulty: Tensor
    predicted: list[str]


class ScoringTask(L.LightningModule, Ranged):
    """Scores images by ``predict`` with :class:`ImageDataModule`: Eq. 6, or another definition of difficulty.

    Each estimator prepares the images as it was trained to. Labels are matched by WordNet id, or by the labels that
    an estimator of one's own was trained on. A subclass with a method ``difficulty`` of its own is a definition of
    one's own, known by the name of the class.

    Args:
        estimator: ``torchvision:NAME``, ``timm:NAME`` or a weights folder of ``ClassificationTask``; of a list, the
            mean difficulty. The paper uses torchvision's ResNet-50.
        weights: Local weights of named networks, one for each, or torchvision's name of weights; by default
            torchvision's ``IMAGENET1K_V1`` and timm's own.
        definition: ``confidence`` (Eq. 6), ``margin``, ``entropy`` or ``loss``.
        cross_fit: Number of folds where the estimators were trained on these images, each without one fold
            (``ImageDataModule(folds, fold)``) and listed in the order of folds: every image is then scored by the one
            that has not seen it.

    Attributes:
        definition: Name of the definition: of its function, or of the subclass.
        identity: The estimators by name and hash of weights, and the definition where it is not that of Eq. 6. Scores
            compare where identities are equal; with or without ``cross_fit`` they are.
    """

    RANGES: ClassVar[Mapping[str, str]] = {"cross_fit": "[2, 1000]"}

    def __init__(
        self,
        estimator: str | list[str] = "torchvision:resnet50",
        weights: str | list[str] | None = None,
        definition: Literal["confidence", "margin", "entropy", "loss"] = "confidence",
        cross_fit: int | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.check_settings(self.hparams)
        names, files = _estimators(self.hparams)
        self.estimators = nn.ModuleList(load_estimator(*pair) for pair in zip(names, files, strict=True))
        self.members: list[Estimator] = list(self.estimators)  # type: ignore[arg-type]
        if cross_fit is not None:
            _check_folds(names, self.members)
        self.definition = definition if type(self) is ScoringTask else type(self).__qualname__
        self.identity = _identity([member.identity for member in self.members], self.definition)
        transforms = {repr(member.preprocess): member.preprocess for member in self.members}
        self.preprocess = PreprocessAll(list(transforms.values()))
        self._inputs = [list(transforms).index(repr(member.preprocess)) for member in self.members]
        self._labels = sorted({label for member in self.members for label in member.labels})

    @classmethod
    def check_settings(cls, settings: Mapping[str, Any]) -> None:
        """Refuse lists that do not belong together.

        Raises:
            InputError: If a number is out of its range, or the lists are not of one length.
        """
        super().check_settings(settings)
        names, files = _estimators(settings)
        _check_counts(len(names), len(files), settings["cross_fit"])

    def settings(self) -> dict[str, Any]:
        """What the scores depend on, for their card."""
        return {"estimator": self.identity, "definition": self.definition, "cross_fit": self.hparams["cross_fit"]}

    def on_predict_start(self) -> None:
        """Match the labels of the images with those of each estimator.

        Raises:
            InputError: If an estimator lacks one.
        """
        keep_freed_memory()
        data: ImageDataModule = self.trainer.datamodule  # type: ignore[attr-defined]
        for member in self.members:
            unknown = sorted(set(data.labels) - set(member.labels))
            if unknown:
                raise InputError(
                    data.predict_folder,
                    found=f"{len(unknown)} labels that {member.identity} does not know ({', '.join(unknown[:10])})",
                    expected=f"labels such as {', '.join(f'{x} ({readable_name(x)})' for x in member.labels[:3])}",
                    remedy="Rename the class folders, or train an estimator on these labels",
                )
        self._columns = [torch.tensor([m.labels.index(label) for label in data.labels]) for m in self.members]
        ranks = {label: rank for rank, label in enumerate(self._labels)}
        self._places = [torch.tensor([ranks[label] for label in member.labels]) for member in self.members]
        folds = self.hparams["cross_fit"]
        self._folds = None if folds is None else torch.tensor(folds_of(data.predict_records, folds))

    def predict_step(self, batch: tuple[Sequence[Tensor], Tensor, Tensor], batch_idx: int) -> Scores:
        """Scores of a batch of preprocessed images."""
        images, positions, labels = batch[0], batch[1].cpu(), batch[2].cpu()
        difficulty = torch.empty(len(positions), dtype=torch.float64)
        probabilities = torch.empty(len(positions), len(self._labels), dtype=torch.float64)
        for members, rows in self._shares(positions):
            inputs = [value[rows.to(value.device)] for value in images]
            each = [self._assess(member, inputs, labels[rows]) for member in members]
            difficulty[rows] = ensemble_difficulty([values for values, _ in each])
            probabilities[rows] = torch.stack([values for _, values in each]).mean(dim=0)
        predicted = [self._labels[place] for place in probabilities.argmax(dim=1).tolist()]
        return Scores(positions, difficulty, predicted)

    def difficulty(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Difficulties ``(B,)`` in [0, 1] of logits ``(B, C)`` and the positions of the true classes ``(B,)``."""
        return DIFFICULTIES[self.hparams["definition"]](logits, labels)

    def _shares(self, positions: Tensor) -> list[tuple[Sequence[int], Tensor]]:
        """Which estimators score which rows of a batch."""
        if self._folds is None:
            return [(range(len(self.members)), torch.arange(len(positions)))]
        folds = self._folds[positions]
        return [([fold], torch.nonzero(folds == fold)[:, 0]) for fold in sorted(set(folds.tolist()))]

    def _assess(self, member: int, images: Sequence[Tensor], labels: Tensor) -> tuple[Tensor, Tensor]:
        """Difficulties ``(B,)`` and probabilities ``(B, all labels)`` by one estimator, on the CPU, float64."""
        logits = self.members[member](images[self._inputs[member]]).cpu()
        try:
            difficulty = self.difficulty(logits, self._columns[member][labels])
        except ValueError as error:
            raise InputError(
                f"estimator {self.members[member].identity}",
                found=str(error),
                expected="finite logits of two or more classes",
                remedy="Name another estimator",
            ) from None
        probabilities = torch.zeros(len(labels), len(self._labels), dtype=torch.float64)
        return difficulty, probabilities.index_copy_(1, self._places[member], logits.double().softmax(dim=1))


class PreprocessAll:
    """One picture, prepared in several ways.

    Args:
        ways: What to make of it.
    """

    def __init__(self, ways: Sequence[Preprocess]) -> None:
        self.ways = ways

    def __call__(self, image: Image.Image) -> tuple[Tensor, ...]:
        """What each way makes of the picture."""
        return tuple(prepare(image) for prepare in self.ways)


def _estimators(settings: Mapping[str, Any]) -> tuple[list[str], Sequence[str | None]]:
    """Names of the estimators and file of each one's weights, none for its own."""
    estimator, weights = settings["estimator"], settings["weights"]
    names = [estimator] if isinstance(estimator, str) else estimator
    return names, [weights] if isinstance(weights, str) else weights or [None] * len(names)


def _check_counts(estimators: int, weights: int, cross_fit: int | None) -> None:
    """Refuse numbers of estimators, weights and folds that do not belong together."""
    if not estimators:
        raise InputError("estimator", found="none", expected="at least one", remedy="Name one")
    if weights != estimators:
        raise InputError(
            "weights",
            found=f"{weights} files for {estimators} estimators",
            expected="one for each",
            remedy="Correct the lists",
        )
    if cross_fit is not None and cross_fit != estimators:
        raise InputError(
            "cross_fit",
            found=f"{cross_fit} folds and {estimators} estimators",
            expected="one estimator for each of at least two folds",
            remedy="List the weights folders of all folds, in their order",
        )


def _check_folds(names: Sequence[str], members: Sequence[Estimator]) -> None:
    """Refuse an estimator that has seen the images it is to score."""
    for fold, (name, member) in enumerate(zip(names, members, strict=True)):
        if member.left_out != (fold, len(members)):
            left_out = "{} of {}".format(*member.left_out) if member.left_out else "none"
            raise InputError(
                name,
                found=f"a classifier that left out fold {left_out}",
                expected=f"one that left out fold {fold} of {len(members)}",
                remedy="List the estimators in the order of folds, each trained with data.folds and data.fold",
            )


def _identity(members: Sequence[str], definition: str) -> str:
    """Names of the estimators and one hash of all weights; the definition where it is not Eq. 6."""
    if len(members) == 1:
        identity = members[0]
    else:
        names = sorted({member.split("@")[0] for member in members})
        identity = f"{'+'.join(names)}[{len(members)}]@{hash_json(sorted(members))[:12]}"
    return identity if definition == "confidence" else f"{identity}:{definition}"
