import json
import logging
import shutil
from pathlib import Path

import pytest
import yaml

from dgs_lightning.commands.report import report
from dgs_lightning.errors import InputError
from dgs_lightning.reporting.album import figures_of
from dgs_lightning.reporting.folder import read_run
from dgs_lightning.reporting.kept import RECORDS, SCALE, keep_records, open_run

OF_IMAGES = ("grid", "samples", "scores", "class")  # beginnings of the names of figures that show images


def kept(run: Path, folder: Path) -> Path:
    keep_records(read_run(run), ["a difference"], folder)
    return folder


def rounded(path: Path) -> object:
    return json.loads(path.read_text(), parse_float=lambda digits: round(float(digits), 5))


def test_the_records_of_a_run_give_its_tables_and_all_figures_without_images(run_folder: Path, tmp_path: Path) -> None:
    settings = yaml.safe_load((run_folder / "experiment.yaml").read_text())
    changes = {"methods": ["dit", "dit_dgs", "full"], "scores": ["lrs"]}
    (run_folder / "experiment.yaml").write_text(yaml.safe_dump({**settings, **changes}))
    (run_folder / "stages" / "finetune.yaml").write_text("{}")
    report([str(run_folder)], keep=str(tmp_path / "kept"))
    shutil.move(run_folder, tmp_path / "away")
    page = report([str(tmp_path / "kept")], output=str(tmp_path / "again")).read_text()
    assert [path.name for path in (tmp_path / "kept").iterdir()] == [RECORDS]
    for path in (tmp_path / "away").rglob("*"):
        written, again = path.relative_to(tmp_path / "away"), tmp_path / "again" / path.relative_to(tmp_path / "away")
        if written.name == "summary.md" or "tables" in written.parts:
            assert path.is_dir() or again.read_text() == path.read_text(), written
        if "figures" in written.parts and path.is_file():
            assert again.is_file() != written.name.startswith(OF_IMAGES), written
    numbers, rebuilt = (rounded(tmp_path / run / "summary.json") for run in ("away", "again"))
    assert rebuilt == numbers
    assert "<b>Not finished:</b> finetune" in page
    assert "The records of three-digits have no images" in page


def test_a_missing_picture_is_no_word_in_the_log(
    finished_run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        drawn = [figure.slug for figure in figures_of(open_run(kept(finished_run, tmp_path)))]
    assert {"accuracy", "density-dit", "smoothing-dit_dgs-ipc4"} <= set(drawn)
    assert not caplog.records


def test_records_name_no_place_of_the_machine(run_folder: Path, tmp_path: Path) -> None:
    settings = yaml.safe_load((run_folder / "experiment.yaml").read_text())
    places = {"data": "photos/dogs/train", "dit": "/home/someone/dit", "output": "/home/someone/runs", "root": "~/data"}
    variants = {"flat": {**settings["variants"]["flat"], "options": {"dm": {"weights": "../someone/weights"}}}}
    (run_folder / "experiment.yaml").write_text(yaml.safe_dump({**settings, **places, "variants": variants}))
    text = (kept(run_folder, tmp_path / "kept") / RECORDS).read_text()
    assert "someone" not in text
    assert str(tmp_path) not in text
    found = json.loads(text)
    assert {name: found["settings"].get(name) for name in places} == {
        **{"data": "dogs", "dit": "dit"},
        **{"output": None, "root": None},
    }
    assert found["differences"] == ["a difference"]


def test_a_run_that_has_its_records_in_its_own_folder_is_still_read_as_a_run(run_folder: Path) -> None:
    assert open_run(kept(run_folder, run_folder)).images_by_label("dit")


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("trainings", [{"folder": "evaluation/dit"}], r"trainings\[0\]\.accuracy_last: found nothing"),
        ("difficulties", {"dit": {"three": [SCALE, 1]}}, r"a difficulty above 1 \(dit, three\)"),
        ("settings", {"seed": -1}, "settings.seed: found -1"),
    ],
)
def test_broken_records_are_an_error_that_says_where(
    part: str, value: object, message: str, finished_run: Path, tmp_path: Path
) -> None:
    path = kept(finished_run, tmp_path) / RECORDS
    path.write_text(json.dumps({**json.loads(path.read_text()), part: value}))
    with pytest.raises(InputError, match=message):
        open_run(tmp_path)
