"""The paper's published numbers: top-1 accuracy in percent, as mean and standard deviation of three runs.

Li et al., "Difficulty-guided Sampling: Bridging the Target Gap between Dataset Distillation and Downstream Tasks",
Tables 1 to 7. Each number is stored with its table, since some tables disagree: DiT with ResNet-18 at IPC 10 is 33.9 in
Table 1 and 34.7 in Table 2.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from dgs_lightning.runs.methods import METHODS


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
    """Accuracy in percent: the mean over the repeats and their standard deviation, None for one repeat."""

    mean: float
    std: float | None

    def __str__(self) -> str:
        """The score with one decimal, such as ``36.9 ± 0.5``."""
        return f"{self.mean:.1f}" + ("" if self.std is None else f" ± {self.std:.1f}")


SIDE = 224  # side in pixels of the images on which the downstream networks are trained and evaluated
SETTINGS: Mapping[str, object] = {  # the paper's settings of an experiment, unless a table varies them
    "select.distribution": "scale",
    "select.intervals": 10,
    "select.shortage": "random",
    "mgd3.scale": 0.1,
    "mgd3.stop_timestep": 25,
    "dag.scale": 0.1,
    "dag.stop_timestep": 25,
    "pool_multiple": 5,
}
DEFAULT_VARIANTS = {4: "scale", 5: "pool5", 6: "val_original", 7: "stop25"}  # table -> variant with these settings
IPC = (10, 20, 50)
_DGS = "minimax_dgs"

_TABLE_1_METHODS = ("random", "kcenter", "dgs_ori", "dit", "dit_dgs", "minimax", _DGS, "full")
_TABLE_1 = {
    ("imagewoof", "convnet6", 10): "24.3±1.1 19.4±0.9 24.6±0.7 31.4±0.4 31.0±1.1 34.1±0.4 35.2±0.4 86.4±0.2",
    ("imagewoof", "resnet_ap10", 10): "28.4±0.7 22.1±0.1 28.8±0.9 34.4±0.6 35.1±1.0 35.7±0.3 37.8±0.3 87.5±0.5",
    ("imagewoof", "resnet18", 10): "27.7±0.9 21.1±0.4 28.0±0.7 33.9±0.1 34.2±0.2 35.3±0.4 36.0±0.4 89.3±1.2",
    ("imagewoof", "convnet6", 20): "29.1±0.7 21.5±0.8 31.2±0.4 36.9±1.1 37.2±0.3 36.9±1.2 39.5±0.6 86.4±0.2",
    ("imagewoof", "resnet_ap10", 20): "32.7±0.4 25.1±0.7 37.4±0.7 41.1±0.8 41.5±0.7 43.3±0.3 45.4±0.4 87.5±0.5",
    ("imagewoof", "resnet18", 20): "29.7±0.5 23.6±0.3 33.3±0.5 40.5±0.5 41.0±0.4 40.9±0.6 42.4±0.4 89.3±1.2",
    ("imagewoof", "convnet6", 50): "41.3±0.6 36.5±1.0 41.6±0.6 46.5±0.8 47.1±1.4 51.4±0.4 51.5±0.2 86.4±0.2",
    ("imagewoof", "resnet_ap10", 50): "47.2±1.3 40.6±0.4 48.7±0.2 49.3±0.2 52.5±0.7 54.4±0.6 57.1±0.9 87.5±0.5",
    ("imagewoof", "resnet18", 50): "47.9±1.8 39.6±1.0 47.7±0.2 50.1±0.5 53.5±1.5 53.9±0.6 54.3±0.8 89.3±1.2",
}
_TABLE_2 = {
    "random": "27.7±0.9 29.7±0.5 47.9±1.8",
    "kcenter": "21.1±0.4 23.6±0.3 39.6±1.0",
    "herding": "30.2±1.2 32.2±0.6 48.3±1.2",
    "dm": "33.4±0.7 29.8±1.7 46.2±0.6",
    "idc1": "36.9±0.4 38.6±0.2 48.3±0.8",
    "d4m": "33.2±2.1 40.1±1.6 51.7±3.2",
    "dit": "34.7±0.4 40.5±0.5 50.1±0.5",
    "minimax": "35.3±0.4 40.9±0.6 53.9±0.6",
    _DGS: "36.0±0.4 42.4±0.4 54.3±0.8",
}
_TABLE_3_METHODS = ("random", "dit", "minimax", _DGS)
_TABLE_3 = {
    ("imagenette", "resnet_ap10", 10): "54.2±1.6 59.1±0.7 59.8±0.3 61.5±0.9",
    ("imagenette", "resnet_ap10", 20): "63.5±0.5 64.8±1.2 66.3±0.4 66.9±0.5",
    ("imagenette", "resnet_ap10", 50): "76.1±1.1 73.3±0.9 75.2±0.2 76.8±0.7",
    ("imageidc", "resnet_ap10", 10): "48.1±0.8 54.1±0.4 60.3±1.0 61.6±0.7",
    ("imageidc", "resnet_ap10", 20): "52.5±0.9 58.9±0.2 63.9±0.4 64.3±0.5",
    ("imageidc", "resnet_ap10", 50): "68.1±0.7 64.3±0.6 74.1±0.2 74.2±0.7",
}
_TABLE_4 = {
    "hill": "37.7±0.2 42.7±0.7 56.1±0.6",
    "ground": "35.8±0.2 41.7±0.3 56.9±0.5",
    "slope": "37.4±0.6 44.3±0.3 56.6±0.8",
    "cliff": "36.7±0.7 42.7±0.8 55.0±0.6",
    "scale": "37.8±0.3 45.5±0.4 57.1±0.9",
}
_TABLE_5 = {
    "pool2": "37.9±0.4 44.3±0.3 55.8±0.6",
    "pool3": "35.9±0.8 41.5±0.5 56.7±0.4",
    "pool4": "38.4±0.6 43.7±0.5 55.4±0.9",
    "pool5": "37.4±0.3 45.5±0.4 57.1±0.9",
    "pool6": "37.8±0.3 42.7±1.1 54.9±1.3",
}
_TABLE_6 = {
    ("minimax", "val_original"): "59.8±0.3 66.3±0.4 75.2±0.2",
    (_DGS, "val_original"): "61.5±0.9 66.9±0.5 76.8±0.7",
    ("minimax", "val_random"): "57.1±0.3 63.5±0.4 72.2±0.3",
    (_DGS, "val_random"): "59.7±0.3 66.0±0.5 75.9±0.3",
    ("minimax", "val_easy"): "60.3±1.1 67.6±0.5 81.2±0.7",
    (_DGS, "val_easy"): "62.3±0.4 71.5±0.5 79.5±0.3",
    ("minimax", "val_scale"): "56.9±0.8 62.6±0.6 73.8±0.7",
    (_DGS, "val_scale"): "59.9±0.7 64.5±0.2 74.1±0.5",
}
_TABLE_7 = {
    ("mgd3", "stop25"): "64.9±0.4 71.1±0.5 79.3±0.2",
    ("dag", "stop25"): "65.6±0.3 72.3±0.2 80.3±0.4",
    ("dag", "stop30"): "65.1±0.4 67.7±0.7 78.6±0.2",
    ("dag", "stop40"): "63.6±1.4 67.5±0.9 76.3±0.4",
    ("dag", "stop50"): "61.4±0.8 67.1±0.4 70.6±0.3",
}


def _scores(text: str) -> list[Score]:
    """The scores in one line of a table above."""
    return [Score(*map(float, cell.split("±"))) for cell in text.split()]


def _over_ipc(dataset: str, network: str, rows: Mapping[tuple[str, str], str]) -> Iterator[tuple[Setting, Score]]:
    """The entries of a table that has a line for each (method, variant) and a column for each IPC."""
    for (method, variant), line in rows.items():
        for ipc, score in zip(IPC, _scores(line), strict=True):
            yield Setting(dataset, network, method, ipc, variant), score


def _over_methods(methods: Sequence[str], rows: Mapping[tuple[str, str, int], str]) -> Iterator[tuple[Setting, Score]]:
    """The entries of a table that has a line for each (data set, network, IPC) and a column for each method."""
    for (dataset, network, ipc), line in rows.items():
        for method, score in zip(methods, _scores(line), strict=True):
            yield Setting(dataset, network, method, ipc), score


PUBLISHED: Mapping[int, Mapping[Setting, Score]] = {
    1: dict(_over_methods(_TABLE_1_METHODS, _TABLE_1)),
    2: dict(_over_ipc("imagewoof", "resnet18", {(method, ""): line for method, line in _TABLE_2.items()})),
    3: dict(_over_methods(_TABLE_3_METHODS, _TABLE_3)),
    4: dict(_over_ipc("imagewoof", "resnet_ap10", {(_DGS, name): line for name, line in _TABLE_4.items()})),
    5: dict(_over_ipc("imagewoof", "resnet_ap10", {(_DGS, size): line for size, line in _TABLE_5.items()})),
    6: dict(_over_ipc("imagenette", "resnet_ap10", _TABLE_6)),
    7: dict(_over_ipc("imagenette", "resnet_ap10", _TABLE_7)),
}


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
