"""What a run leaves of its trainings and stages: accuracies and costs."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any, NamedTuple, NotRequired, Required, TypedDict, TypeVar

from dgs_lightning.bounds import AtLeast, Between
from dgs_lightning.documents.files import read_json
from dgs_lightning.documents.shapes import Filled, FolderName
from dgs_lightning.errors import InputError
from dgs_lightning.reporting.names import on_subset, under
from dgs_lightning.runs.ddranking import ScoreName
from dgs_lightning.runs.layout import RESULT, Training
from dgs_lightning.seeding import draw_and_repeat

REMEDY = "Delete it, and run the experiment again"
T = TypeVar("T")
Section = dict[str, Any]
Share = Annotated[float, Between(0, 1)]
Counts = Annotated[list[Annotated[float, Between(0, 1e12)]], Filled()]


class Variant(TypedDict, total=False):
    """A row that differs from a method in some settings."""

    method: Required[Annotated[str, FolderName()]]
    select: Section
    mgd3: Section
    dag: Section
    options: dict[str, Section]


class RunSettings(TypedDict, total=False):
    """The settings of an experiment that its report depends on, as in ``experiment.yaml``."""

    name: Annotated[str, FolderName()]
    title: str
    methods: list[str] | None
    networks: list[str] | None
    protocols: list[str] | None
    scores: list[ScoreName] | None
    lrs_weight: Share | None
    ars_weight: Share | None
    ipc: int | list[int] | None
    seed: Annotated[int | None, AtLeast(0)]
    draws: Annotated[int | None, AtLeast(1)]
    repeats: Annotated[int | None, AtLeast(1)]
    variants: dict[str, Variant] | None
    classes: str | None
    data: str | None
    codec: str | None
    decoder: str | None
    dit: str | None
    estimator: str | None
    image_size: int | None
    guided: Annotated[str, FolderName()]
    pool_multiple: int | None
    generate: Section | None
    select: Section | None
    mgd3: Section | None
    dag: Section | None


class Accuracies(TypedDict):
    """The accuracies of a training on some validation images."""

    accuracy_last: Share
    accuracy_best: Share


class Result(Accuracies):
    """The accuracies of a training, as in ``result.json``."""

    subsets: NotRequired[dict[str, Accuracies]]


class Histogram(TypedDict):
    """Images by difficulty interval, and their mean difficulty."""

    counts: Counts
    mean: Share


class Account(TypedDict):
    """The difficulties of the images of a class, before or after smoothing."""

    original: Histogram
    pool: Histogram
    distilled: Histogram
    distance: NotRequired[float | None]


class Draw(Account):
    """The images of a class at each stage of difficulty-guided sampling."""

    target: Counts


class ClassAccount(TypedDict, total=False):
    """How the images of a class were selected."""

    raw: Account
    unsmoothed: Draw
    smoothed: Draw


class Distance(TypedDict):
    """How far the difficulties of a class are from those of the originals."""

    distance: float | None


class SmoothedDistance(TypedDict):
    """What is kept of a class whose account no figure shows."""

    smoothed: Distance


class Selection(TypedDict, total=False):
    """How a distilled set was selected, as in ``selection.json``."""

    intervals: Annotated[int, Between(1, 1000)]
    classes: dict[str, ClassAccount]
    smoothing: Section | str | None
    features: str


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One network trained on one set and evaluated, as in ``evaluation/SET/NETWORK/seedK/result.json``.

    Attributes:
        training: The training, with its set, network and seed.
        draw: Draw that the training belongs to. A set without chance has trainings of all draws.
        repeat: Number of the training in its draw.
        accuracy_last: Accuracy at the end of the training, in ``[0, 1]``.
        accuracy_best: Accuracy of the best evaluation during the training.
        subset: The subset of the validation images that the accuracies are on; empty for all images.
    """

    training: Training
    draw: int
    repeat: int
    accuracy_last: float
    accuracy_best: float
    subset: str = ""

    @property
    def row(self) -> str:
        """Row of the table."""
        row = self.training.trained_on.row
        return on_subset(row, self.subset) if self.subset else row

    @property
    def ipc(self) -> int | None:
        """Images per class; None for the full data set."""
        return self.training.trained_on.ipc

    @property
    def network(self) -> str:
        """Name of the network, after that of its protocol if the labels are not those of the images."""
        return under(self.training.network, self.training.protocol)


@dataclass(frozen=True, slots=True)
class Cost:
    """Time and device of a finished stage, and the number of images that it wrote or scored, if any."""

    stage: str
    seconds: float
    images: int | None
    device: str | None


class Recognition(NamedTuple):
    """How many images of a set a classifier recognises.

    Attributes:
        share: Share of the images that are given their own class, averaged over the classes, in [0, 1].
        labels: Number of classes that the images have or are given; chance is one of them.
    """

    share: float
    labels: int

    @classmethod
    def of(cls, answers: Iterable[tuple[str, str]]) -> "Recognition | None":
        """From the label of each image and the one that the classifier gives it; None without images."""
        right, labels = defaultdict[str, list[bool]](list), set[str]()
        for label, predicted in answers:
            right[label].append(predicted == label)
            labels |= {label, predicted}
        shares = [fmean(of_class) for of_class in right.values()]
        return cls(sum(shares) / len(shares), len(labels)) if shares else None

    def is_poor(self, reachable: float = 1.0) -> bool:
        """Whether the share is nearer to chance than to the share that can be reached."""
        return self.share < (1 / self.labels + reachable) / 2


def evaluations_of(stage: str, result: Result, run: Path, seed: int) -> list[Evaluation]:
    """A training with its result, on all validation images and on each subset of them.

    Args:
        stage: Folder of the training in the run.
        result: Content of its ``result.json``.
        run: Folder of the run.
        seed: Seed of the run.

    Raises:
        InputError: If the folder is not that of a training.
    """
    try:
        training = Training.parse(stage)
    except ValueError as error:
        place, expected = run / stage / RESULT, "the result of a training in a folder seedK"
        raise InputError.broken(place, error, expected, REMEDY) from None
    draw, repeat = draw_and_repeat(seed, training.seed)
    found: dict[str, Accuracies] = {"": result, **result.get("subsets", {})}
    return [
        Evaluation(training, draw, repeat, float(of["accuracy_last"]), float(of["accuracy_best"]), on)
        for on, of in found.items()
    ]


def read_record(path: Path, kind: type[T], default: T | None = None) -> T:
    """A JSON object that a run wrote; ``default`` without that file. Other files raise an InputError."""
    return read_json(path, kind, "a record of the run", REMEDY, default)
