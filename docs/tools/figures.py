"""Draws figures of docs/results.md that compare several runs: ``python docs/tools/figures.py``.

One shows what other definitions of difficulty change, the other what another network, soft labels and more images a
class change. Both show accuracies from the records of runs in ``results/``.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.axes import Axes

from dgs_lightning.reporting.kept import open_run
from dgs_lightning.reporting.names import show
from dgs_lightning.reporting.style import INK, method_color, new_figure, styled
from dgs_lightning.reporting.summary import summarize

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "docs" / "images"
DEFINITIONS = {
    "confidence": "fashion_mnist_study",
    "margin": "fashion_mnist_margin",
    "entropy": "fashion_mnist_entropy",
    "loss": "fashion_mnist_loss",
}
CHOSEN = {"Photos": ("dgs_ori", "random"), "Images of the DiT": ("dit_dgs", "dit")}
SETTINGS = {  # title: records, network, IPC
    "ConvNet-3": ("fashion_mnist_protocols", "convnet3", 10),
    "ResNetAP-10": ("fashion_mnist_protocols", "resnet_ap10", 10),
    "Soft labels": ("fashion_mnist_protocols", "soft/convnet3", 10),
    "50 images a class": ("fashion_mnist_ipc50", "convnet3", 50),
}
METHODS = ("random", "herding", "dgs_ori", "dm", "dit", "dit_dgs", "mgd3", "dag")

Rows = Mapping[tuple[str, str, int], Mapping[str, Any]]  # by method, network and IPC


class Line(NamedTuple):
    """A row of a table as a line of a panel."""

    name: str
    row: Mapping[str, Any]
    color: str


@cache
def rows_of(records: str) -> Rows:
    """The rows of a kept run."""
    rows = summarize(open_run(ROOT / "results" / records))["rows"]
    return {(row["method"], row["network"], row["ipc"]): row for row in rows}


def row_of(records: str, method: str, network: str = "convnet3", ipc: int = 10) -> Mapping[str, Any]:
    """A row of a kept run."""
    return rows_of(records)[method, network, ipc]


def definitions() -> dict[str, list[Line]]:
    """Sets that difficulty-guided sampling chose by each definition of difficulty, below that without it."""
    return {
        title: [
            Line("without DGS", row_of(DEFINITIONS["confidence"], without), INK),
            *(Line(f"by {name}", row_of(of, method), method_color(method)) for name, of in DEFINITIONS.items()),
        ]
        for title, (method, without) in CHOSEN.items()
    }


def settings() -> dict[str, list[Line]]:
    """The same methods in several settings."""
    return {
        title: [
            Line(show("method", method), row_of(records, method, network, ipc), method_color(method))
            for method in METHODS
        ]
        for title, (records, network, ipc) in SETTINGS.items()
    }


@styled
def draw(panels: Mapping[str, Sequence[Line]], path: Path) -> None:
    """Draw the mean accuracy of each line, and its 95 % interval, into a PNG file."""
    figure = new_figure(1.6 + 3.4 * len(panels) ** 0.8, 0.5 + 0.42 * max(map(len, panels.values())))
    for axes, (title, lines) in zip(figure.subplots(1, len(panels), sharey=True), panels.items(), strict=True):
        for y, line in enumerate(lines):
            _mark(axes, y, line)
        axes.set(title=title, xlabel="accuracy, %", yticks=range(len(lines)), yticklabels=[line.name for line in lines])
        axes.margins(y=0.15)
    figure.axes[0].invert_yaxis()
    figure.savefig(path)


def _mark(axes: Axes, y: int, line: Line) -> None:
    low, high = line.row["accuracy_last_interval"]
    axes.plot([100 * low, 100 * high], [y, y], color=line.color, lw=1.4, alpha=0.6, solid_capstyle="butt")
    axes.plot(100 * line.row["accuracy_last_mean"], y, "o", ms=6.5, color=line.color, mec="white", mew=0.8)


if __name__ == "__main__":
    draw(definitions(), IMAGES / "fashion_mnist_definitions.png")
    draw(settings(), IMAGES / "fashion_mnist_settings.png")
