import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from tests.waiting import cpu_time, wait_until

from dgs_lightning.errors import InputError
from dgs_lightning.experiment.execution import Job, devices_of, run_stage, stage_at_work
from dgs_lightning.runs.lock import locked


def test_a_stage_that_ends_leaves_nothing_of_killed_writers_in_its_folder(
    make_set: Callable[..., Path], tmp_path: Path
) -> None:
    data = make_set("tree", {label: ["1.png", "2.png"] for label in ("cat", "dog")})
    left, kept = tmp_path / "run" / "data" / ".tmpAb3dE6", tmp_path / "run" / ".tmpAb3dE6"
    left.parent.mkdir(parents=True)
    for path in (left, kept):
        path.write_bytes(b"of safetensors")
    config = tmp_path / "run" / "stages" / "data.yaml"
    config.parent.mkdir()
    config.write_text(yaml.safe_dump({"data": str(data), "output": str(left.parent)}))
    outcome = run_stage(Job("data", "prepare", str(config), tmp_path / "run"), lambda done, total: None)
    assert "data/train/cat/1.png" in outcome.results or "data/val/cat/1.png" in outcome.results
    assert not left.exists()
    assert kept.exists()  # beside the stage's folder, where nothing proves that it is the run's


def test_a_stage_that_another_process_writes_is_not_begun(make_set: Callable[..., Path], tmp_path: Path) -> None:
    run = tmp_path / "run"
    config, held = run / "stages" / "data.yaml", run / "stages" / "data.lock"
    config.parent.mkdir(parents=True)
    data = make_set("tree", {label: ["1.png", "2.png"] for label in ("cat", "dog")})
    config.write_text(yaml.safe_dump({"data": str(data), "output": str(run / "data")}))
    job = Job("data", "prepare", str(config), run)
    assert not stage_at_work(job)
    with locked(held):
        assert stage_at_work(job)
        with pytest.raises(InputError, match="run/data: found another run that writes into it"):
            run_stage(job, lambda done, total: None)
    assert not stage_at_work(job)  # a lock file that nobody holds
    run_stage(job, lambda done, total: None)
    assert not held.exists()


# A process starts a command, which starts another one of the same program, as a strategy of two devices does.
PROGRAM = """
import os, subprocess, sys, time
from dgs_lightning.commands.process import PARENT, end_with_parent
if PARENT in os.environ:
    end_with_parent(int(os.environ[PARENT]))
level = int(sys.argv[1])
print(os.getpid(), flush=True)
if level == 0:
    from dgs_lightning.experiment.execution import _exit_status
    _exit_status([sys.executable, __file__, "1"], {**os.environ, PARENT: str(os.getpid())})
elif level == 1:
    subprocess.Popen([sys.executable, __file__, "2"])
time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel of Linux does it")
def test_the_processes_of_a_command_end_with_the_process_that_is_killed(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    process = subprocess.Popen([sys.executable, str(program), "0"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    own, *others = (int(process.stdout.readline()) for _ in range(3))
    os.kill(own, signal.SIGKILL)
    process.wait()
    wait_until(lambda: not any(is_alive(pid) for pid in others), lambda: cpu_time(others))


def is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    ("devices", "number"), [(1, 1), ("2", 2), ([0, 3], 2), ("0,3", 2), ("auto", None), (-1, None), ([1], 1)]
)
def test_the_number_of_devices_is_read_as_the_trainer_reads_it(devices: object, number: int | None) -> None:
    assert devices_of({"devices": devices}) == number
    assert devices_of(None) == 1
