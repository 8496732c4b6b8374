"""What a run may touch: its own results, never its inputs or files of others."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from dgs_lightning.doctor.examination import examine
from dgs_lightning.errors import InputError
from dgs_lightning.experiment.run import ExperimentRun
from dgs_lightning.experiment.settings import load_experiment

QUICK = (
    "methods=[full]",
    "networks=[convnet1]",
    "draws=1",
    "jobs=1",
    "judge=null",
    "image_size=8",
    "evaluate.model.init_args.width=4",
    "evaluate.trainer.max_steps=2",
)


@pytest.fixture(autouse=True)
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test's own folder is the working directory and has the user's cache."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache-of-the-user"))


def photos(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in ("cat/1.png", "cat/2.png", "cat/3.png", "dog/1.png", "dog/2.png", "dog/3.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / name)
    return folder


def experiment_run(output: str, *changes: str, data: str = "photos", name: str = "quickstart") -> ExperimentRun:
    return ExperimentRun(load_experiment(name, [*QUICK, f"data={data}", *changes], output))


def execute(run: ExperimentRun, **options: bool) -> list[str]:
    """Run, and tell the stages that were begun."""
    begun: list[str] = []
    run.progress.begin = lambda stage, command: begun.append(stage)  # type: ignore[method-assign]
    run.progress.finish = lambda stage, seconds: None  # type: ignore[method-assign]
    with run.lock():
        run.execute(**options)
    return begun


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run beside its photos."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        photos(home / "photos")
        assert execute(experiment_run("run")) == ["data", "evaluation/full/convnet1/seed0", "report"]
    return home


@pytest.fixture
def finished(template: Path, tmp_path: Path) -> Path:
    """A copy of the finished run, which is in the working directory as ``run``."""
    shutil.copytree(template, tmp_path, dirs_exist_ok=True)
    return tmp_path / "run"


def test_a_finished_run_does_nothing_also_with_data_that_were_copied_or_touched(finished: Path) -> None:
    shutil.move("photos", "elsewhere")
    shutil.copytree("elsewhere", "photos")  # new inodes
    for path in Path("photos").rglob("*.png"):
        os.utime(path, (1, 1))
    assert execute(experiment_run("run")) == []


@pytest.mark.parametrize("output", [".", "photos", "photos/run"])
def test_a_run_never_writes_over_or_among_its_inputs(tmp_path: Path, output: str) -> None:
    data = "data" if output == "." else "photos"
    photos(tmp_path / data)
    before = sorted(tmp_path.rglob("*"))
    run = experiment_run(output, data=data)
    for attempt in (run.show, lambda: execute(run)):
        with pytest.raises(InputError, match=r"which the run reads.*--output .*quickstart"):
            attempt()
    problems = [finding for finding in examine(run.experiment) if finding.level == "problem"]
    assert any("which the run reads" in finding.what for finding in problems)
    assert [path for path in sorted(tmp_path.rglob("*")) if "cache-of" not in str(path)] == before


def test_a_folder_with_other_files_is_refused_and_a_new_one_proposed(tmp_path: Path) -> None:
    photos(tmp_path / "photos")
    Path("thesis").mkdir()
    Path("thesis/chapter.txt").write_text("mine")
    run = experiment_run("thesis")
    for attempt in (run.show, lambda: execute(run)):
        with pytest.raises(InputError, match=r"not a run's \(chapter.txt\).*--output thesis/quickstart"):
            attempt()
    assert [path.name for path in Path("thesis").iterdir()] == ["chapter.txt"]


def test_results_whose_records_were_deleted_are_refused_in_words(finished: Path) -> None:
    shutil.rmtree(finished / "stages")
    with pytest.raises(InputError, match=r"run/data: found \d+ files that this run did not write"):
        execute(experiment_run("run"))
    assert list((finished / "data").rglob("*.png"))


def test_results_of_another_experiment_are_not_replaced(finished: Path) -> None:
    with pytest.raises(InputError, match="results of the experiment quickstart"):
        execute(experiment_run("run", "evaluate.trainer.max_steps=3", name="own_images"))


def test_a_changed_setting_replaces_only_what_the_run_wrote(finished: Path) -> None:
    changed = experiment_run("run", "evaluate.trainer.max_steps=3")
    note = finished / "evaluation" / "full" / "convnet1" / "seed0" / "note.txt"
    note.write_text("mine")
    with pytest.raises(InputError, match=r"did not write \(evaluation/full/convnet1/seed0/note.txt\)"):
        execute(changed)
    assert (note.parent / "result.json").exists()
    note.unlink()
    assert execute(changed) == ["evaluation/full/convnet1/seed0", "report"]


@pytest.mark.parametrize("damage", ["emptied", "deleted", "one byte"])
@pytest.mark.parametrize("name", ["data/train/cat", "evaluation/full/convnet1/seed0/result.json"])
def test_lost_results_are_made_again(finished: Path, name: str, damage: str) -> None:
    path = finished / name
    file = next(path.glob("*.png")) if path.is_dir() else path
    content = file.read_bytes()
    if damage == "one byte":
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        assert execute(experiment_run("run")) == []  # same size
        assert execute(experiment_run("run"), verify=True)
    else:
        file.write_bytes(b"") if damage == "emptied" else file.unlink()
        assert execute(experiment_run("run"))
    assert file.read_bytes() == content
    assert (finished / "set_aside").exists() == (damage == "one byte")


def test_data_that_change_while_they_are_read_are_named(tmp_path: Path) -> None:
    photos(tmp_path / "photos")
    run = experiment_run("run")
    Path("photos/cat/4.png").write_bytes(Path("photos/cat/1.png").read_bytes())
    with pytest.raises(InputError, match=r"photos/cat/4.png: found 1 files that were changed while the run read them"):
        execute(run)
    assert execute(experiment_run("run"))[0] == "data"


def test_an_unfinished_stage_of_other_versions_is_not_completed_silently(finished: Path) -> None:
    path = finished / "stages" / "evaluation" / "full" / "convnet1" / "seed0.json"
    record = json.loads(path.read_text())
    record["versions"]["torch"] = "1.0"
    path.write_text(json.dumps(record))
    run = experiment_run("run")
    told: list[str] = []
    run.progress.say = told.append  # type: ignore[method-assign, assignment]
    assert execute(run) == []  # finished: told, and kept
    assert "1 stages were run with other versions: torch 1.0, now" in told[0]
    path.write_text(json.dumps({**record, "status": "running"}))
    with pytest.raises(InputError, match=r"found torch 1.0, now .*--mixed-versions"):
        execute(experiment_run("run"))
    assert execute(experiment_run("run"), mixed_versions=True)[0] == "evaluation/full/convnet1/seed0"


@pytest.fixture
def earlier(finished: Path) -> Path:
    """The finished run as version 0.2.0 left it: other keys, no versions, no lists of results, no draws."""
    for path in (finished / "stages").rglob("*.json"):
        record = {**json.loads(path.read_text()), "key": "of another form", "version": "0.2.0"}
        path.write_text(json.dumps({name: value for name, value in record.items() if name != "versions"}))
    for path in (finished / "stages").rglob("*.results"):
        path.unlink()
    settings = yaml.safe_load((finished / "experiment.yaml").read_text())
    del settings["draws"], settings["fingerprint"]
    (finished / "experiment.yaml").write_text(yaml.safe_dump({**settings, "validation": "all"}))
    return finished


def test_a_finished_run_of_an_earlier_version_is_kept_and_not_computed_again(
    earlier: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in earlier.rglob("*") if path.is_file()}
    run = experiment_run("run", "jobs=2")
    told: list[str] = []
    run.progress.say = told.append  # type: ignore[method-assign, assignment]
    assert execute(run, verify=True) == []
    assert told == [
        "run: version 0.2.0 finished this run. It is kept as it is. "
        "It has no lists of its results, so files and data are not compared"
    ]
    experiment_run("run").show()
    assert {line.split()[0] for line in capsys.readouterr().out.splitlines()} == {"done"}
    assert before == {path: path.read_bytes() for path in earlier.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("change", "lack"), [("draws=2", r"with other settings \(draws: 1\)"), (None, r"not finished \(report\)")]
)
def test_another_run_of_an_earlier_version_is_kept_and_refused_with_what_to_do(
    earlier: Path, change: str | None, lack: str
) -> None:
    if change is None:
        path = earlier / "stages" / "report.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "status": "running"}))
    expected = rf"a run of version 0.2.0 .*{lack}.*another --output.*'dgs report' reads its results"
    with pytest.raises(InputError, match=expected):
        execute(experiment_run("run", *([change] if change else [])))


def test_a_link_in_place_of_a_stage_is_not_followed(finished: Path, tmp_path: Path) -> None:
    (finished / "data").rename(tmp_path / "mine")
    (finished / "data").symlink_to(tmp_path / "mine")
    with pytest.raises(InputError, match=r"run/data: found a symbolic link"):
        execute(experiment_run("run", "image_size=4"))
    assert list((tmp_path / "mine").rglob("*.png"))
