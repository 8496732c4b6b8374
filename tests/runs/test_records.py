import json
from pathlib import Path

import pytest

from dgs_lightning.data.unfinished import ADOPTED, Unfinished
from dgs_lightning.errors import InputError
from dgs_lightning.files import write_text
from dgs_lightning.runs import layout
from dgs_lightning.runs.records import DONE, Records
from dgs_lightning.runs.results import measure

STAGE = "pools/dit"


def finished(run: Path, **files: str) -> Records:
    """Records of a run with one finished stage that left these files."""
    for name, content in files.items():
        path = run / STAGE / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    records = Records(run)
    records.begin(STAGE, "predict", "key")
    records.end(STAGE, measure(run, [STAGE]), 1.5, "cpu")
    return records


def test_a_stage_is_done_with_its_settings_and_results_alone(tmp_path: Path) -> None:
    records = Records(tmp_path)
    assert records.status(STAGE, "key") == "new"
    records.begin(STAGE, "predict", "key")
    assert records.status(STAGE, "key") == "resume"
    finished(tmp_path, a="one", b="two")
    assert records.status(STAGE, "key") == DONE
    assert records.status(STAGE, "another key") == "changed"
    (tmp_path / STAGE / "b.png").unlink()
    assert records.status(STAGE, "key") == "resume"
    records.reopen(STAGE)
    assert records.read(STAGE)["seconds"] == 1.5


@pytest.mark.parametrize(
    ("content", "hashes", "problem"),
    [("", False, "has 0 bytes instead of 3"), ("onetwo", False, "has 6 bytes instead of 3"), ("0ne", True, "another")],
)
def test_results_that_were_changed_are_found(tmp_path: Path, content: str, hashes: bool, problem: str) -> None:
    records = finished(tmp_path, a="one", b="two")
    (tmp_path / STAGE / "a.png").write_text(content)
    damage = records.damage(STAGE, "key", hashes=hashes)
    assert list(damage) == [f"{STAGE}/a.png"]
    assert problem in damage[f"{STAGE}/a.png"]
    assert records.set_aside(damage) == ([f"{STAGE}/a.png"] if content else [])
    assert not (tmp_path / STAGE / "a.png").exists()
    assert not content or (tmp_path / "set_aside" / STAGE / "a.png").read_text() == content


def test_a_changed_stage_is_cleared_and_files_that_were_altered_are_set_aside(tmp_path: Path) -> None:
    records = finished(tmp_path, a="one", b="two")
    (tmp_path / STAGE / "b.png").write_text("of the user")
    logs = tmp_path / STAGE / "lightning_logs" / "version_0"
    logs.mkdir(parents=True)
    (logs / "events.out.tfevents.1.host").write_text("log")
    records.clear(STAGE)
    assert records.read(STAGE) == {}
    assert not (tmp_path / STAGE).exists()
    assert (tmp_path / "set_aside" / STAGE / "b.png").read_text() == "of the user"


@pytest.mark.parametrize("stage_is_done", [True, False])
def test_a_file_that_the_stage_did_not_write_is_never_removed(tmp_path: Path, stage_is_done: bool) -> None:
    records = finished(tmp_path, a="one")
    if not stage_is_done:
        records.reopen(STAGE)
        (tmp_path / "stages" / f"{STAGE}.results").unlink()
    (tmp_path / STAGE / "notes.txt").write_text("mine")
    with pytest.raises(
        InputError, match=r"pools/dit: found 1 files that this run did not write \(pools/dit/notes.txt\)"
    ):
        records.clear(STAGE)
    assert (tmp_path / STAGE / "a.png").read_text() == "one"


def test_a_report_that_was_cut_short_makes_room_for_one_with_other_settings(tmp_path: Path) -> None:
    names = ["summary.json", "summary.md", "index.html", "tables/t.md", "tables/t.csv", "tables/t.tex", "figures/f.pdf"]
    (records := Records(tmp_path)).begin(layout.REPORT, "report", "key")
    for name in [*names, "figures/notes.txt"]:
        write_text(tmp_path / name, "text")
    with pytest.raises(InputError, match=r"figures: found 1 files that this run did not write \(figures/notes.txt\)"):
        records.clear(layout.REPORT)
    (tmp_path / "figures/notes.txt").unlink()
    records.clear(layout.REPORT)
    assert not any((tmp_path / name).exists() for name in names)
    assert all((tmp_path / "set_aside" / name).exists() for name in names)  # one of them may be the user's


@pytest.mark.parametrize("record", [None, "", "{", "[]"])
def test_files_without_a_usable_record_are_never_removed(tmp_path: Path, record: str | None) -> None:
    records = finished(tmp_path, a="one")
    if record is None:
        records.path(STAGE).unlink()
    else:
        records.path(STAGE).write_text(record)
    with pytest.raises(InputError, match="a free place for the results of the stage"):
        records.clear(STAGE)
    assert (tmp_path / STAGE / "a.png").exists()


def test_a_record_names_the_versions_that_the_result_depends_on(tmp_path: Path) -> None:
    records = finished(tmp_path, a="one")
    record = json.loads(records.path(STAGE).read_text())
    assert {"dgs-lightning", "torch", "diffusers", "timm", "scikit-learn"} <= record["versions"].keys()
    assert records.version_changes(STAGE) == []
    record["versions"]["torch"] = "1.0"
    records.path(STAGE).write_text(json.dumps(record))
    assert records.version_changes(STAGE)[0].startswith("torch 1.0, now ")


def test_logs_checkpoints_and_half_written_files_are_no_results(tmp_path: Path) -> None:
    for name in ("a.png", ".b.partial", "checkpoints/last.ckpt", "x/events.out.tfevents.1", ".journal/lines.jsonl"):
        path = tmp_path / STAGE / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    assert list(measure(tmp_path, [STAGE])) == [f"{STAGE}/a.png"]


def test_a_broken_list_of_results_is_named(tmp_path: Path) -> None:
    records = finished(tmp_path, a="one")
    (tmp_path / "stages" / f"{STAGE}.results").write_text('["a.png", 3]\n')
    with pytest.raises(InputError, match=r"dit\.results, line 1: found 2 values instead of 3"):
        records.status(STAGE, "key")


def test_a_folder_that_lost_its_card_is_marked_as_the_runs(tmp_path: Path) -> None:
    write_text(tmp_path / STAGE / "dataset.json", "{}")
    records = finished(tmp_path, a="one")
    records.adopt(STAGE)
    folder = Unfinished(tmp_path / STAGE, "images")
    assert folder.begun() is None
    (tmp_path / STAGE / "dataset.json").unlink()
    records.adopt(STAGE)
    assert folder.begun() == ADOPTED
    noted = {name for part in folder.noted() for name in part}
    assert noted == {"a.png", "dataset.json"}
    folder.begin("key")  # the writer takes over
    records.adopt(STAGE)
    assert folder.begun() == "key"
