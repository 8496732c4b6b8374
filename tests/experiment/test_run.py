"""The experiment of the quickstart at a tiny size, through the command line that a user types."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.waiting import cpu_time_of, wait_until
from torchvision.datasets import ImageFolder

from dgs_lightning.data.cards import read_card
from dgs_lightning.data.records import read_manifest

pytestmark = pytest.mark.slow

TINY = (
    "ipc=2",
    "pool_multiple=3",
    "folds=2",
    "draws=1",
    "repeats=1",
    "methods=[random, ccs, dgs_ori, dit, dit_dgs, minimax_dgs, dag, full]",
    "pretrain.trainer.max_steps=40",
    "finetune.trainer.max_steps=10",
    "generate.model.init_args.steps=10",
    "generate.data.init_args.batch_size=4",
    "cross_fit.trainer.max_epochs=2",
    "judge.trainer.max_epochs=2",
    "evaluate.trainer.max_steps=8",
)


def command(output: Path, *changes: str) -> list[str]:
    settings = [part for change in (*TINY, *changes) for part in ("--set", change)]
    return [sys.executable, "-m", "dgs_lightning", "run", "quickstart", "--output", str(output), *settings]


def run(output: Path, *changes: str) -> str:
    done = subprocess.run(command(output, *changes), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def hashes(output: Path) -> dict[str, str]:
    """Of every file of the distilled sets and of their scores."""
    files = [path for part in ("distilled", "scores") for path in (output / part).rglob("*") if path.is_file()]
    return {str(path.relative_to(output)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(files)}


def rows(output: Path) -> object:
    return json.loads((output / "summary.json").read_text())["rows"]


def records(output: Path) -> dict[str, int]:
    """When each stage was last recorded."""
    folder = output / "stages"
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*.json")}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("run") / "tiny"
    run(output)
    return output


def test_a_run_that_keeps_going_ends_what_does_not_need_the_failed_stage(tmp_path: Path) -> None:
    changes = (
        "methods=[dag, random]",
        "dag.scale=1.0e+30",
        "dag.stop_timestep=0",
        "judge=null",
        "evaluate.trainer.max_steps=2",
    )
    args = [*command(tmp_path / "run", *changes), "--keep-going"]
    went_on = subprocess.run(args, capture_output=True, text=True, check=False)
    assert went_on.returncode == 2
    assert "guided/dag-ipc2: images of batch 0: found latents that are not finite" in went_on.stdout + went_on.stderr
    assert "found 1 stage that failed (guided/dag-ipc2), expected stages that end" in went_on.stderr
    assert [row["method"] for row in json.loads((tmp_path / "run" / "summary.json").read_text())["rows"]] == ["random"]
    summary = (tmp_path / "run" / "summary.md").read_text()
    assert "**Not finished:** distilled/dag-ipc2, evaluation/dag-ipc2/convnet2/seed0, guided/dag-ipc2" in summary


def test_the_summary_has_a_row_for_each_method(finished: Path) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    assert {"experiment", "seed", "rows", "seconds", "versions", "pool_legible"} <= set(summary)
    assert len(summary["rows"]) == 8
    assert all(0 < row["accuracy_last_mean"] <= row["accuracy_best_mean"] <= 1 for row in summary["rows"])
    assert "| evaluation, 8 runs |" in (finished / "summary.md").read_text()
    assert {json.loads(path.read_text())["device"] for path in (finished / "stages").rglob("*.json")} == {"cpu"}
    assert set(summary["pool_legible"]) == {"dit", "minimax"}


def test_the_distilled_sets_load_as_image_folders_that_agree_with_their_metadata(finished: Path) -> None:
    sets = sorted((finished / "distilled").iterdir())
    assert len(sets) == 7
    for folder in sets:
        assert all(record.difficulty is not None for record in read_manifest(folder))
        images = ImageFolder(str(folder))
        manifest = {record.file_name: record.label for record in read_manifest(folder)}
        found = {str(Path(path).relative_to(folder)): images.classes[label] for path, label in images.samples}
        assert found == manifest
        assert len(found) == 20
        assert str(finished.parent) not in json.dumps(read_card(folder))


def test_figures_and_page_are_there(finished: Path) -> None:
    assert list((finished / "figures").glob("*.png"))
    assert "<html" in (finished / "index.html").read_text()[:500]
    assert (finished / "summary.md").read_text().count("\n| ") >= 8


def test_a_finished_run_does_nothing_but_print_its_table(finished: Path) -> None:
    before = records(finished)
    assert "Random" in run(finished)
    assert records(finished) == before


def test_a_finished_run_prints_its_table_without_importing_torch(finished: Path) -> None:
    code = (
        f"import sys; from dgs_lightning.__main__ import main; assert not main({command(finished)[3:]})\n"
        "assert not {'torch', 'lightning', 'scipy'} & set(sys.modules), 'heavy imports'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Minimax + DGS" in done.stdout


def test_a_changed_setting_of_the_evaluation_runs_it_and_the_report_alone(finished: Path) -> None:
    before = records(finished)
    run(finished, "networks=[convnet2]", "methods=[random]", "evaluate.trainer.max_steps=6")
    after = records(finished)
    changed = {name for name in after if after[name] != before.get(name)}
    assert {name.split("/")[0] for name in changed} == {"evaluation", "report.json"}


def test_the_same_seed_gives_the_same_bytes_with_one_job_and_with_two(finished: Path, tmp_path: Path) -> None:
    run(tmp_path / "again", "jobs=1")
    assert hashes(tmp_path / "again") == hashes(finished)


def generating(output: Path) -> bool:
    return len(list((output / "pools").rglob("*.png"))) > 8


@pytest.mark.parametrize("moment", [generating], ids=["while it generates"])
def test_a_killed_run_ends_in_the_same_bytes(finished: Path, tmp_path: Path, moment: Callable[[Path], bool]) -> None:
    output = tmp_path / "killed"
    process = subprocess.Popen(command(output), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_until(lambda: moment(output), lambda: cpu_time_of(process.pid), every=0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    run(output)
    assert hashes(output) == hashes(finished)
    assert not [path.name for path in output.rglob("*.part*") if path.is_file()]


def test_an_interrupted_run_says_that_it_can_go_on(tmp_path: Path) -> None:
    output = tmp_path / "interrupted"
    process = subprocess.Popen(
        command(output, "jobs=1"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # in the background of a shell it is ignored
    )
    wait_until((output / "pretrain" / "config.yaml").exists, lambda: cpu_time_of(process.pid))
    process.send_signal(signal.SIGINT)
    _, said = process.communicate()
    assert process.returncode == 130, said
    assert said.endswith("dgs run: interrupted; the same command continues\n")
