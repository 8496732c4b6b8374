"""Draws what other definitions of difficulty change: ``python docs/tools/definitions.py``.

The figure is that of docs/results.md. It shows the accuracy of the sets that difficulty-guided sampling chose by each
definition, and of those without it, from the records of four runs in ``results/``.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from dgs_lightning.reporting.kept import open_run
from dgs_lightning.reporting.style import INK, method_color, new_figure, styled
from dgs_lightning.reporting.summary import summarize

ROOT = Path(__file__).parents[2]
FIGURE = ROOT / "docs" / "images" / "fashion_mnist_definitions.png"
RECORDS = {
    "confidence": "fashion_mnist_study",
    "margin": "fashion_mnist_margin",
    "entropy": "fashion_mnist_entropy",
    "loss": "fashion_mnist_loss",
}
PANELS = {"Photos": ("dgs_ori", "random"), "Images of the DiT": ("dit_dgs", "dit")}

Rows = Mapping[str, Mapping[str, Any]]


def rows_of(records: str) -> Rows:
    """The rows of a kept run at ten images a class, by their method."""
    rows = summarize(open_run(ROOT / "results" / records))["rows"]
    return {row["method"]: row for row in rows if row["ipc"] == 10}


def mark(axes: Axes, y: int, row: Mapping[str, Any], color: str) -> None:
    """Draw the mean accuracy of a row and its 95 % interval."""
    low, high = row["accuracy_last_interval"]
    axes.plot([100 * low, 100 * high], [y, y], color=color, lw=1.4, alpha=0.6, solid_capstyle="butt")
    axes.plot(100 * row["accuracy_last_mean"], y, "o", ms=6.5, color=color, mec="white", mew=0.8)


@styled
def draw(found: Mapping[str, Rows], path: Path) -> None:
    """Draw the figure into a PNG file. ``found`` are the rows by the definition of difficulty."""
    figure = new_figure(8.4, 2.6)
    names = [f"by {name}" for name in found]
    for axes, (title, (method, without)) in zip(figure.subplots(1, 2, sharey=True), PANELS.items(), strict=True):
        mark(axes, 0, found["confidence"][without], INK)
        for y, rows in enumerate(found.values(), start=1):
            mark(axes, y, rows[method], method_color(method))
        axes.set(title=title, xlabel="accuracy, %", yticks=range(len(names) + 1), yticklabels=["without DGS", *names])
        axes.margins(y=0.15)
    figure.axes[0].invert_yaxis()
    figure.savefig(path)


if __name__ == "__main__":
    draw({name: rows_of(records) for name, records in RECORDS.items()}, FIGURE)
