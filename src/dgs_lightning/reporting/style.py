"""One look for all figures: colours and fonts, and files whose bytes depend only on the content of the figure."""

import io
import logging
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache, wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure, SubFigure
from matplotlib.font_manager import fontManager, get_font
from PIL import Image, ImageOps

from dgs_lightning.files import replacing
from dgs_lightning.runs.methods import find_method

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

_ASIAN = re.compile(  # words in the names of fonts for Chinese, Japanese and Korean
    r"CJK|Han|Hei|Ming|Song|Kai|Gothic|Mincho|Nanum|Fallback|Unifont|Unicode|PingFang|Malgun|Hiragino|Batang|Gulim|Dotum"
    r"|Meiryo|Takao",
    re.IGNORECASE,
)
_MISSING = r"Glyph \d+ .*missing from"  # beginning of matplotlib's warning
_log = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")


def use_style() -> None:
    """Draw in the project's look from now on; other settings of matplotlib are reset."""
    mpl.rcdefaults()
    mpl.rcParams.update(_RC | {"font.family": font_families()})


@contextmanager
def plain_text() -> Iterator[None]:
    """Draw text as it is in figures of another look: a name may hold ``$``, which matplotlib reads as mathematics.

    A name may be in any script. Where no font of this system has a character, a log says so once, in place of a
    warning for each character.
    """
    fonts: dict[Any, Any] = {"text.parse_math": False, "font.family": font_families()}
    with warnings.catch_warnings(record=True) as caught, mpl.rc_context(fonts):
        warnings.filterwarnings("always", _MISSING)
        yield
    for each in caught:
        if re.match(_MISSING, str(each.message)):
            _say_that_fonts_lack_characters()
        else:
            warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)


@cache
def font_families() -> list[str]:
    """DejaVu Sans, and fonts of this system for Chinese, Japanese and Korean, which it lacks."""
    fonts = sorted((font for font in fontManager.ttflist if _ASIAN.search(font.name)), key=lambda f: (f.name, f.fname))
    found = (next((font.name for font in fonts if _has(font.fname, character)), None) for character in "中あ한")
    return list(dict.fromkeys(["DejaVu Sans", *filter(None, found)]))


def _has(font: str, character: str) -> bool:
    with suppress(OSError, RuntimeError):  # a broken file
        return bool(get_font(font).get_char_index(ord(character)))
    return False


@cache
def _say_that_fonts_lack_characters() -> None:
    remedy = "install one that has them, such as Noto Sans CJK, and repeat 'dgs report'"
    _log.warning("No font of this system has some characters of the names in figures, which show boxes: %s", remedy)


def styled(draw: Callable[P, R]) -> Callable[P, R]:
    """Make a function draw in the project's look and in :func:`plain_text`, without a change to other figures."""

    @wraps(draw)
    def in_style(*args: P.args, **kwargs: P.kwargs) -> R:
        with mpl.rc_context():
            use_style()
            with plain_text():
                return draw(*args, **kwargs)

    return in_style


def method_color(method: str) -> str:
    """Colour of a method; unknown methods share one."""
    found = find_method(method)
    return found.colour if found else DISTILLED


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
        content = io.BytesIO()  # in memory, since matplotlib hides the error of a full disk
        figure.savefig(content, format=ending, dpi=160, metadata=dict.fromkeys(names))
        with replacing(written[-1]) as partial:
            partial.write_bytes(content.getvalue())
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
