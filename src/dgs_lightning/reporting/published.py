"""The paper's published numbers: top-1 accuracy in percent, as mean and standard deviation of three runs.

Li et al., "Difficulty-guided Sampling: Bridging the Target Gap between Dataset Distillation and Downstream Tasks",
Tables 1 to 7. ``published.csv`` has a line for each number of each table, since some tables disagree: DiT with
ResNet-18 at IPC 10 is 33.9 in Table 1 and 34.7 in Table 2.
"""

import csv
from collections import defaultdict
from collections.abc import Mapping
from importlib.resources import files
from typing import Literal, NamedTuple

from dgs_lightning.runs.methods import METHODS

Accuracy = Literal["best", "last"]  # the best evaluation of a training, as the paper publishes it, or the last one


class Setting(NamedTuple):
    """The setting in which an accuracy was measured.

    Attributes:
        dataset: Key of the data set, such as ``imagewoof``.
        network: Key of the downstream network, such as ``resnet_ap10``.
        method: Key of the method, such as ``minimax_dgs``.
        ipc: Images per class. The full data set takes the IPC of the table's row.
        variant: What else was varied: a sampling distribution (``hill``), a pool size (``pool5``: 5 x IPC), a
            validation set (``val_easy``) or a stop timestep (``stop25``). Empty if nothing was.
    """

    dataset: str
    network: str
    method: str
    ipc: int
    variant: str = ""

    @property
    def family(self) -> str:
        """What Table 1 compares the method with (:attr:`~dgs_lightning.runs.methods.Method.family`)."""
        return METHODS[self.method].family if self.method in METHODS else ""


class Score(NamedTuple):
    """Accuracy in percent: a mean and a standard deviation, None for a single measurement."""

    mean: float
    std: float | None

    def __str__(self) -> str:
        """The score with one decimal, such as ``36.9 ± 0.5``."""
        return f"{self.mean:.1f}" + ("" if self.std is None else f" ± {self.std:.1f}")


RATIOS: Mapping[tuple[str, int], float] = {  # data set and IPC -> share of the training images that is kept (Table 1)
    ("imagewoof", 10): 0.008,
    ("imagewoof", 20): 0.016,
    ("imagewoof", 50): 0.038,
}
DEFAULT_VARIANTS = {4: "scale", 5: "pool5", 6: "val_original", 7: "stop25"}  # table -> variant with these settings


def _read_numbers() -> dict[int, dict[Setting, Score]]:
    tables: dict[int, dict[Setting, Score]] = defaultdict(dict)
    with files(__package__).joinpath("published.csv").open(encoding="utf-8") as lines:
        for line in csv.DictReader(lines):
            setting = Setting(line["dataset"], line["network"], line["method"], int(line["ipc"]), line["variant"])
            tables[int(line["table"])][setting] = Score(float(line["mean"]), float(line["std"]))
    return dict(tables)


PUBLISHED: Mapping[int, Mapping[Setting, Score]] = _read_numbers()


def published(table: int, setting: Setting) -> Score | None:
    """The score that a table of the paper gives for a setting; None if it gives none."""
    method = METHODS.get(setting.method)
    key = (method and method.published) or setting.method
    return PUBLISHED[table].get(setting._replace(method=key))


def first_published(setting: Setting) -> Score | None:
    """The score of a setting in the first table that has it. Without a variant, it has the table's default variant."""
    by_table = ((table, setting.variant or DEFAULT_VARIANTS.get(table, "")) for table in PUBLISHED)
    scores = (published(table, setting._replace(variant=variant)) for table, variant in by_table)
    return next(filter(None, scores), None)
