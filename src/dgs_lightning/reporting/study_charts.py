"""Charts that compare the rows of a run, drawn from numbers. Nothing here reads a file."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dgs_lightning.reporting.style import CLOUD, INK, heading, method_color, new_figure, styled

WIDE = 20  # ratio of the greatest value of a setting to the least from which on its axis is logarithmic
_LINE, _NAMES = 0.17, 1.9  # inches: height of a name, and width of the names beside a panel


class Point(NamedTuple):
    """A row in numbers, with accuracies in percent.

    Attributes:
        method: Key of its method.
        name: Its name.
        accuracy: Mean accuracy.
        interval: 95 % interval of the mean, if it is known.
        distance: Distance of its difficulties from those of the originals, if they are known.
        difficulty: Mean difficulty of its images, if it is known.
        setting: Value of the setting that is studied.
    """

    method: str
    name: str
    accuracy: float
    interval: tuple[float, float] | None
    distance: float | None
    difficulty: float | None
    setting: float = 0.0


@styled
def accuracy_against_distance(panels: Mapping[str, Sequence[Point]]) -> Figure:
    """Accuracy against distance, a point for each row with its 95 % interval, and its name at the right.

    Each panel has points, all with a distance, and a title.
    """
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    height = max(2.6, _LINE * max(map(len, panels.values())))
    figure = new_figure((3.6 + _NAMES) * columns, (height + 0.8) * rows)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    for axes, (title, points) in zip(grid.flat, panels.items(), strict=False):
        for point in points:
            _mark(axes, point, float(point.distance or 0))
        axes.set(title=title, xlabel="distance of the difficulties from those of the originals", ylabel="accuracy, %")
        axes.grid(axis="x")
        _name_beside(axes, points, _LINE / height)
    return figure


def _mark(axes: Axes, point: Point, x: float) -> None:
    """Draw the accuracy of a point and its interval."""
    color = method_color(point.method)
    if point.interval is not None:
        axes.plot([x, x], point.interval, color=color, lw=1.4, alpha=0.6, solid_capstyle="butt", zorder=2)
    axes.plot(x, point.accuracy, "o", ms=6.5, color=color, mec="white", mew=0.8, zorder=3)


def _name_beside(axes: Axes, points: Sequence[Point], line: float) -> None:
    """Write the names in a column at the right, each as high as its point or as near as others allow, with a line."""
    ordered = sorted(points, key=lambda point: point.accuracy)
    low, high = axes.get_ylim()
    axes.set_ylim(low, high)
    places = spaced([(point.accuracy - low) / (high - low) for point in ordered], line)
    for point, place in zip(ordered, places, strict=True):
        axes.annotate(
            point.name,
            (float(point.distance or 0), point.accuracy),
            (1.1, place),
            textcoords="axes fraction",
            va="center",
            fontsize=8,
            color=INK,
            arrowprops={"arrowstyle": "-", "color": CLOUD, "lw": 0.7, "shrinkA": 10, "shrinkB": 4, "relpos": (0, 0.5)},
            zorder=1,
        )
        color = method_color(point.method)
        axes.plot(1.075, place, "o", ms=5, color=color, transform=axes.transAxes, clip_on=False)


def spaced(places: Sequence[float], least: float) -> list[float]:
    """Ascending places in ``[0, 1]``, moved as little as a distance of ``least`` between neighbours asks for."""
    steps = least * np.arange(len(places))
    blocks: list[list[float]] = []  # neighbours that touch each other: their places without the steps
    for place in np.asarray(places, dtype=np.float64) - steps:
        blocks.append([float(place)])
        while len(blocks) > 1 and np.mean(blocks[-2]) > np.mean(blocks[-1]):
            blocks[-2:] = [[*blocks[-2], *blocks[-1]]]
    free = np.concatenate([np.full(len(block), np.mean(block)) for block in blocks])
    moved: list[float] = (np.clip(free, 0, max(0, 1 - steps[-1])) + steps).tolist()
    return moved


@styled
def over_a_setting(panels: Mapping[str, Mapping[str, Sequence[Point]]], setting: str) -> Figure:
    """Accuracy with its 95 % interval, distance and difficulty over the values of a setting, a line for each method.

    Each row of panels has a title, and the points of each method by its name. ``setting`` is written below.
    """
    figure = new_figure(9.6, 2.5 * len(panels) + 0.5)
    parts = figure.subfigures(len(panels), 1, squeeze=False).flat
    for row, (title, methods) in zip(parts, panels.items(), strict=True):
        heading(row, title)
        accuracy, distance, difficulty = row.subplots(1, 3)
        for name, points in methods.items():
            ordered = sorted(points, key=lambda point: point.setting)
            color, values = method_color(ordered[0].method), [point.setting for point in ordered]
            accuracy.plot(values, [point.accuracy for point in ordered], color=color, lw=1.4, label=name, zorder=1)
            for point in ordered:
                _mark(accuracy, point, point.setting)
            for axes, numbers in (
                (distance, [p.distance for p in ordered]),
                (difficulty, [p.difficulty for p in ordered]),
            ):
                axes.plot(values, [np.nan if n is None else n for n in numbers], "o-", color=color, lw=1.4, mec="white")
        values = sorted({point.setting for points in methods.values() for point in points})
        for axes, label in ((accuracy, "accuracy, %"), (distance, "distance"), (difficulty, "difficulty")):
            axes.set(xlabel=setting, title=label[0].upper() + label[1:])
            axes.yaxis.set_major_locator(MaxNLocator(5))
            if values[0] > 0 and values[-1] / values[0] > WIDE:
                axes.set_xscale("log")
            axes.set_xticks(values, [f"{value:g}" for value in values])
            axes.set_xticks([], minor=True)
            axes.set_xmargin(0.08)
        if len(methods) > 1:
            row.legend(*accuracy.get_legend_handles_labels(), loc="outside right center")
    return figure
