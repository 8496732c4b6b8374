"""DD-Ranking's scores: the formulas, and their values from the trainings of a small run."""

import csv
import io
import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from dgs_lightning.commands.report import report
from dgs_lightning.errors import InputError
from dgs_lightning.reporting.ddranking import (
    augmentation_robust_score,
    hard_label_recovery,
    improvement_over_random,
    label_robust_score,
    normalised,
)
from dgs_lightning.reporting.folder import read_run
from dgs_lightning.reporting.overview import overview, overview_markdown, scores_grid
from dgs_lightning.reporting.summary import summarize, summary_rows
from dgs_lightning.reporting.terminal import print_summary, to_terminal

Rows = Mapping[str, Mapping[str, Any]]
SEED, NET = 5, "convnet3"  # of the small run
BOTH = {"scores": ["lrs", "ars"], "draws": 1, "repeats": 2}
# Accuracies of two trainings, with the labels of the images (the row's own protocol), and without data augmentation.
HARD = {"random": (0.52, 0.50), "dit": (0.60, 0.62), "full": (0.86, 0.90)}
PLAIN = {"random": (0.40, 0.44), "dit": (0.50, 0.46)}


def test_the_scores_are_those_worked_out_by_hand() -> None:
    recovery, improvement = hard_label_recovery(0.86, 0.36), improvement_over_random(0.60, 0.52)
    assert [recovery, improvement] == pytest.approx([0.50, 0.08])
    assert label_robust_score(improvement, recovery) == pytest.approx(0.18835277, abs=5e-9)  # alpha -0.21
    # beta = 0.25 * 0.08 + 0.75 * -0.04 = -0.01: (0.99004983 - 0.36787944) / (2.71828183 - 0.36787944)
    assert augmentation_robust_score(0.08, -0.04, 0.25) == pytest.approx(0.26470803, abs=5e-9)


@pytest.mark.parametrize(
    ("weight", "lrs_of_package", "ars_of_package"),
    [
        (0.5, 0.18835277193095107, 0.2775362645917417),
        (0.25, 0.1418029541834137, 0.2647080329490812),
        (0.3, 0.1505809167717485, 0.26724298425233406),
    ],
)
def test_the_scores_are_those_of_the_package_of_the_authors(
    weight: float, lrs_of_package: float, ars_of_package: float
) -> None:
    """What ``ddranking`` 0.2.0 gave for HLR 0.50, and IOR 0.08 with data augmentation and -0.04 without."""
    assert label_robust_score(0.08, 0.50, weight) == pytest.approx(lrs_of_package, abs=1e-14)
    assert augmentation_robust_score(0.08, -0.04, weight) == pytest.approx(ars_of_package, abs=1e-14)


def test_scores_lie_between_0_and_1_and_no_gain_has_the_score_of_a_random_set() -> None:
    assert (normalised(-1), normalised(1)) == (0, 1)
    assert normalised(0) == pytest.approx(1 / (1 + math.e))
    assert label_robust_score(1, -1, 0.3) == pytest.approx(1)
    assert label_robust_score(0.4, 0.9, 1) == normalised(0.4)  # all weight on the improvement
    assert label_robust_score(0.4, 0.9, 0) == normalised(-0.9)


def write(folder: Path, accuracies: Mapping[str, tuple[float, float]], protocol: str = "", draw: int = 0) -> None:
    for row, values in accuracies.items():
        name = "full" if row == "full" else f"{row}-ipc4" + (f"-draw{draw}" if draw else "")
        for repeat, value in enumerate(values):
            seed = SEED + 1000 * draw + repeat
            path = folder / "evaluation" / name / protocol / NET / f"seed{seed}" / "result.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"accuracy_last": value, "accuracy_best": 0.99}))


def change(folder: Path, **settings: object) -> None:
    path = folder / "experiment.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **settings}))


@pytest.fixture
def scored(run_folder: Path) -> Path:
    """A run with the accuracies above, whose rows are Random, DiT and the full set."""
    for part in ("data", "pools", "scores", "evaluation"):
        shutil.rmtree(run_folder / part)
    for row in ("dit_dgs", "flat"):
        shutil.rmtree(run_folder / "distilled" / f"{row}-ipc4")
    write(run_folder, HARD)
    write(run_folder, PLAIN, "hard-unaugmented")
    change(run_folder, **BOTH)
    return run_folder


def rows(folder: Path) -> Rows:
    return {row["method"]: row for row in summary_rows(read_run(folder))}


def text(folder: Path) -> str:
    run = read_run(folder)
    return overview_markdown(overview(run, summarize(run)))


def lrs(gain: float) -> float:
    return (math.exp(gain) - 0.36787944117) / 2.35040238729


def test_the_scores_of_a_tiny_set_are_those_worked_out_by_hand(scored: Path) -> None:
    dit = rows(scored)["dit"]
    # HLR 0.26 and 0.28, IOR 0.08 and 0.12; without augmentation 0.10 and 0.02
    assert (dit["full_mean"], dit["hlr_mean"], dit["ior_mean"]) == tuple(pytest.approx(x) for x in (0.88, 0.27, 0.10))
    assert dit["hlr_std"] == pytest.approx(0.02 / math.sqrt(2))
    assert dit["ior_unaugmented_mean"] == pytest.approx(0.06)
    scores = lrs((0.08 - 0.26) / 2), lrs((0.12 - 0.28) / 2)
    assert dit["lrs_mean"] == pytest.approx(sum(scores) / 2)
    assert dit["lrs_mean"] == pytest.approx(0.2342766, abs=5e-8)
    assert dit["lrs_std"] == pytest.approx(abs(scores[0] - scores[1]) / math.sqrt(2))
    low, high = dit["lrs_interval"]
    assert (low + high) / 2 == pytest.approx(dit["lrs_mean"])
    assert dit["ars_mean"] == pytest.approx((lrs(0.09) + lrs(0.07)) / 2)
    assert dit["scores_missing"] == {}


def test_random_has_the_score_of_no_gain_and_the_full_set_has_none(scored: Path) -> None:
    found = rows(scored)
    assert (found["random"]["ior_mean"], found["random"]["ars_mean"]) == (0, pytest.approx(1 / (1 + math.e)))
    assert found["random"]["lrs_mean"] == pytest.approx((lrs(-0.34 / 2) + lrs(-0.40 / 2)) / 2)
    assert {found["full"][f"{name}_mean"] for name in ("full", "hlr", "ior", "lrs", "ars")} == {None}
    assert found["full"]["scores_missing"] == {}


def test_the_weights_are_settings_of_the_experiment_or_of_the_report(scored: Path) -> None:
    change(scored, lrs_weight=1, ars_weight=0.0)
    dit = rows(scored)["dit"]
    assert dit["lrs_mean"] == pytest.approx((lrs(0.08) + lrs(0.12)) / 2)
    assert dit["ars_mean"] == pytest.approx((lrs(0.10) + lrs(0.02)) / 2)
    report([str(scored)], scores=["lrs"], lrs_weight=0.0)
    summary = json.loads((scored / "summary.json").read_text())["rows"]
    [written] = [row for row in summary if row["method"] == "dit"]
    assert written["lrs_mean"] == pytest.approx((lrs(-0.26) + lrs(-0.28)) / 2)
    assert "ars_mean" not in written


def test_trainings_that_only_scores_compare_are_no_rows(scored: Path) -> None:
    change(scored, methods=["dit"])
    assert list(rows(scored)) == ["dit"]
    assert rows(scored)["dit"]["lrs_mean"] == pytest.approx(0.2342766, abs=5e-8)
    change(scored, scores=[])
    assert not {"lrs_mean", "scores_missing"} & rows(scored)["dit"].keys()
    assert "DD-Ranking" not in text(scored)


def test_with_soft_labels_hard_label_recovery_stays_and_the_gain_is_that_of_soft_labels(scored: Path) -> None:
    write(scored, {"random": (0.7, 0.8), "dit": (0.9, 0.9)}, "soft")
    change(scored, protocols=["soft"], scores=["lrs"])
    dit = rows(scored)["dit"]
    assert (dit["network"], dit["hlr_mean"]) == (f"soft/{NET}", pytest.approx(0.27))
    assert dit["ior_mean"] == pytest.approx(0.15)


def test_scores_are_paired_by_draw(scored: Path) -> None:
    change(scored, draws=2, repeats=2)
    write(scored, {"random": (0.6, 0.6), "dit": (0.9, 0.9), "full": (0.9, 0.9)}, draw=1)
    shutil.copytree(scored / "distilled" / "dit-ipc4", scored / "distilled" / "dit-ipc4-draw1")
    dit = rows(scored)["dit"]
    assert dit["ior_mean"] == pytest.approx((0.10 + 0.30) / 2)
    assert dit["ior_std"] == pytest.approx(0.20 / math.sqrt(2))  # of the draws' means, 0.10 and 0.30
    assert "over the draws" in text(scored)


@pytest.mark.parametrize(
    ("lost", "empty", "kept", "reason"),
    [
        ("full/convnet3/seed6", ("full", "hlr", "lrs"), ("ior", "ars"), "Full dataset with ConvNet-3: 1 of 2"),
        ("random-ipc4/convnet3", ("ior", "lrs", "ars"), ("hlr",), "Random, IPC 4 with ConvNet-3: 2 of 2"),
        (
            "dit-ipc4/hard-unaugmented",
            ("ior_unaugmented", "ars"),
            ("hlr", "ior", "lrs"),
            "DiT, IPC 4 with ConvNet-3, no data augmentation: 2 of 2",
        ),
    ],
)
def test_a_missing_training_leaves_cells_empty_and_is_named(
    scored: Path, lost: str, empty: tuple[str, ...], kept: tuple[str, ...], reason: str
) -> None:
    shutil.rmtree(scored / "evaluation" / lost)
    dit = rows(scored)["dit"]
    assert [dit[f"{name}_{kind}"] for name in empty for kind in ("mean", "std", "interval")] == [None] * 3 * len(empty)
    assert all(dit[f"{name}_mean"] is not None for name in kept)
    named = {score: [f"{reason} trainings"] for score in ("lrs", "ars") if score in empty}
    assert dit["scores_missing"] == named
    for score in named:
        assert f"No {score.upper()} of " in text(scored)
        assert f"Missing: {reason} trainings." in text(scored)


def test_a_set_on_which_nothing_is_trained_yet_has_no_scores(scored: Path) -> None:
    shutil.rmtree(scored / "evaluation" / "dit-ipc4")
    dit = rows(scored)["dit"]
    assert (dit["lrs_mean"], dit["ars_mean"]) == (None, None)
    assert "No LRS of DiT, IPC 4. Missing: all trainings on its sets." in text(scored)


def test_scores_stand_in_the_summary_the_page_the_tables_and_the_terminal(
    scored: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = report([str(scored)]).read_text()
    line = "| DiT | 4 | ConvNet-3 | 88.0 ± 2.8 | 27.0 ± 1.4 | 10.0 ± 2.8 | 6.0 ± 5.7 | 0.234 ± 0.003 |"
    table = (scored / "tables" / "scores-three-digits.md").read_text()
    for shown in ((scored / "summary.md").read_text(), table):
        assert line in shown
        assert "LRS is 0.5 IOR - 0.5 HLR" in shown
    assert '<td class="number">0.234 ± 0.003</td>' in page
    lines = csv.DictReader(io.StringIO((scored / "tables" / "scores-three-digits.csv").read_text()))
    numbers = {line["number"]: line for line in lines if line["method"] == "dit"}
    assert list(numbers) == ["full", "hlr", "ior", "lrs", "ior_unaugmented", "ars"]
    assert float(numbers["lrs"]["mean"]) == pytest.approx(0.2342766, abs=5e-8)
    assert float(numbers["lrs"]["low"]) < float(numbers["lrs"]["mean"]) < float(numbers["lrs"]["high"])
    latex = (scored / "tables" / "scores-three-digits.tex").read_text()
    assert r"\label{tab:scores-three-digits}" in latex
    assert r"0.234 $\pm$ 0.003" in latex
    print_summary(scored)
    assert "0.234 ± 0.003" in capsys.readouterr().out


def test_the_scores_fit_a_terminal_of_80_columns(scored: Path) -> None:
    run, out = read_run(scored), io.StringIO()
    Console(file=out, width=80).print(to_terminal(scores_grid(summarize(run), run)))
    assert max(map(len, out.getvalue().splitlines())) <= 80
    assert "…" not in out.getvalue()


@pytest.mark.parametrize("asked", ["settings", "argument"])
def test_scores_of_a_run_that_trains_no_network_are_refused(scored: Path, asked: str) -> None:
    change(scored, networks=[], scores=["lrs"] if asked == "settings" else [])
    with pytest.raises(InputError, match=r"three-digits: scores: found lrs, but no networks.*Set networks="):
        report([str(scored)], scores=["lrs"] if asked == "argument" else None)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scores": ["best"]}, r"scores\[0\]: found 'best', expected one of lrs, ars"),
        ({"lrs_weight": 2}, r"lrs_weight: found 2, expected a number, at least 0, at most 1"),
    ],
)
def test_wrong_settings_of_a_run_are_named(scored: Path, settings: dict[str, object], message: str) -> None:
    change(scored, **settings)
    with pytest.raises(InputError, match=message):
        read_run(scored)
