import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from scipy.stats import gaussian_kde

from dgs_lightning.reporting.figures import (
    Bar,
    Histogram,
    Paths,
    SamplingStages,
    accuracy_bars,
    accuracy_range,
    density,
    difficulty_by_set,
    difficulty_densities,
    guided_trajectories,
    predefined_distributions,
    sampling_histograms,
)
from dgs_lightning.reporting.pictures import (
    ScoredImage,
    class_samples,
    difficulty_grid,
    one_class,
    original_against_distilled,
)
from dgs_lightning.reporting.published import Score
from dgs_lightning.reporting.study_charts import Point, accuracy_against_distance, over_a_setting
from dgs_lightning.reporting.style import save

EASY = np.array([5, 3, 1, 1, 0, 0, 0, 0, 0, 0])
EVEN = np.ones(10, dtype=np.int64)
POINT = Point("dit", "DiT", 60.0, None, 0.1, None)


def heights(axes: Axes) -> list[float]:
    return [bar.get_height() for bar in axes.patches]  # type: ignore[attr-defined]


def titles(figure: Figure) -> list[str]:
    return [axes.get_title("left") for axes in figure.axes]


def test_fig_7_has_a_row_before_and_one_after_smoothing_for_each_class() -> None:
    before = SamplingStages(
        Histogram(EASY * 10, 0.12), Histogram(EASY * 5, 0.1), Histogram(EASY, 0.13), Histogram(EASY, 0.2)
    )
    after = SamplingStages(
        Histogram(EVEN * 10, 0.5), Histogram(EVEN * 5, 0.4), Histogram(EVEN, 0.5), Histogram(EVEN, 0.6)
    )
    figure = sampling_histograms({"cat": (before, after), "dog": (before, after)})
    axes = [ax for part in figure.subfigs for ax in part.axes]
    assert len(axes) == 16
    assert [heights(ax) for ax in axes[:5]] == [
        *([*map(float, EASY * 10)], [*map(float, EASY * 5)], [*map(float, EASY)], [*map(float, EASY)]),
        [*map(float, EVEN * 10)],
    ]
    assert [ax.get_title("right") for ax in axes[:4]] == ["mean 0.12", "mean 0.10", "mean 0.13", "mean 0.20"]
    assert axes[2].get_ylim() == axes[3].get_ylim()


def test_the_density_is_a_gaussian_kernel_estimate_mirrored_at_the_ends() -> None:
    scores = np.random.default_rng(0).beta(0.8, 3, 400)
    x, y = density(scores, points=2048)
    spread = min(scores.std(), np.subtract(*np.percentile(scores, [75, 25])) / 1.34)
    kernel = gaussian_kde(scores, 0.9 * spread * 400**-0.2 / scores.std(ddof=1))
    np.testing.assert_allclose(y, kernel(x) + kernel(-x) + kernel(2 - x), atol=0.03)
    assert y.mean() == pytest.approx(1)


@pytest.mark.parametrize("scores", [[0.0], [1.0], [0.3, 0.3, 0.3]])
def test_equal_scores_have_a_density_too(scores: list[float]) -> None:
    _, y = density(np.array(scores))
    assert np.isfinite(y).all()
    assert y.mean() == pytest.approx(1)


def test_fig_2_shows_all_classes_that_both_sets_have() -> None:
    rng = np.random.default_rng(0)
    original = {label: rng.uniform(size=20) for label in ("a", "b", "only original")}
    pool = {label: rng.uniform(size=10) for label in ("a", "b")}
    figure = difficulty_densities(original, pool, "DiT pool", {"a": "cat"})
    assert [text.get_text() for text in figure.axes[1].get_yticklabels()] == ["b", "cat"]
    legend: Any = figure.axes[0].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["Original", "DiT pool"]
    first = difficulty_densities(original, pool, "DiT pool", {}, ridges=1).axes
    assert [text.get_text() for text in first[1].get_yticklabels()] == ["a"]
    np.testing.assert_array_equal(first[0].lines[0].get_ydata(), figure.axes[0].lines[0].get_ydata())


def test_a_classs_density_is_one_line_without_gaps() -> None:
    scores = {"a": np.array([0.01] * 40 + [0.9])}
    ridges = difficulty_densities(scores, scores, "DiT pool", {}).axes[1]
    for line in ridges.lines:
        x, y = (np.asarray(values, dtype=np.float64) for values in line.get_data())
        np.testing.assert_allclose(np.diff(x), 1 / 512)
        assert np.isfinite(y).all()
        assert x[-1] > 0.9


def test_fig_8_shows_the_published_distributions_beside_ones_own() -> None:
    figure = predefined_distributions([10, 50], {10: np.full(10, 1.0), 50: np.full(10, 5.0)})
    assert titles(figure)[:5] == ["Scale", "Hill", "Ground", "Slope", "Cliff"]
    assert heights(figure.axes[4]) == [6, 3, 0, 1, 0, 0, 0, 0, 0, 0]
    assert heights(figure.axes[5]) == [5] * 10
    assert len({axes.get_ylim() for axes in figure.axes[:5]}) == 1


def test_each_sets_shares_are_drawn_on_the_originals_outline() -> None:
    figure = difficulty_by_set([np.array([0.05, 0.95])], {"DiT": ("dit", [np.array([0.05, 0.06, 0.07, 0.55])])})
    bars = [patch for patch in figure.axes[0].patches if hasattr(patch, "get_height")]
    assert [bar.get_height() for bar in bars] == [0.75, 0, 0, 0, 0, 0.25, 0, 0, 0, 0]
    outline: Any = next(patch for patch in figure.axes[0].patches if patch not in bars)
    assert list(outline.get_data().values) == [0.5, 0, 0, 0, 0, 0, 0, 0, 0, 0.5]


def test_every_class_of_uneven_originals_weighs_the_same_in_outline_curve_and_mean() -> None:
    easy, hard = np.full(98, 0.05), np.full(2, 0.95)  # one class is small, and hard on average
    figure = difficulty_by_set([easy, hard], {"Random": ("random", [easy[:2], hard])})
    bars = [patch for patch in figure.axes[0].patches if hasattr(patch, "get_height")]
    outline: Any = next(patch for patch in figure.axes[0].patches if patch not in bars)
    assert list(outline.get_data().values) == [bar.get_height() for bar in bars] == [0.5, *[0] * 8, 0.5]
    assert figure.get_suptitle() == "Outline: original images, mean 0.50"
    originals, pool = {"cat": easy, "owl": hard}, {"cat": easy[:5], "owl": np.full(5, 0.95)}
    for line in difficulty_densities(originals, pool, "Pool", {}).axes[0].lines:
        x, y = (np.asarray(values) for values in line.get_data())
        assert y[x < 0.5].mean() == pytest.approx(y[x > 0.5].mean(), rel=0.01)


def test_difficulty_figures_have_as_many_intervals_as_the_selection() -> None:
    (fifths,) = difficulty_by_set([np.array([0.5])], {"DiT": ("dit", [np.array([0.1, 0.39, 0.4, 1.0])])}, 5).axes
    bars = [patch for patch in fifths.patches if hasattr(patch, "get_height")]
    assert [bar.get_height() for bar in bars] == [0.25, 0.25, 0.25, 0, 0.25]
    assert heights(predefined_distributions([50], intervals=5).axes[2]) == [20, 12, 10, 6, 2]  # the slope


def test_accuracy_bars_tell_mean_deviation_and_the_papers_value() -> None:
    bars = [Bar("dit", "DiT", [60.0, 62.0], Score(61.0, 1.41), 59.0), Bar("dag", "DAG", [70.0], Score(70.0, None))]
    figure = accuracy_bars({"ConvNet-6, IPC 10": bars, "ResNet-18, IPC 10": bars[:1]})
    left = figure.axes[0]
    assert [text.get_text() for text in left.texts] == ["61.0 ± 1.4", "70.0"]
    assert [text.get_text() for text in left.get_yticklabels()] == ["DiT", "DAG"]
    diamonds = [line for line in left.lines if line.get_marker() == "D"]
    assert [list(np.atleast_1d(line.get_xdata())) for line in diamonds] == [[59.0]]
    assert figure.axes[0].get_ylim() == figure.axes[1].get_ylim()  # bars of one height in all panels


@pytest.mark.parametrize(
    ("values", "begins", "ends_before"),
    [([93.0, 99.0], 90, 103), ([5.0, 95.0], 0, 123), ([34.0, 40.0], 30, 44), ([8.0, 12.0], 5, 15), ([1.0, 9.0], 0, 12)],
)
def test_the_axis_of_accuracies_has_the_values_and_no_empty_space(
    values: list[float], begins: float, ends_before: float
) -> None:
    bars = [Bar("dit", "DiT", [value], Score(value, None)) for value in values]
    panels = {"ConvNet-6, IPC 10": bars[:1], "ConvNet-6, IPC 50": bars[1:]}
    for axes in accuracy_bars(panels).axes:
        low, high = axes.get_xlim()
        assert low == accuracy_range(panels)[0] == begins
        assert [bool(axes.patches), any(line.get_marker() == "s" for line in axes.lines)] == [not begins, bool(begins)]
        assert max(values) < high < ends_before
        assert begins <= min(axes.get_xticks())
        assert max(axes.get_xticks()) <= min(high, 100)


def test_the_axis_of_accuracies_ends_behind_spread_and_paper_too() -> None:
    bars = [Bar("dit", "DiT", [10.0], Score(10.0, None)), Bar("dag", "DAG", [30.0, 50.0], Score(40.0, 14.1), 60.0)]
    assert accuracy_range({"": bars}) == (0, 60.0)
    assert accuracy_range({"": bars[1:]}) == (0, 60.0)  # 25.9, the end of the spread, is less than half
    assert accuracy_range({"": [bars[1]._replace(score=Score(45.0, 3.0), values=[45.0])]}) == (40, 60.0)


def test_a_trajectory_ends_where_its_image_is_and_centres_are_crosses() -> None:
    rng = np.random.default_rng(0)
    points, centers = rng.normal(size=(3, 5, 2)), rng.normal(size=(3, 2))
    sets = [Paths("DiT", "dit", points, None), Paths("MGD3", "mgd3", points, centers)]
    free, guided = guided_trajectories(rng.normal(size=(9, 2)), sets).axes

    def marks(axes: Axes, marker: str) -> list[NDArray[Any]]:
        return [np.asarray(line.get_xydata()) for line in axes.lines if line.get_marker() == marker]

    np.testing.assert_array_equal(marks(free, "o")[-1], points[:, -1])
    assert not marks(free, "x")
    np.testing.assert_array_equal(marks(guided, "x")[0], centers)


def test_names_that_look_like_mathematics_are_drawn_as_text(tmp_path: Path) -> None:
    name, scores = "$x_{$", np.array([0.1, 0.5])
    stages = SamplingStages(*[Histogram(EASY, 0.1)] * 4)
    image = ScoredImage(Image.new("L", (8, 8)), 0.5)
    for figure in (
        accuracy_bars({name: [Bar("dit", name, [60.0], Score(60.0, None))]}),
        difficulty_by_set([scores], {name: ("dit", [scores])}),
        difficulty_densities({"a": scores}, {"a": scores}, name, {"a": name}),
        guided_trajectories(np.zeros((2, 2)), [Paths(name, "dit", np.zeros((1, 2, 2)), None)]),
        sampling_histograms({name: (stages, stages)}),
        class_samples({name: [image.image]}, name),
        difficulty_grid([image], name),
        original_against_distilled({name: ([image], [image])}),
        one_class({name: [image]}, name),
        accuracy_against_distance({name: [POINT._replace(name=name)]}),
        over_a_setting({name: {name: [POINT], "DAG": [POINT]}}, name),
    ):
        save(figure, tmp_path / "figure")  # matplotlib raises an error for mathematics that it cannot read


@pytest.mark.parametrize("name", ["$x_{$", "$\\frac{1}{", "\x1b[31m", "a\nb", "<b>&", "%d {x}"])
def test_names_of_classes_and_methods_are_drawn_as_they_are(name: str, tmp_path: Path) -> None:
    stage = SamplingStages(*[Histogram(EASY, 0.1)] * 4)
    scores, image = np.linspace(0, 1, 5), Image.new("RGB", (4, 4))
    pictures = [ScoredImage(image, 0.5)] * 2
    points = np.zeros((1, 2, 2))
    made = [
        sampling_histograms({name: (stage, stage)}),
        difficulty_densities({name: scores}, {name: scores}, name, {name: name}),
        difficulty_by_set([scores], {name: (name, [scores])}),
        accuracy_bars({name: [Bar(name, name, [1.0], Score(1.0, None), 2.0)]}),
        guided_trajectories(np.zeros((3, 2)), [Paths(name, name, points, None)]),
        class_samples({name: [image]}, name),
        difficulty_grid(pictures, name),
        original_against_distilled({name: (pictures, pictures)}),
        one_class({name: pictures}, name),
        accuracy_against_distance({name: [POINT._replace(name=name, method=name)]}),
        over_a_setting({name: {name: [POINT], "DAG": [POINT]}}, name),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of characters that the font lacks, and of names that leave no room
        for number, figure in enumerate(made):
            assert all(path.stat().st_size for path in save(figure, tmp_path / str(number)))
