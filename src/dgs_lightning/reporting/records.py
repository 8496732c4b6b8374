"""What a run leaves of its trainings and stages: accuracies and costs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dgs_lightning.errors import InputError
from dgs_lightning.files import read_json
from dgs_lightning.reporting.names import on_subset
from dgs_lightning.runs.layout import Training
from dgs_lightning.seeding import draw_and_repeat

REMEDY = "Delete it, and run the experiment again"


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
        """Name of the network."""
        return self.training.network


@dataclass(frozen=True, slots=True)
class Cost:
    """Time and device of a finished stage, and the number of images that it wrote or scored, if any."""

    stage: str
    seconds: float
    images: int | None
    device: str | None


def read_evaluations(path: Path, run: Path, seed: int) -> list[Evaluation]:
    """The training that a ``result.json`` reports, on all validation images and on each subset of them.

    Args:
        path: The file.
        run: Folder of the run.
        seed: Seed of the run.

    Raises:
        InputError: If the file is broken, or does not lie in the folder of a training.
    """
    result = read_record(path)
    try:
        training = Training.parse(path.parent.relative_to(run).as_posix())
        found = {"": result, **result.get("subsets", {})}
        accuracies = {on: (float(of["accuracy_last"]), float(of["accuracy_best"])) for on, of in found.items()}
    except (KeyError, TypeError, ValueError) as error:
        expected = "accuracy_last and accuracy_best as numbers, in a folder seedK"
        raise InputError.broken(path, f"no usable {error}", expected, REMEDY) from None
    draw, repeat = draw_and_repeat(seed, training.seed)
    return [Evaluation(training, draw, repeat, last, best, on) for on, (last, best) in accuracies.items()]


def read_record(path: Path, default: dict[str, Any] | None = None) -> dict[str, Any]:
    """A JSON object that a run wrote; ``default`` without that file. Other files raise an InputError."""
    return read_json(path, "a record of the run", REMEDY, default)
