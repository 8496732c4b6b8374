"""What a summary says of the estimator, of the pools and of uneven classes."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from dgs_lightning.data.records import MANIFEST
from dgs_lightning.reporting.folder import read_run
from dgs_lightning.reporting.overview import Overview, overview, overview_markdown
from dgs_lightning.reporting.page import RunReport, build_page
from dgs_lightning.reporting.summary import summarize

OTHER = {"zero": "eight", "three": "zero", "eight": "zero"}


def told(folder: Path) -> Overview:
    run = read_run(folder)
    return overview(run, summarize(run))


def rewrite(folder: Path, name: str, right_of_ten: int, keep: Mapping[str, int] | None = None) -> None:
    """Let so many of ten images of each class be recognised, and keep so many images of a class."""
    path = folder / "scores" / name / MANIFEST
    kept = []
    for line in map(json.loads, path.read_text().splitlines()):
        number, label = int(Path(line["file_name"]).stem), line["label"]
        line["predicted"] = label if number % 10 < right_of_ten else OTHER[label]
        if number < (keep or {}).get(label, 100):
            kept.append(json.dumps(line) + "\n")
    path.write_text("".join(kept))


def test_the_accuracy_of_the_estimator_is_the_mean_over_the_classes(run_folder: Path) -> None:
    rewrite(run_folder, "original", 9, keep={"three": 1})
    run = read_run(run_folder)
    assert summarize(run)["estimator_accuracy"] == pytest.approx((0.9 + 0.9 + 1) / 3)
    said = "recognises 93.3% of the original images, averaged over 3 classes; chance is 33.3%."
    assert said in told(run_folder).recognised[0]


def test_a_good_estimator_and_a_legible_pool_are_no_reason_to_warn(run_folder: Path) -> None:
    for name in ("original", "judge-dit"):
        rewrite(run_folder, name, 9)
    assert list(told(run_folder).warnings) == []


def test_an_estimator_that_is_nearer_to_chance_than_to_right_is_warned_of(run_folder: Path) -> None:
    rewrite(run_folder, "original", 5)
    rewrite(run_folder, "judge-dit", 9)
    [warning] = told(run_folder).warnings
    assert "The difficulty estimator is weak (50.0%)" in warning


@pytest.mark.parametrize("judged", [True, False])
def test_images_that_are_not_recognisable_are_called_so_in_the_summary_and_on_the_page(
    judged: bool, run_folder: Path
) -> None:
    rewrite(run_folder, "original", 9)
    rewrite(run_folder, "judge-dit" if judged else "dit", 3)
    if not judged:
        (run_folder / "scores" / "judge-dit" / MANIFEST).unlink()
    shown, run = told(run_folder), read_run(run_folder)
    for text in (overview_markdown(shown), build_page([RunReport(run, summarize(run), [])], [])):
        assert "these images are not recognisable; use a pretrained DiT or train longer" in text
    who = "an independent classifier" if judged else "the difficulty estimator"
    assert f"{who} recognises: DiT 30.0%" in shown.recognised[1]


def test_uneven_classes_are_warned_of(run_folder: Path) -> None:
    rewrite(run_folder, "original", 9, keep={"three": 6})
    rewrite(run_folder, "judge-dit", 9)
    [warning] = told(run_folder).warnings
    assert "The classes have 6 (the three) to 40 (the zero) images" in warning
