"""An experiment on several machines has the bytes of one on this machine, and says what is wrong with the machines."""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.faults.conftest import content, write_digits
from tests.machines import machines

from dgs_lightning.errors import InputError
from dgs_lightning.experiment.cluster import RaySettings, connected
from dgs_lightning.experiment.settings import load_experiment

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

GRID = (
    "methods=[random]",
    "variants={}",
    "ipc=1",
    "networks=[convnet1]",
    "draws=1",
    "repeats=2",
    "folds=2",
    "judge=null",
    "cross_fit.trainer.max_epochs=1",
    "evaluate.model.init_args={width: 8}",
    "evaluate.trainer.max_steps=4",
)


def run(folder: Path, output: Path, *changes: str, command: str = "run") -> "subprocess.CompletedProcess[str]":
    """Run the tiny grid with a folder as the working folder."""
    settings = [part for change in (*GRID, f"data={folder / 'digits'}", *changes) for part in ("--set", change)]
    arguments = [sys.executable, "-m", "dgs_lightning", command, "quickstart", "--output", str(output), *settings]
    return subprocess.run(arguments, capture_output=True, text=True, check=False, cwd=folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ray")
    write_digits(folder / "digits", 2, 10)
    return folder


@pytest.fixture(scope="module")
def cluster() -> "Iterator[Cluster]":
    with machines(2, cpus=1, gpus=1) as cluster:
        yield cluster


@pytest.mark.slow
def test_two_machines_give_the_bytes_of_one_job(folder: Path, cluster: "Cluster") -> None:
    assert (done := run(folder, folder / "one", "jobs=1")).returncode == 0, done.stderr
    settings = ("launcher=ray", f"ray.address={cluster.address}", "ray.gpus_per_training=0.5")
    done = run(folder, folder / "two", *settings)
    assert (done.returncode, done.stderr) == (0, "")
    assert content(folder / "two") == content(folder / "one")
    ends = [line.rpartition(" on ")[2] for line in done.stdout.splitlines() if ": done in " in line]
    assert len(ends) == 8
    assert len(set(ends)) == 2  # nodes
    assert sorted(path.name for path in (folder / "two").glob(".lock*")) == [".lock"]
    first = {path.name: path.read_text() for path in (folder / "two" / "stages").glob("*.json")}
    assert "nothing" not in run(folder, folder / "two", "jobs=1").stderr
    assert {path.name: path.read_text() for path in (folder / "two" / "stages").glob("*.json")} == first  # as it was


@pytest.mark.slow
def test_a_machine_that_sees_another_folder_is_named(folder: Path, cluster: "Cluster") -> None:
    """The path leads into the working folder of whichever process reads it."""
    address = f"ray.address={cluster.address}"
    done = run(folder, Path("/proc/self/cwd/elsewhere"), "launcher=ray", address)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("dgs run: /proc/self/cwd/elsewhere on nodes "), done.stderr
    assert "found another folder of this name, or none" in done.stderr
    assert "all machines share" in done.stderr
    assert done.stderr.count("\n") == 1
    examined = run(folder, Path("/proc/self/cwd/elsewhere"), "launcher=ray", address, command="doctor")
    assert "another folder of this name" in examined.stdout
    assert "1 CPU core, 1 GPU" in examined.stdout
    assert examined.returncode == 1


def test_an_address_that_does_not_answer_is_told_at_once() -> None:
    pytest.importorskip("ray")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        with (
            pytest.raises(InputError, match=rf"ray\.address: found {address}: no answer.*ray start"),
            connected(RaySettings(address)),
        ):
            pass


def test_without_ray_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"pip install 'dgs-lightning\[ray\]'"), connected(RaySettings()):
        pass


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("launcher=slurm", "--set launcher: found 'slurm', expected one of local, ray"),
        ("ray.adress=auto", "--set ray.adress: found an unknown key, expected one of address,"),
        ("ray.gpus_per_training=2", "--set ray.gpus_per_training: found 2, expected a number"),
    ],
)
def test_a_wrong_launcher_or_setting_of_ray_is_named(change: str, told: str) -> None:
    with pytest.raises(InputError) as error:
        load_experiment("quickstart", [change])
    assert told in str(error.value)


def test_neither_the_launcher_nor_its_settings_are_part_of_a_key() -> None:
    from dgs_lightning.experiment.plan import Plan
    from dgs_lightning.experiment.stage import stage_keys

    plans = [Plan(load_experiment("quickstart", [*changes])).everything() for changes in ((), ("launcher=ray",))]
    keys = [json.dumps(stage_keys(plan, {path: "" for stage in plan for path in stage.inputs})) for plan in plans]
    assert keys[0] == keys[1]
