"""Figures of a run that compare its rows: accuracy against distance, and what a setting changes."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from dgs_lightning.configs import expand
from dgs_lightning.errors import InputError
from dgs_lightning.reporting.folder import RunFolder
from dgs_lightning.reporting.names import show, trained_row
from dgs_lightning.reporting.study_charts import Point, accuracy_against_distance, over_a_setting

LEAST = 3  # points of a panel or of a line
DEFAULTS = {"scale": 0.1, "stop_timestep": 25}  # of guidance towards centres
WORDS = {
    "pool_multiple": "images of the pool for each image of the set",
    "guidance_scale": "classifier-free guidance scale of the pool",
    "scale": "scale of the guidance",
    "stop_timestep": "stop timestep",
}
Place = tuple[str, ...]  # keys that lead to a setting


class ReportFigure(NamedTuple):
    """A figure of a report: name of its files without an ending, sentences that explain it, and what draws it."""

    slug: str
    caption: str
    draw: Callable[[], Figure]


def study_figures(run: RunFolder, rows: Sequence[Mapping[str, Any]]) -> Iterator[ReportFigure]:
    """The figures that compare the rows of a run's ``summary.json``, where it has enough of them."""
    by_panel: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        if row["ipc"] is not None and row["trainings"] and row["method"] == trained_row(row["method"], run.variants):
            by_panel[f"{show('network', row['network'])}, IPC {row['ipc']}"].append(row)
    points = {
        title: [_point(run, row) for row in of if row["distribution_distance"] is not None]
        for title, of in by_panel.items()
    }
    panels = {title: of for title, of in points.items() if len(of) >= LEAST}
    if panels:
        caption = (
            "A point shows the accuracy at the end of the training, averaged over the draws, against the Wasserstein-1 "
            "distance between the difficulties of the set and of the original images. The line is the 95 % interval "
            "of the mean. The full data set is not shown."
        )
        yield ReportFigure("accuracy-distance", caption, partial(accuracy_against_distance, panels))
    for place in dict.fromkeys(filter(None, (_studied(run.variants[row])[0] for row in run.variants))):
        lines = {title: _lines(run, of, place) for title, of in by_panel.items()}
        filled = {title: of for title, of in lines.items() if of}
        if filled:
            words = WORDS.get(place[-1], place[-1])
            caption = (
                f"Accuracy at the end of the training, with the 95 % interval of the mean over the draws, distance "
                f"from the difficulties of the originals, and mean difficulty, over one setting: {words}."
            )
            yield ReportFigure(f"study-{_slug(place)}", caption, partial(over_a_setting, filled, words))


def _point(run: RunFolder, row: Mapping[str, Any], setting: float = 0.0) -> Point:
    low_high = row["accuracy_last_interval"]
    return Point(
        method=run.method(row["method"]),
        name=run.show(row["method"]),
        accuracy=100 * row["accuracy_last_mean"],
        interval=None if low_high is None else (100 * low_high[0], 100 * low_high[1]),
        distance=row["distribution_distance"],
        difficulty=row["mean_difficulty"],
        setting=setting,
    )


def _lines(run: RunFolder, rows: Sequence[Mapping[str, Any]], place: Place) -> dict[str, list[Point]]:
    """The rows that differ in one setting, by the name of their method; methods with too few rows are left out."""
    found: dict[str, list[Point]] = defaultdict(list)
    for row in rows:
        own, value = (
            _studied(run.variants[row["method"]]) if row["method"] in run.variants else (place, _usual(run, place))
        )
        if own == place and value is not None:
            found[run.method(row["method"])].append(_point(run, row, value))
    return {show("method", method): points for method, points in found.items() if len(points) >= LEAST}


def _studied(variant: Mapping[str, Any]) -> tuple[Place, float | None]:
    """The keys of the one number that a variant changes, and its value; nothing if it changes something else."""
    changes = dict(_numbers({key: value for key, value in variant.items() if key != "method"}))
    place, value = next(iter(changes.items()), ((), None))
    return (place, value) if len(changes) == 1 and value is not None else ((), None)


def _numbers(settings: Any, place: Place = ()) -> Iterator[tuple[Place, float | None]]:  # noqa: ANN401
    """The keys of each setting, and its value; None if it is no number."""
    if isinstance(settings, Mapping):
        for key, value in settings.items():
            yield from _numbers(value, (*place, str(key)))
    else:
        is_number = isinstance(settings, int | float) and not isinstance(settings, bool)
        yield place, float(settings) if is_number else None


def _usual(run: RunFolder, place: Place) -> float | None:
    """The value of a setting in the rows that do not change it; None if it is not known."""
    with suppress(InputError):  # a config that is not there any more
        generate = expand(run.settings.get("generate") or {})
        known = dict(_numbers(generate, place[:2])) if place[0] == "options" else {}
        known |= dict(_numbers(run.settings))
        return known.get(place, DEFAULTS.get(place[-1]))
    return None


def _slug(place: Place) -> str:
    return "-".join(key for key in place if key not in ("options", "model", "init_args"))
