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

pytestmark = pytest.mark.slow

GRID = (
    "methods=[random, dit_dgs]",
    "ipc=[1, 2]",
    "networks=[convnet1, convnet2]",
    "draws=2",
    "repeats=1",
    "pool_multiple=3",
    "folds=2",
    "judge=null",
    "pretrain.trainer.max_steps=30",
    "generate.model.init_args.steps=5",
    "cross_fit.trainer.max_epochs=1",
    "evaluate.model.init_args={width: 8}",
    "evaluate.trainer.max_steps=4",
)


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
    assert (kinds["estimator"], kinds["pools"], kinds["scores"]) == (2, 2, 3)  # pools and their scores: two draws
    assert (kinds["distilled"], kinds["evaluation"]) == (8, 16)
    cells = {(row["method"], row["ipc"], row["network"], row["sets"], row["trainings"]) for row in rows(output)}
    assert cells == {(m, i, n, 2, 2) for m in ("random", "dit_dgs") for i in (1, 2) for n in ("convnet1", "convnet2")}


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
