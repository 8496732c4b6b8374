"""Figures of images: a class by difficulty, original beside distilled images, samples of every class."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from dgs_lightning.reporting.style import DIFFICULTY, GRID, INK, MUTED, picture, place, styled

T = TypeVar("T")


class ScoredImage(NamedTuple):
    """An image and its difficulty in [0, 1]."""

    image: Image.Image
    difficulty: float


@styled
def difficulty_grid(images: Sequence[ScoredImage], title: str, columns: int = 10) -> Figure:
    """The images of a class from easy to hard, each above its difficulty, with ``columns`` images in a row."""
    ordered = sorted(images, key=lambda scored: scored.difficulty)
    columns = min(columns, len(ordered))
    rows = -(-len(ordered) // columns)
    figure, axes = picture(0, 1.08 * columns - 0.08, 1.34 * rows - 0.04, 0.9, title)
    for position, scored in enumerate(ordered):
        row, column = divmod(position, columns)
        _scored_cell(axes, scored, column * 1.08, row * 1.34)
    return figure


def _scored_cell(axes: Axes, scored: ScoredImage, x: float, y: float) -> None:
    """Draw an image above its difficulty, as a bar and as a number."""
    place(axes, scored.image, x, y)
    axes.add_patch(Rectangle((x, y + 1.04), 1, 0.05, color=GRID, lw=0))
    axes.add_patch(Rectangle((x, y + 1.04), scored.difficulty, 0.05, color=DIFFICULTY(scored.difficulty), lw=0))
    axes.text(x + 0.5, y + 1.19, f"{scored.difficulty:.2f}", ha="center", va="center", fontsize=8, color=INK)


@styled
def original_against_distilled(
    classes: Mapping[str, tuple[Sequence[ScoredImage], Sequence[ScoredImage]]], columns: int = 10
) -> Figure:
    """Two rows for each class: original and distilled images from easy to hard, each above its difficulty (Fig. 5).

    A row shows at most ``columns`` images, evenly spaced in order of difficulty.
    """
    figure, axes = picture(0.95, 1.08 * columns - 0.08, 3.1 * len(classes) - 0.1, 0.9)
    for row, (name, sets) in enumerate(classes.items()):
        top = 3.1 * row
        axes.text(-0.95, top + 0.12, name, fontsize=11, weight="bold", va="center")
        for y, title, images in zip((top + 0.35, top + 1.72), ("original", "distilled"), sets, strict=True):
            axes.text(-0.12, y + 0.5, title, ha="right", va="center", fontsize=9, color=MUTED)
            for column, scored in enumerate(spread(sorted(images, key=lambda s: s.difficulty), columns)):
                _scored_cell(axes, scored, column * 1.08, y)
    return figure


@styled
def one_class(rows: Mapping[str, Sequence[ScoredImage]], title: str, longest: int = 10) -> Figure:
    """One class: a row for each set, given by name, with its images from easy to hard, each above its difficulty.

    More than ``longest`` rows stand in two columns.
    """
    parts = 1 if len(rows) <= longest else 2
    lines, across = -(-len(rows) // parts), max(map(len, rows.values()))
    left, width, height = 0.3 + 0.115 * max(map(len, rows)), 1.08 * across - 0.08, 1.4
    figure, axes = picture(left, width + (parts - 1) * (left + 0.3 + width), height * lines - 0.08, 0.62, title)
    for position, (name, images) in enumerate(rows.items()):
        column, line = divmod(position, lines)
        x, y = column * (left + 0.3 + width), height * line
        axes.text(x - 0.2, y + 0.5, name, ha="right", va="center", fontsize=9)
        for number, scored in enumerate(sorted(images, key=lambda scored: scored.difficulty)):
            _scored_cell(axes, scored, x + 1.08 * number, y)
    return figure


def spread(ordered: Sequence[T], count: int) -> list[T]:
    """At most ``count`` evenly spaced items, with the first and the last."""
    positions = np.linspace(0, len(ordered) - 1, min(count, len(ordered))).round().astype(int)
    return [ordered[position] for position in positions]


@styled
def class_samples(classes: Mapping[str, Sequence[Image.Image]], title: str, columns: int = 10) -> Figure:
    """A row for each class, given by name, with its first images, at most ``columns`` (Fig. 6)."""
    columns = min(columns, max(map(len, classes.values())))
    left = 0.25 + 0.1 * max(map(len, classes))
    figure, axes = picture(left, 1.06 * columns - 0.06, 1.06 * len(classes) - 0.06, 0.8, title)
    for row, (name, images) in enumerate(classes.items()):
        axes.text(-0.15, row * 1.06 + 0.5, name, ha="right", va="center", fontsize=9)
        for column, image in enumerate(images[:columns]):
            place(axes, image, column * 1.06, row * 1.06)
    return figure
