import csv
import html
import json
import logging
import shutil
from pathlib import Path

import pytest
import yaml

from dgs_lightning.commands.report import report
from dgs_lightning.configs import expand
from dgs_lightning.data.records import MANIFEST
from dgs_lightning.errors import InputError
from dgs_lightning.reporting.terminal import print_summary


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def undrawn(run_folder: Path) -> Path:
    """The run without image sets and scores, which is quick to report."""
    for part in ("data", "distilled", "pools", "scores"):
        shutil.rmtree(run_folder / part)
    return run_folder


def test_a_run_is_reported_into_its_own_folder_and_again_in_the_same_bytes(run_folder: Path) -> None:
    for row in ("random", "flat"):
        shutil.rmtree(run_folder / "distilled" / f"{row}-ipc4")
    before = contents(run_folder)
    assert report([str(run_folder)]) == run_folder / "index.html"
    first = contents(run_folder)
    new = first.keys() - before.keys()
    assert {"summary.json", "summary.md", "index.html", "tables/table1-digits.tex", "figures/accuracy.pdf"} <= new
    assert {Path(name).suffix for name in new if name.startswith("tables/")} == {".md", ".csv", ".tex"}
    for name in ("tables/table1-digits.md", "index.html"):
        assert b"10.0 %" in first[name]  # the ratio: 4 of 40 images of each class
    report([str(run_folder)])
    assert contents(run_folder) == first
    assert {name: first[name] for name in before} == before


def test_tables_hold_the_best_or_the_last_accuracy_in_percent(undrawn: Path) -> None:
    for which, mean in (("best", 62.0), ("last", 61.0)):
        report([str(undrawn)], accuracy=which, tables=[1])  # type: ignore[arg-type]
        lines = csv.DictReader((undrawn / "tables" / "table1-digits.csv").open())
        assert float(next(line["mean"] for line in lines if line["method"] == "dit")) == pytest.approx(mean)


def test_the_full_set_stands_beside_every_ipc(undrawn: Path) -> None:
    settings = yaml.safe_load((undrawn / "experiment.yaml").read_text())
    (undrawn / "experiment.yaml").write_text(yaml.safe_dump({**settings, "ipc": [4, 8]}))
    shutil.copytree(undrawn / "evaluation" / "dit-ipc4", undrawn / "evaluation" / "dit-ipc8")
    report([str(undrawn)], tables=[1])
    lines = list(csv.DictReader((undrawn / "tables" / "table1-digits.csv").open()))
    assert {line["ipc"] for line in lines if line["method"] == "full"} == {"4", "8"}


def test_several_runs_share_tables_and_page_and_have_a_part_each(undrawn: Path) -> None:
    other = Path(shutil.copytree(undrawn, undrawn.parent / "woof"))
    (other / "experiment.yaml").write_text(yaml.safe_dump({"classes": "imagewoof", "title": "Woof"}))
    shutil.move(other / "evaluation" / "dit-ipc4", other / "evaluation" / "minimax-ipc10")
    shutil.move(
        other / "evaluation" / "minimax-ipc10" / "convnet3", other / "evaluation" / "minimax-ipc10" / "convnet6"
    )
    shutil.rmtree(other / "stages")
    config = other / "stages" / "evaluation" / "minimax-ipc10" / "convnet6" / "seed5.yaml"
    config.parent.mkdir(parents=True)
    own = {"trainer": {"max_epochs": 200}, "data": {"init_args": {"image_size": 64}}}
    config.write_text(yaml.safe_dump(expand({"config": "classify/published.yaml", **own})))
    page = report([str(undrawn), str(other)])
    assert page == undrawn.parent / "report" / "index.html"
    assert json.loads((page.parent / "woof" / "summary.json").read_text())["experiment"] == "woof"
    table = (page.parent / "tables" / "table1-imagewoof.md").read_text()
    assert "62.0 ± 1.4 (34.1) |" in table  # no difference, since the set-up is another one
    difference = (
        "the set-up of woof is not the paper's (side of the images that the classifier sees: 64 instead of 224; "
        "length of a classifier's training: 200 epochs instead of epochs that follow from the IPC)"
    )
    assert difference in table
    assert (
        html.unescape(page.read_text()).count(difference) == 3
    )  # under the table, in the figure's caption and its text
    assert "Three digits, Woof" in page.read_text()
    assert not (other / "summary.json").exists()
    report([str(undrawn), str(other)], differences=True)
    table = (page.parent / "tables" / "table1-imagewoof.md").read_text()
    assert "62.0 ± 1.4 (34.1, +27.9)" in table
    assert difference in table


def test_one_report_of_the_two_halves_of_table_3_has_both_data_sets(undrawn: Path) -> None:
    runs = []
    for classes in ("imagenette", "imageidc"):
        runs.append(Path(shutil.copytree(undrawn, undrawn.parent / f"table3_{classes}")))
        settings = {"classes": classes, "methods": ["dit"], "name": runs[-1].name}
        (runs[-1] / "experiment.yaml").write_text(yaml.safe_dump(settings))
        (runs[-1] / "evaluation" / "dit-ipc4" / "convnet3").rename(runs[-1] / "evaluation" / "dit-ipc4" / "resnet_ap10")
        (runs[-1] / "evaluation" / "dit-ipc4").rename(runs[-1] / "evaluation" / "dit-ipc10")
    table = (report(list(map(str, runs))).parent / "tables" / "table3-resnet_ap10.md").read_text()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[4:]]
    assert [(data, ipc, dit.split(" (")[0]) for data, ipc, _, dit, *_ in rows] == [
        *(("ImageNette", "10", "62.0 ± 1.4"), ("ImageIDC", "10", "62.0 ± 1.4")),
    ]


def test_the_accuracies_on_subsets_are_the_rows_of_table_6(undrawn: Path) -> None:
    for path in undrawn.glob("evaluation/*/convnet3/seed*/result.json"):
        result = json.loads(path.read_text())
        easy = {"accuracy_last": 0.5, "accuracy_best": result["accuracy_best"] - 0.1}
        path.write_text(json.dumps({**result, "subsets": {"easy": easy}}))
    report([str(undrawn)])
    lines = list(csv.DictReader((undrawn / "tables" / "table6-digits-convnet3.csv").open()))
    found = {(line["method"], line["variant"]): float(line["mean"]) for line in lines}
    assert found["dit", "val_original"] == pytest.approx(62.0)
    assert found["dit", "val_easy"] == pytest.approx(52.0)
    text = (undrawn / "summary.md").read_text()
    assert "Easy in brackets: the same trainings, evaluated on these subsets of the validation images." in text
    assert "| DiT + DGS (Easy) | DiT (Easy) | 4 | ConvNet-3 |" in text
    assert "DiT + DGS (Ground, Easy)" in text


def test_a_setting_that_two_runs_have_is_said(undrawn: Path, caplog: pytest.LogCaptureFixture) -> None:
    shutil.copytree(undrawn, undrawn.parent / "again")
    report([str(undrawn), str(undrawn.parent / "again")])
    assert "again: an earlier run has Setting(dataset='digits', network='convnet3', method='dit'" in caplog.text


def test_an_unfinished_run_is_reported_as_far_as_it_is_and_what_is_missing_is_said(
    undrawn: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (undrawn / "stages" / "finetune.yaml").write_text("{}")
    with caplog.at_level(logging.WARNING):
        page = report([str(undrawn)])
    assert "not finished: finetune" in caplog.text
    assert "Not finished:</b> finetune" in page.read_text()
    assert len(json.loads((undrawn / "summary.json").read_text())["rows"]) == 5


def test_a_run_that_has_only_begun_has_an_empty_report(undrawn: Path) -> None:
    shutil.rmtree(undrawn / "evaluation")
    page = report([str(undrawn)])
    assert json.loads((undrawn / "summary.json").read_text())["rows"] == []
    assert page.is_file()
    assert not (undrawn / "tables").exists()


def test_the_summary_is_printed_with_the_places_of_what_was_made(
    undrawn: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report([str(undrawn)])
    capsys.readouterr()
    print_summary(undrawn)
    text = capsys.readouterr().out
    assert "Full dataset" in text.replace("\n", " ") or "dataset" in text
    assert str(undrawn / "index.html") in text


def test_what_cannot_be_reported_is_an_error_before_anything_is_written(undrawn: Path, tmp_path: Path) -> None:
    twin = Path(shutil.copytree(undrawn, tmp_path / "other" / undrawn.name))
    for message, runs, tables in (
        ("no such folder", [str(undrawn), str(tmp_path / "nowhere")], None),
        ("names that differ", [str(undrawn), str(twin)], None),
        ("found \\[8\\]", [str(undrawn)], [1, 8]),
        ("at least one folder", [], None),
    ):
        with pytest.raises(InputError, match=message):
            report(runs, tables=tables)
    assert not (undrawn / "summary.json").exists()


def test_a_truncated_manifest_is_an_error_that_names_its_line(run_folder: Path) -> None:
    path = run_folder / "scores" / "original" / MANIFEST
    path.write_text(path.read_text()[:-20])
    with pytest.raises(InputError, match=r"metadata\.jsonl, line 120"):
        report([str(run_folder)])
