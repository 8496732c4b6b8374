"""Scoring of the difficulty of images by one or several classifiers."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from shlex import join
from typing import Annotated, Any, Literal, NamedTuple

import lightning as L
import torch
from PIL import Image
from torch import Tensor, nn

from dgs_lightning.bounds import Between, save_settings
from dgs_lightning.data.cards import hash_json
from dgs_lightning.data.classes import check_known
from dgs_lightning.data.folders import read_set
from dgs_lightning.data.identical import identical_files
from dgs_lightning.data.splits import folds_of
from dgs_lightning.datamodules.images import ImageDataModule
from dgs_lightning.errors import InputError
from dgs_lightning.models.estimator import Estimator, EstimatorSource, load_estimator
from dgs_lightning.models.registry import Preprocess
from dgs_lightning.selection.difficulty import DIFFICULTIES, ensemble_difficulty

SEEN_BY_NONE = -1  # the fold of an image that no estimator was trained on


class Scores(NamedTuple):
    """Scores of a batch."""

    positions: Tensor  # of the records, shape (B,)
    difficulty: Tensor  # in [0, 1], float64, shape (B,)
    predicted: list[str]  # the label that the estimators predict for each image
    confidence: Tensor  # its probability, in [0, 1], float64, shape (B,)


class ScoringTask(L.LightningModule):
    """Scores the difficulty of images, by Eq. 6 or another definition; ``predict`` it with :class:`ImageDataModule`.

    Each estimator gets the images as its own training prepared them, and must know their labels: WordNet ids, or the
    labels that your own estimator was trained on. To define difficulty yourself, write a subclass with another method
    ``difficulty``; the name of the class is then the name of the definition.

    Args:
        estimator: ``torchvision:NAME``, ``timm:NAME``, or a weights folder of ``ClassificationTask``. If it is a list,
            the difficulty is the mean over the estimators. The paper uses torchvision's ResNet-50.
        weights: A local file of weights for each named network, or torchvision's name of weights; by default
            torchvision's ``IMAGENET1K_V1``, and timm's own.
        definition: ``confidence`` (Eq. 6), ``margin``, ``entropy`` or ``loss``.
        cross_fit: Number of folds, if each estimator was trained on these images without one fold
            (``ImageDataModule(cross_fitting=Folds(folds, fold))``). List the estimators in the order of the folds. Each
            image is then scored by the estimator that has not seen it.
        originals: Folder of the images that the estimators were trained on, if these are other images than those to
            score. With ``cross_fit``, an image that is one of the originals, byte for byte, is scored by the estimator
            that has not seen it, and any other image by all estimators.
        check_accuracy: Stop after the scoring where the images are no generated ones, and an estimator that was not
            cross-fitted recognises them no better than by chance: the difficulties would mean nothing. The usual
            reasons are class folders with labels of other classes, and wrong weights.
        confidence: Keep the largest probability of each image, too, which CaO2's selection with ``fill: released``
            needs.

    Attributes:
        definition: Name of the definition.
        identity: Names of the estimators, a hash of their weights, and the definition if it is not Eq. 6. Scores can be
            compared if their identities are equal, with or without ``cross_fit``.

    Raises:
        InputError: If settings do not go together, or an estimator cannot be read or has seen the images to score.

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> from dgs_lightning.examples import write_classifier
        >>> with TemporaryDirectory() as folder:
        ...     task = ScoringTask(write_classifier(folder))
        >>> logits, labels = torch.tensor([[0.0, 0.0], [0.0, 9.0]]), torch.tensor([1, 0])
        >>> task.difficulty(logits, labels)
        tensor([0.5000, 0.9999], dtype=torch.float64)
    """

    def __init__(
        self,
        estimator: str | list[str] = "torchvision:resnet50",
        weights: str | list[str] | None = None,
        definition: Literal["confidence", "margin", "entropy", "loss"] = "confidence",
        cross_fit: Annotated[int | None, Between(2, 1000)] = None,
        originals: str | None = None,
        check_accuracy: bool = True,
        confidence: bool = False,
    ) -> None:
        super().__init__()
        save_settings(self)
        names, files = _estimators(self.hparams)
        self.estimators = nn.ModuleList(load_estimator(*pair) for pair in zip(names, files, strict=True))
        self.members: list[Estimator] = list(self.estimators)  # type: ignore[arg-type]
        if cross_fit is not None:
            _check_folds(names, self.members)
        self.definition = definition if type(self) is ScoringTask else type(self).__qualname__
        self.identity = _identity([member.identity for member in self.members], self.definition)
        transforms = {repr(member.preprocess): member.preprocess for member in self.members}
        self.preprocess = partial(_prepare, list(transforms.values()))
        self._inputs = [list(transforms).index(repr(member.preprocess)) for member in self.members]
        self._labels = sorted({label for member in self.members for label in member.labels})

    @classmethod
    def check_combination(cls, settings: Mapping[str, Any]) -> None:
        """Refuse numbers of weights or folds that differ from the number of estimators."""
        names, files = _estimators(settings)
        folds = settings["cross_fit"]
        if not names:
            raise InputError.setting("estimator", "none", "at least one", "Name one")
        if len(files) != len(names):
            found = f"{len(files)} files for {len(names)} estimators"
            raise InputError.setting("weights", found, "one for each", "Correct the lists")
        if folds not in (None, len(names)):
            found, expected = f"{folds} folds and {len(names)} estimators", "one estimator for each fold"
            remedy = "List the weights folders of all folds, in their order"
            raise InputError.setting("cross_fit", found, expected, remedy)
        if settings["originals"] is not None and folds is None:
            raise InputError.unset("cross_fit", "the number of folds of the originals", "5")

    @classmethod
    def check_images(cls, settings: Mapping[str, Any], folder: Path) -> None:
        """Refuse images of classes that a network of timm or torchvision does not know, before its weights are fetched.

        Args:
            settings: The task's own settings.
            folder: The images to score.
        """
        for name, weights in zip(*_estimators(settings), strict=True):
            source = EstimatorSource.of(name, weights)
            if source.library and (known := source.labels()):
                labels = {record.label for record in read_set(folder)}
                check_known(labels, known, f"estimator {name}", how_to_know(folder))

    def settings(self) -> dict[str, Any]:
        """Settings that the scores depend on, for their card."""
        kept = {"confidence": True} if self.hparams["confidence"] else {}
        own = {"estimator": self.identity, "definition": self.definition, "cross_fit": self.hparams["cross_fit"]}
        return {**own, **kept}

    def on_predict_start(self) -> None:
        """Match the labels of the images with those of each estimator, which must know all of them."""
        data: ImageDataModule = self.trainer.datamodule  # type: ignore[attr-defined]
        for member in self.members:
            check_known(data.labels, member.labels, member.identity, how_to_know(data.predict_folder))
        self._columns = [torch.tensor([m.labels.index(label) for label in data.labels]) for m in self.members]
        ranks = {label: rank for rank, label in enumerate(self._labels)}
        self._places = [torch.tensor([ranks[label] for label in member.labels]) for member in self.members]
        folds = self.hparams["cross_fit"]
        self._folds = None if folds is None else torch.tensor(self._folds_of(data, folds))

    def _folds_of(self, data: ImageDataModule, folds: int) -> list[int]:
        """Fold of each image to score; ``SEEN_BY_NONE`` for an image that is none of the originals."""
        if self.hparams["originals"] is None:
            return folds_of(data.predict_records, folds)
        folder = Path(self.hparams["originals"])
        records = read_set(folder, links=data.loading.links)
        fold = dict(zip((folder / record.file_name for record in records), folds_of(records, folds), strict=True))
        paths = [data.predict_folder / record.file_name for record in data.predict_records]
        same = identical_files(paths, fold)
        return [fold[same[path]] if path in same else SEEN_BY_NONE for path in paths]

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
        confidence, places = probabilities.max(dim=1)
        return Scores(positions, difficulty, [self._labels[place] for place in places.tolist()], confidence)

    def difficulty(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Difficulties ``(B,)`` in [0, 1] of logits ``(B, C)`` and the positions of the true classes ``(B,)``."""
        return DIFFICULTIES[self.hparams["definition"]](logits, labels)

    def _shares(self, positions: Tensor) -> list[tuple[Sequence[int], Tensor]]:
        """The estimators, and the rows of a batch that they score."""
        if self._folds is None:
            return [(range(len(self.members)), torch.arange(len(positions)))]
        folds = self._folds[positions]
        everyone = range(len(self.members))
        return [
            (everyone if fold == SEEN_BY_NONE else [fold], torch.nonzero(folds == fold)[:, 0])
            for fold in sorted(set(folds.tolist()))
        ]

    def _assess(self, member: int, images: Sequence[Tensor], labels: Tensor) -> tuple[Tensor, Tensor]:
        """Difficulties ``(B,)`` and probabilities ``(B, all labels)`` by one estimator, on the CPU, float64."""
        logits = self.members[member](images[self._inputs[member]]).cpu()
        try:
            difficulty = self.difficulty(logits, self._columns[member][labels])
        except ValueError as error:
            where, expected = f"estimator {self.members[member].identity}", "finite logits of two or more classes"
            raise InputError(where, error, expected, "Name another estimator") from None
        probabilities = torch.zeros(len(labels), len(self._labels), dtype=torch.float64)
        return difficulty, probabilities.index_copy_(1, self._places[member], logits.double().softmax(dim=1))


def how_to_know(folder: Path) -> str:
    """What to do about images of classes that the estimator does not know, in words."""
    settings = (f"data={folder}", "methods=[dgs_ori]", "networks=[]")
    train = join(["dgs", "run", "own_images", *(part for setting in settings for part in ("--set", setting))])
    return (
        f"If the classes are ImageNet's, name the class folders by WordNet id. Otherwise train an estimator on them: "
        f"{train}. Then name it: --set estimator=runs/own_images/estimator/fold0/weights. "
        "Other weights (estimator_weights) would not help, since they have the same classes"
    )


def _prepare(functions: Sequence[Preprocess], image: Image.Image) -> tuple[Tensor, ...]:
    """An RGB picture as each of several estimators needs it."""
    return tuple(prepare(image) for prepare in functions)


def _estimators(settings: Mapping[str, Any]) -> tuple[list[str], Sequence[str | None]]:
    """Names of the estimators, and for each the file of its weights, or ``None`` for the default weights."""
    estimator, weights = settings["estimator"], settings["weights"]
    names = [estimator] if isinstance(estimator, str) else estimator
    return names, [weights] if isinstance(weights, str) else weights or [None] * len(names)


def _check_folds(names: Sequence[str], members: Sequence[Estimator]) -> None:
    """Check that no estimator has seen the images of its fold."""
    for fold, (name, member) in enumerate(zip(names, members, strict=True)):
        if member.left_out != (fold, len(members)):
            left_out = "{} of {}".format(*member.left_out) if member.left_out else "none"
            found = f"a classifier that left out fold {left_out}"
            expected = f"one that left out fold {fold} of {len(names)}"
            remedy = "List the estimators in the order of folds, each trained with data.cross_fitting"
            raise InputError(name, found, expected, remedy)


def _identity(members: Sequence[str], definition: str) -> str:
    """Names of the estimators, one hash of all weights, and the definition if it is not Eq. 6."""
    identity = members[0]
    if len(members) > 1:
        names = sorted({member.split("@")[0] for member in members})
        identity = f"{'+'.join(names)}[{len(members)}]@{hash_json(sorted(members))[:12]}"
    return identity if definition == "confidence" else f"{identity}:{definition}"
