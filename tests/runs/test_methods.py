"""The registry of methods, and a made-up method that goes through a whole run."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from matplotlib.colors import to_hex

from dgs_lightning.data.records import read_manifest
from dgs_lightning.errors import InputError
from dgs_lightning.experiment.run import ExperimentRun
from dgs_lightning.experiment.settings import load_experiment
from dgs_lightning.reporting.album import figures_of
from dgs_lightning.reporting.folder import read_run
from dgs_lightning.runs.methods import METHODS, MadeBy, Method, Use, markdown_table, register

TINY = ("ipc=2", "jobs=1", "folds=2", "draws=1", "repeats=1", "judge=null", "methods=[random, gentle]")


@pytest.fixture
def gentle() -> Iterator[Method]:
    """A made-up method: difficulty-guided sampling from the easiest images, which a stage of its own collects."""
    easiest = MadeBy(
        "easiest/{set}",
        "select",
        settings={"pool": Use("train"), "pool_scores": Use("original_scores"), "method": "easy", "ipc": 6},
    )
    register(Method("gentle", "Gentle", "#c0ffee", "dgs", "made up", stages=(easiest,), compared_with="random"))
    yield METHODS["gentle"]
    del METHODS["gentle"]


@pytest.mark.slow
def test_a_new_row_of_the_registry_runs_to_tables_figures_and_documentation(gentle: Method, tmp_path: Path) -> None:
    quick = ("cross_fit", "evaluate")
    lengths = [f"{part}.trainer.callbacks=[{{class_path: PublishedLength, init_args: {{steps: 4}}}}]" for part in quick]
    run = ExperimentRun(load_experiment("quickstart", [*TINY, *lengths], str(tmp_path / "run")))
    run.execute()
    rows = {row["method"]: row for row in json.loads((run.output / "summary.json").read_text())["rows"]}
    assert rows["gentle"]["accuracy_last_mean"] > 0
    assert rows["gentle"]["mean_difficulty"] < rows["random"]["mean_difficulty"]
    chosen = [record.difficulty or 0 for record in read_manifest(run.output / "distilled" / "gentle-ipc2")]
    assert rows["gentle"]["mean_difficulty"] == pytest.approx(
        sum(chosen) / len(chosen)
    )  # not of all that its stage made
    assert "| Gentle | 2 |" in (run.output / "summary.md").read_text()
    assert "| Gentle | Random | 2 |" in (run.output / "summary.md").read_text()
    [accuracy] = [figure for figure in figures_of(read_run(run.output)) if figure.slug == "accuracy"]
    shown = accuracy.draw().axes
    colours = {to_hex(patch.get_facecolor()) for axes in shown for patch in axes.patches}
    colours |= {to_hex(line.get_color()) for axes in shown for line in axes.lines}  # squares in place of bars
    assert gentle.colour in colours
    assert "| Gentle | `gentle` | `easiest/{set}` | `dgs` | made up |" in markdown_table()


def test_a_method_uses_the_images_of_another_row() -> None:
    assert METHODS["dit_dgs"].images == METHODS["dit"].images == "pools/dit"
    assert METHODS["dit_dgs"].family == METHODS["dit"].family == "dit"
    assert METHODS["random"].family == METHODS["dgs_ori"].family == "originals"


@pytest.mark.parametrize("base", ["dit", "minimax", "pool"])
def test_transport_competes_with_difficulty_guided_sampling_on_the_same_images(base: str) -> None:
    ours, paper = METHODS[f"{base}_transport"], METHODS[f"{base}_dgs"]
    assert (ours.rule, ours.compared_with) == ("transport", base)
    assert (ours.images, ours.family) == (paper.images, paper.family)
    assert "not in the paper" in ours.source
    assert METHODS["ori_transport"].family == METHODS["dgs_ori"].family


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (Method("random", "Random", "#000000"), "another method has"),
        (Method("a/b", "A", "#000000"), "letters, digits"),
        (Method("twin", "Twin", "#000000", compared_with="nobody"), "unknown method nobody"),
    ],
)
def test_a_row_that_cannot_be_registered_is_refused(row: Method, message: str) -> None:
    with pytest.raises(InputError, match=message):
        register(row)


def test_a_stage_uses_only_what_the_plan_has() -> None:
    with pytest.raises(ValueError, match="original_scores"):
        Use("moon")
