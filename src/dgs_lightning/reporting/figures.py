"""Charts of the paper and of a run, drawn from arrays. Nothing here reads a file."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from dgs_lightning.reporting.published import Score
from dgs_lightning.reporting.style import (
    CLOUD,
    DISTILLED,
    INK,
    MUTED,
    ORIGINAL,
    POOL,
    TARGET,
    heading,
    method_color,
    new_figure,
    styled,
)
from dgs_lightning.selection.distribution import PUBLISHED, Counts, Floats, histogram, published_distribution

_LABEL = 0.22  # share of the axis of accuracies behind the highest one, for its label


class Histogram(NamedTuple):
    """Number of images in each difficulty interval, shape ``(K,)``, and the mean difficulty."""

    counts: Counts
    mean: float


class SamplingStages(NamedTuple):
    """Difficulties of one class at each stage of difficulty-guided sampling, without or with smoothing (Fig. 7)."""

    original: Histogram
    pool: Histogram
    target: Histogram  # sampling distribution; its mean takes the centre of each interval
    distilled: Histogram


@styled
def sampling_histograms(classes: Mapping[str, tuple[SamplingStages, SamplingStages]]) -> Figure:
    """Histograms of each class: a row for a draw without smoothing, one for that with it, and four columns (Fig. 7)."""
    figure = new_figure(10.4, 3.5 * len(classes))
    parts = figure.subfigures(len(classes), 1, squeeze=False).flat
    for part, (name, stages) in zip(parts, classes.items(), strict=True):
        heading(part, name)
        grid = part.subplots(2, 4)
        for axes_row, drawn, text in zip(grid, stages, ("without smoothing", "with smoothing"), strict=True):
            _sampling_row(axes_row, drawn)
            axes_row[0].set_ylabel(text)
        for axes in grid[1]:
            axes.set_xlabel("difficulty")
    return figure


def _sampling_row(axes_row: NDArray[np.object_], stages: SamplingStages) -> None:
    names = ("Original", "Image pool", "Sampling distribution", "Distilled")
    colors = (ORIGINAL, POOL, TARGET, DISTILLED)
    for axes, name, color, (counts, mean) in zip(axes_row, names, colors, stages, strict=True):
        _interval_bars(axes, counts, color)
        _title_with_mean(axes, name, mean)
        axes.axvline(mean, color=INK, lw=0.9, ls=(0, (3, 2)))
    highest = max(stages.target.counts.max(), stages.distilled.counts.max())
    for axes in axes_row[2:]:
        axes.set_ylim(0, 1.18 * highest)


def _title_with_mean(axes: Axes, name: str, mean: float) -> None:
    axes.set_title(name, fontsize=9)
    axes.set_title(f"mean {mean:.2f}", loc="right", fontsize=8, fontweight="normal", color=MUTED)


def _interval_bars(axes: Axes, counts: Counts | Floats, color: str) -> None:
    """Draw a bar for each difficulty interval, with whole numbers on the axis."""
    width = 1 / len(counts)
    axes.bar((np.arange(len(counts)) + 0.5) * width, counts, width=0.86 * width, color=color)
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(0, max(1, counts.max()) * 1.18)
    axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))


def density(scores: Floats, points: int = 512, weights: Floats | None = None) -> tuple[Floats, Floats]:
    """Kernel density estimate over [0, 1], mirrored at both ends so that no mass leaves the interval.

    The kernel is Gaussian with Silverman's bandwidth, at least one grid step. It smooths the counts on a fine grid, so
    that the time grows linearly with the number of scores. There is at least one of ``scores``, shape ``(N,)``, all in
    ``[0, 1]``. The scores may have ``weights``, shape ``(N,)``, whose sum is N. The positions and the densities are
    returned, both of shape ``(points,)``.
    """
    counts, edges = np.histogram(scores, bins=points, range=(0, 1), weights=weights)
    quartiles = np.subtract(*np.percentile(scores, [75, 25])) / 1.34
    spread = min(filter(None, (float(scores.std()), float(quartiles))), default=0.0)
    bandwidth = max(0.9 * spread * len(scores) ** -0.2, 1 / points)
    smooth = gaussian_filter1d(counts * points / len(scores), bandwidth * points, mode="reflect")
    return (edges[:-1] + edges[1:]) / 2, smooth


@styled
def difficulty_densities(
    original: Mapping[str, Floats],
    pool: Mapping[str, Floats],
    pool_name: str,
    names: Mapping[str, str],
    ridges: int = 20,
) -> Figure:
    """Densities of the difficulties of original and pool images, for all classes together and for each (Fig. 2).

    The difficulties and the readable ``names`` are given by label. All classes together weigh the same, whatever their
    numbers of images. At most ``ridges`` classes are shown one by one.
    """
    labels = [label for label in original if label in pool]
    figure = new_figure(10, max(3.4, 0.32 * min(len(labels), ridges) + 1.3))
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.1))
    for scores, color, name in ((original, ORIGINAL, "Original"), (pool, POOL, pool_name)):
        of_class = [scores[label] for label in labels]
        sizes, together = np.array(list(map(len, of_class))), np.concatenate(of_class)
        x, y = density(together, weights=np.repeat(len(together) / len(sizes) / sizes, sizes))
        left.fill_between(x, y, color=color, alpha=0.25, lw=0)
        left.plot(x, y, color=color, lw=1.8, label=name)
    left.set(title="All classes", xlabel="difficulty", ylabel="density", xlim=(0, 1))
    left.set_ylim(bottom=0)
    left.legend()
    _density_ridges(right, [(original, ORIGINAL), (pool, POOL)], labels[:ridges], names)
    return figure


def _density_ridges(
    axes: Axes, sets: Sequence[tuple[Mapping[str, Floats], str]], labels: Sequence[str], names: Mapping[str, str]
) -> None:
    """Draw the densities of each class in a row of its own, the first class at the top, all with the same height."""
    for row, label in enumerate(reversed(labels)):
        for scores, color in sets:
            x, y = density(scores[label])
            top = row + 0.92 * y / y.max()
            axes.fill_between(x, row, top, color=color, alpha=0.3, lw=0, zorder=2 * (len(labels) - row))
            visible = np.flatnonzero(y > 0.005 * y.max())
            span = slice(visible[0], visible[-1] + 1)
            axes.plot(x[span], top[span], color=color, lw=1.2, zorder=2 * (len(labels) - row) + 1)
    axes.set(title="By class, each scaled to its peak", xlabel="difficulty", xlim=(0, 1), ylim=(-0.08, len(labels)))
    axes.set_yticks(range(len(labels)), [names.get(label, label) for label in reversed(labels)])
    axes.tick_params(axis="y", labelcolor=INK)


@styled
def predefined_distributions(
    ipcs: Sequence[int], scale: Mapping[int, Floats] | None = None, intervals: int = 10
) -> Figure:
    """The predefined sampling distributions, a row for each IPC; those to the right have more easy images (Fig. 8).

    If given, ``scale`` is the first column: for each IPC, the distribution scaled from the original images and averaged
    over the classes, shape ``(intervals,)``.
    """
    names = [*(["scale"] if scale else []), *PUBLISHED]
    figure = new_figure(2.1 * len(names), 1.6 * len(ipcs) + 0.4)
    grid = np.asarray(figure.subplots(len(ipcs), len(names), sharey="row", squeeze=False))
    for row, ipc in zip(grid, ipcs, strict=True):
        for axes, name in zip(row, names, strict=True):
            scaled = scale if name == "scale" else None
            counts = scaled[ipc] if scaled else published_distribution(name, ipc, intervals)
            _interval_bars(axes, counts, ORIGINAL if scaled else TARGET)
        row[0].set_ylabel(f"IPC {ipc}", color=INK)
        row[0].set_ylim(0, 1.18 * max(bar.get_height() for axes in row for bar in axes.patches))
    for axes, name in zip(grid[0], names, strict=True):
        axes.set_title(name.capitalize())
    for axes in grid[-1]:
        axes.set_xlabel("difficulty")
    return figure


@styled
def difficulty_by_set(
    original: Sequence[Floats], sets: Mapping[str, tuple[str, Sequence[Floats]]], intervals: int = 10
) -> Figure:
    """Share of images in each difficulty interval: a panel for each set, with the original images as an outline.

    Shares and means are averaged over the classes. ``original`` are the difficulties of the original images, class by
    class; ``sets`` has the method and the difficulties of each set by its name.
    """
    rows, columns = _arrange(len(sets), 4)
    figure = new_figure(max(2.5 * columns + 0.4, 4.2), 1.8 * rows + 0.7)
    grid = _panels(figure, len(sets), rows, columns, sharey=True)
    outline, mean = _over_classes(original, intervals)
    heading(figure, f"Outline: original images, mean {mean:.2f}")
    for axes, (name, (method, scores)) in zip(grid.flat, sets.items(), strict=False):
        shares, mean = _over_classes(scores, intervals)
        centers, width = (np.arange(intervals) + 0.5) / intervals, 0.86 / intervals
        axes.bar(centers, shares, width=width, color=method_color(method))
        axes.stairs(outline, np.linspace(0, 1, intervals + 1), color=INK, lw=1.1)
        _title_with_mean(axes, name, mean)
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.set(xlim=(-0.02, 1.02), xticks=[0, 0.5, 1])
    for axes in grid[:, 0]:
        axes.set_ylabel("images")
    for axes in grid.flat[len(sets) - columns : len(sets)]:  # the lowest panel of each column
        axes.set_xlabel("difficulty")
        axes.tick_params(labelbottom=True)
    return figure


def _over_classes(classes: Sequence[Floats], intervals: int) -> tuple[Floats, float]:
    """Share of images in each difficulty interval, shape ``(intervals,)``, and mean difficulty, of the average class.

    In this way, the shares of a set with as many images of each class compare with those of uneven originals.
    """
    shares = [histogram(scores, intervals) / len(scores) for scores in classes]
    return np.mean(shares, axis=0), float(np.mean([scores.mean() for scores in classes]))


def _arrange(count: int, widest: int) -> tuple[int, int]:
    """Rows and columns for a number of panels: the fewest rows, as full as possible."""
    rows = -(-count // widest)
    return rows, -(-count // rows)


def _panels(figure: Figure, count: int, rows: int, columns: int, sharey: bool = False) -> NDArray[Any]:
    """Axes of the panels; the places after the last panel stay empty."""
    grid = np.asarray(figure.subplots(rows, columns, sharex=True, sharey=sharey, squeeze=False))
    for axes in grid.flat[count:]:
        axes.set_axis_off()
    return grid


class Bar(NamedTuple):
    """Accuracy of one method in percent: its trainings, their mean and spread, and the paper's mean if there is one."""

    method: str
    name: str
    values: Sequence[float]
    score: Score
    paper: float | None = None

    @property
    def ends(self) -> tuple[float, float]:
        """The lowest and the highest of its values, of the ends of its spread, and of the paper's mean."""
        (mean, std), papers = self.score, [] if self.paper is None else [self.paper]
        shown = [*self.values, *papers, mean - (std or 0), mean + (std or 0)]
        return min(shown), max(shown)


def accuracy_range(panels: Mapping[str, Sequence[Bar]]) -> tuple[float, float]:
    """Where the axis of accuracies begins, and the highest accuracy.

    It begins at 0, but below the lowest accuracy if that is more than half of the highest.
    """
    lows, highs = zip(*(bar.ends for bars in panels.values() for bar in bars), strict=True)
    lowest, highest = min(lows), max(highs)
    below = lowest - 0.1 * (highest - lowest)
    return (5 * (below // 5) if lowest > highest / 2 else 0), highest


@styled
def accuracy_bars(panels: Mapping[str, Sequence[Bar]]) -> Figure:
    """Mean accuracy of each method and its standard deviation; circles are trainings, a diamond is the paper's mean.

    Each panel has bars and a title, such as ``ConvNet-6, IPC 10``. All have the axis of :func:`accuracy_range`. Where
    it does not begin at 0, squares stand for the bars, whose lengths would say nothing.
    """
    rows, columns = _arrange(len(panels), 2)
    tallest = max(map(len, panels.values()))
    figure = new_figure(5.2 * columns + (0.8 if columns == 1 else 0), rows * (0.31 * tallest + 0.75))
    grid = _panels(figure, len(panels), rows, columns)
    low, high = accuracy_range(panels)
    for axes, (title, bars) in zip(grid.flat, panels.items(), strict=False):
        _bar_panel(axes, title, bars, from_zero=not low)
        axes.set_ylim(tallest - 0.45, -0.55)
    width = (high - low or 1) / (1 - _LABEL)
    ticks = [tick for tick in MaxNLocator(5, steps=[1, 2, 5, 10]).tick_values(low, high) if low <= tick <= 100]
    grid.flat[0].set(xlim=(low, low + width), xticks=[tick for tick in ticks if tick <= low + width])
    if any(bar.paper is not None for bars in panels.values() for bar in bars):
        heading(figure, "Accuracy of each method; the diamond is the paper's")
    return figure


def _bar_panel(axes: Axes, title: str, bars: Sequence[Bar], from_zero: bool) -> None:
    for y, bar in enumerate(bars):
        mean, std = bar.score
        if from_zero:
            axes.barh(y, mean, height=0.72, color=method_color(bar.method))
        else:
            axes.plot(mean, y, "s", ms=10, color=method_color(bar.method))
        axes.errorbar(mean, y, xerr=std, color=INK, lw=2)
        axes.plot(bar.values, [y] * len(bar.values), "o", ms=3.4, mfc="white", mec=INK, mew=0.7)
        if bar.paper is not None:
            axes.plot(bar.paper, y, "D", ms=4.5, mfc=TARGET, mec="white", mew=0.7)
        end, text = (bar.ends[1], y), str(bar.score)
        axes.annotate(text, end, xytext=(6, 0), textcoords="offset points", va="center", fontsize=8)
    axes.set_yticks(range(len(bars)), [bar.name for bar in bars])
    axes.tick_params(axis="y", labelcolor=INK)
    axes.set(xlabel="top-1 accuracy, %", title=title)
    axes.tick_params(labelbottom=True)
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x")


class Paths(NamedTuple):
    """Trajectories of the images of one set through the denoising steps, projected to a plane."""

    name: str  # of the set
    method: str  # its key
    points: Floats  # predicted images, shape (images, steps, 2), first step first
    centers: Floats | None  # cluster centres that guide the images, shape (images, 2); None without guidance


@styled
def guided_trajectories(originals: Floats, sets: Sequence[Paths]) -> Figure:
    """Trajectories of predicted images through the denoising steps, each from a circle to a dot, a panel for each set.

    ``originals`` are the original images in the same plane, shape ``(N, 2)``.
    """
    figure = new_figure(3.3 * len(sets), 3.4)
    panels = _panels(figure, len(sets), 1, len(sets), sharey=True)
    for axes, (name, method, points, centers) in zip(panels.flat, sets, strict=True):
        color = method_color(method)
        axes.plot(*originals.T, "o", ms=2.5, color=CLOUD, zorder=1)
        for path in points:
            axes.plot(*path.T, color=color, lw=1.1, zorder=2)
        axes.plot(*points[:, 0].T, "o", ms=3.5, mfc="white", mec=color, mew=1, zorder=3)
        axes.plot(*points[:, -1].T, "o", ms=4.5, color=color, mec="white", mew=0.6, zorder=4)
        if centers is not None:
            axes.plot(*centers.T, "x", ms=6, mew=1.6, color=TARGET, zorder=5)
        axes.set(title=name, xticks=[], yticks=[])
        axes.grid(visible=False)
        axes.spines["bottom"].set_visible(False)
    return figure
