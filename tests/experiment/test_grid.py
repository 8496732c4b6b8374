"""A grid of methods, IPCs, networks and draws: each shared stage once, killed or not, on one device or two."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from tests.waiting import cpu_time_of, wait_until

from dgs_lightning.data.folders import read_set

pytestmark = pytest.mark.slow

GRID = (
    "methods=[random, dit_dgs]",
    "ipc=[1, 2]",
    "networks=[convnet1, convnet2]",
    "draws=2",
    "repeats=1",
    "validation=[random, easy, scale]",
    "pool_multiple=3",
    "folds=2",
    "judge=null",
    "pretrain.trainer.max_steps=30",
    "generate.model.init_args.steps=5",
    "cross_fit.trainer.max_epochs=1",
    "evaluate.model.init_args={width: 8}",
    "evaluate.trainer.max_steps=4",
)


SUBSETS = ("-val_random", "-val_easy", "-val_scale")


def command(output: Path, devices: int) -> list[str]:
    settings = [part for change in (*GRID, f"jobs={devices}") for part in ("--set", change)]
    return [sys.executable, "-m", "dgs_lightning", "run", "quickstart", "--output", str(output), *settings]


def run(output: Path, devices: int) -> list[str]:
    """Run to the end; which stages were begun, in order."""
    done = subprocess.run(command(output, devices), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [line.split(": dgs ")[0] for line in done.stdout.splitlines() if ": dgs " in line]


def rows(output: Path) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads((output / "summary.json").read_text())["rows"]
    return found


@pytest.fixture(scope="module")
def one_device(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    output = tmp_path_factory.mktemp("grid") / "one"
    return output, run(output, 1)


def test_every_cell_is_trained_and_every_shared_stage_run_once(one_device: tuple[Path, list[str]]) -> None:
    output, begun = one_device
    kinds = Counter(name.split("/")[0] for name in begun)
    once = {"data", "latents", "pretrain", "report"}
    assert {kind: kinds[kind] for kind in once} == dict.fromkeys(once, 1)
    assert (kinds["estimator"], kinds["pools"], kinds["scores"]) == (2, 2, 4)  # pools and their scores: two draws
    assert (kinds["validation"], kinds["distilled"], kinds["evaluation"]) == (3, 8, 16)
    cells = {(row["method"], row["ipc"], row["network"], row["sets"], row["trainings"]) for row in rows(output)}
    shown = [f"{method}{on}" for method in ("random", "dit_dgs") for on in ("", *SUBSETS)]
    assert cells == {(row, i, n, 2, 2) for row in shown for i in (1, 2) for n in ("convnet1", "convnet2")}


def test_table_6_has_the_accuracies_of_one_training_on_four_validation_sets(
    one_device: tuple[Path, list[str]],
) -> None:
    output, _ = one_device
    sets = {path.name: {record.file_name for record in read_set(path)} for path in output.glob("validation/*")}
    whole = {record.file_name for record in read_set(output / "data" / "val")}
    assert all(files < whole for files in sets.values())
    assert len(set(map(frozenset, sets.values()))) == 3
    [table] = output.glob("tables/table6-*convnet1.md")
    rows = [line.split("|")[1:3] for line in table.read_text().splitlines()[4:]]
    shown = [(validation.strip(), method.strip()) for validation, method in rows]
    assert shown == [(on, method) for on in ("Ori", "Random", "Easy", "Scale") for method in ("Random", "DiT + DGS")]


def test_two_devices_and_a_kill_give_the_numbers_of_one(one_device: tuple[Path, list[str]], tmp_path: Path) -> None:
    output = tmp_path / "two"
    process = subprocess.Popen(command(output, 2), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    results = "evaluation/*/*/*/result.json"
    wait_until(lambda: len(list(output.glob(results))) >= 3, lambda: cpu_time_of(process.pid))
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    again = run(output, 2)
    assert "report" in again
    assert len(again) < len(one_device[1]) - 10
    assert rows(output) == rows(one_device[0])
