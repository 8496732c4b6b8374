"""Figures that compare the rows of a run, from settings and rows that are written by hand."""

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes

from dgs_lightning.callbacks.guidance import CenterGuidance
from dgs_lightning.reporting.folder import RunFolder
from dgs_lightning.reporting.studies import DEFAULTS, ReportFigure, study_figures
from dgs_lightning.reporting.study_charts import Point, over_a_setting, spaced

SCALES = {f"dag_{scale}": {"method": "dag", "dag": {"scale": scale}} for scale in (1, 10)}


def row(method: str, accuracy: float, distance: float | None = 0.1, ipc: int | None = 10) -> dict[str, Any]:
    return {
        **{"method": method, "ipc": ipc, "network": "convnet3", "trainings": 3},
        **{"accuracy_last_mean": accuracy, "accuracy_last_interval": (accuracy - 0.02, accuracy + 0.02)},
        **{"distribution_distance": distance, "mean_difficulty": 0.3},
    }


def drawn(settings: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, ReportFigure]:
    return {figure.slug: figure for figure in study_figures(RunFolder(Path("runs/tiny"), settings), rows)}


def points(axes: Axes) -> list[tuple[float, float]]:
    """Middles of the circles in a panel, without those beside the names."""
    marked = [line for line in axes.lines if line.get_marker() == "o" and line.get_transform() == axes.transData]
    return [(float(x), round(float(y), 6)) for line in marked for x, y in np.asarray(line.get_xydata())]


def test_each_row_with_a_distance_is_a_named_point_with_its_interval_and_the_full_set_is_none() -> None:
    rows = [row("random", 0.8, 0.2), row("dit", 0.6), row("dag", 0.7, 0.3)]
    rows += [row("mgd3", 0.7, distance=None), row("full", 0.9, 0, ipc=None)]
    (axes,) = drawn({}, rows)["accuracy-distance"].draw().axes
    assert axes.get_title("left") == "ConvNet-3, IPC 10"
    assert points(axes) == [(0.2, 80), (0.1, 60), (0.3, 70)]
    assert [text.get_text() for text in axes.texts] == ["DiT", "DAG", "Random"]  # the lowest first
    lines = [np.asarray(line.get_ydata(), dtype=np.float64) for line in axes.lines]
    intervals = [line for line in lines if len(line) == 2]
    np.testing.assert_allclose(intervals, [[78, 82], [58, 62], [68, 72]])


def test_rows_on_a_subset_of_the_validation_images_and_too_few_rows_have_no_figure() -> None:
    assert drawn({}, [row("random", 0.8), row("dit", 0.6), row("dit-val_easy", 0.7)]) == {}


@pytest.mark.parametrize(
    ("places", "moved"), [([0.1, 0.5], [0.1, 0.5]), ([0.5, 0.5], [0.4, 0.6]), ([0.95, 1.0], [0.8, 1.0])]
)
def test_names_move_only_as_far_as_others_need(places: list[float], moved: list[float]) -> None:
    np.testing.assert_allclose(spaced(places, 0.2), moved)


def test_names_stay_in_order_at_their_distance_and_inside() -> None:
    places = sorted(np.random.default_rng(0).beta(5, 1, 20).tolist())
    moved = np.array(spaced(places, 0.05))
    assert np.diff(moved).min() == pytest.approx(0.05)
    assert 0 <= moved[0] <= moved[-1] <= 1


def test_variants_that_differ_in_one_number_are_a_line_with_the_unchanged_row() -> None:
    below = {"method": "dag", "dag": {"stop_timestep": 30, "guided": "below"}}
    settings = {"variants": {**SCALES, "below": below, "hill": {"method": "dag", "select": {"distribution": "hill"}}}}
    rows = [row("dag", 0.5), *(row(name, 0.6, 0.2) for name in SCALES), row("below", 0.1), row("hill", 0.2)]
    found = drawn(settings, rows)
    assert list(found) == ["accuracy-distance", "study-dag-scale"]
    accuracy, distance, difficulty = found["study-dag-scale"].draw().subfigs[0].axes
    assert points(accuracy) == [(0.1, 50), (1, 60), (10, 60)]
    assert points(distance) == [(0.1, 0.1), (1, 0.2), (10, 0.2)]
    assert points(difficulty) == [(0.1, 0.3), (1, 0.3), (10, 0.3)]
    assert accuracy.get_xscale() == "log"
    rows[0] = row("dit", 0.5)
    assert list(drawn(settings, rows)) == ["accuracy-distance"]  # two values are no line


def test_the_setting_of_an_unchanged_row_is_that_of_the_experiment_or_of_its_config() -> None:
    scales = {
        f"guidance_{scale}": {
            "method": "dit_dgs",
            "options": {"dit": {"model": {"init_args": {"guidance_scale": scale}}}},
        }
        for scale in (1, 4)
    }
    pools = {f"pool{n}": {"method": "dit_dgs", "pool_multiple": n} for n in (2, 3)}
    settings = {"variants": {**scales, **pools}, "pool_multiple": 5, "generate": {"config": "generate/digits.yaml"}}
    found = drawn(settings, [row(name, 0.6) for name in ("dit_dgs", *scales, *pools)])
    assert {slug for slug in found if slug.startswith("study")} == {"study-dit-guidance_scale", "study-pool_multiple"}
    assert points(found["study-dit-guidance_scale"].draw().subfigs[0].axes[0]) == [(1, 60), (2, 60), (4, 60)]
    assert points(found["study-pool_multiple"].draw().subfigs[0].axes[0]) == [(2, 60), (3, 60), (5, 60)]
    settings["generate"] = {"config": "a/config/that/is/gone.yaml"}
    assert "study-dit-guidance_scale" not in drawn(settings, [row(name, 0.6) for name in ("dit_dgs", *scales)])


def test_the_known_defaults_of_guidance_are_those_of_its_callback() -> None:
    parameters = inspect.signature(CenterGuidance).parameters
    assert {name: parameters[name].default for name in DEFAULTS} == DEFAULTS


def test_two_methods_over_one_setting_have_their_names_beside() -> None:
    lines = {
        name: [Point(key, name, 50.0, None, None, None, value) for value in (2, 3)]
        for key, name in (("dit", "DiT"), ("dag", "DAG"))
    }
    (part,) = over_a_setting({"IPC 10": lines}, "scale").subfigs
    assert [text.get_text() for text in part.legends[0].get_texts()] == ["DiT", "DAG"]
