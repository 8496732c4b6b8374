"""One look for all figures: colours and fonts, and files whose bytes depend only on the content of the figure."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure, SubFigure
from PIL import Image, ImageOps

from dgs_lightning.files import replacing
from dgs_lightning.runs.methods import METHODS

INK, MUTED, CLOUD, GRID = "#22303c", "#6b7885", "#c9d1d8", "#e3e7ea"
ORIGINAL, POOL, TARGET, DISTILLED = "#5f6d7a", "#8db3d4", "#d68a34", "#1f5a92"
DIFFICULTY_RAMP = ((243, 223, 181), (227, 154, 77), (182, 68, 63), (87, 27, 69))  # red, green, blue; from easy to hard
DIFFICULTY = LinearSegmentedColormap.from_list("difficulty", np.array(DIFFICULTY_RAMP) / 255)
_RC: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": MUTED,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.labelcolor": MUTED,
    "axes.labelsize": 9,
    "axes.linewidth": 0.8,
    **{f"axes.spines.{side}": False for side in ("left", "right", "top")},
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "figure.facecolor": "white",
    "figure.titlesize": 12,
    "figure.titleweight": "bold",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "text.color": INK,
    "text.parse_math": False,  # names of classes and methods may contain "$"
    **{f"{axis}tick.{part}": MUTED for axis in "xy" for part in ("color", "labelcolor")},
    **{"xtick.labelsize": 8, "xtick.major.size": 3, "ytick.labelsize": 8, "ytick.major.size": 0},
}
_SMALL = 96  # images with a shorter side below this are enlarged by a whole factor, so that pixels stay sharp

P = ParamSpec("P")
R = TypeVar("R")


def use_style() -> None:
    """Draw in the project's look from now on; other settings of matplotlib are reset."""
    mpl.rcdefaults()
    mpl.rcParams.update(_RC)


@contextmanager
def plain_text() -> Iterator[None]:
    """Draw text as it is in figures of another look: matplotlib reads what stands between two ``$`` as mathematics."""
    with mpl.rc_context({"text.parse_math": False}):
        yield


def styled(draw: Callable[P, R]) -> Callable[P, R]:
    """Make a function draw in the project's look, without a change to other figures."""

    @wraps(draw)
    def in_style(*args: P.args, **kwargs: P.kwargs) -> R:
        with mpl.rc_context():
            use_style()
            return draw(*args, **kwargs)

    return in_style


def method_color(method: str) -> str:
    """Colour of a method; unknown methods share one."""
    return METHODS[method].colour if method in METHODS else DISTILLED


def new_figure(width: float, height: float) -> Figure:
    """An empty figure without a window; sizes in inches."""
    return Figure(figsize=(width, height), layout="constrained")


def heading(figure: Figure | SubFigure, title: str) -> None:
    """Write the title of a figure, or of a part of one, at its left edge."""
    figure.suptitle(title, x=0.01, ha="left")


@styled
def save(figure: Figure, path: Path) -> list[Path]:
    """Write a figure to ``path`` with the endings png and pdf, atomically and without dates; return both paths."""
    written = []
    for ending, names in {"png": ["Software"], "pdf": ["CreationDate", "Creator", "Producer"]}.items():
        written.append(path.with_name(f"{path.name}.{ending}"))
        with replacing(written[-1]) as partial:
            figure.savefig(partial, format=ending, dpi=160, metadata=dict.fromkeys(names))
        figure.set_layout_engine("none")  # the layout is slow to compute: the second file uses that of the first
    return written


def picture(left: float, width: float, height: float, unit: float, title: str = "") -> tuple[Figure, Axes]:
    """A figure for images, without frame or ticks, and its axes. Lengths are in cells, and y grows downwards.

    The point ``(0, 0)`` is the upper left corner of the area of the cells. ``left`` is the space for row titles to the
    left of it, and ``unit`` is the size of a cell in inches.
    """
    margin, strip = 0.08, 0.34 if title else 0.0  # inches
    total = (left + width) * unit + 2 * margin, height * unit + 2 * margin + strip
    figure = Figure(figsize=total)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(-left - margin / unit, width + margin / unit)
    axes.set_ylim(height + margin / unit, -(margin + strip) / unit)
    if title:
        axes.text(-left, -strip / 2 / unit, title, fontsize=11, weight="bold", va="center")
    return figure, axes


def place(axes: Axes, image: Image.Image, x: float, y: float) -> None:
    """Draw an image, cropped to a square, in the cell whose upper left corner is at ``(x, y)``."""
    side = min(image.size)
    square = ImageOps.fit(image.convert("RGB"), (side, side))  # RGB: imshow would draw a grey image in colours
    if side < _SMALL:
        enlarged = side * -(-_SMALL // side)
        square = square.resize((enlarged, enlarged), Image.Resampling.NEAREST)
    axes.imshow(square, extent=(x, x + 1, y + 1, y), interpolation="none")
