"""A disk that is full ends a stage with one line that says so; with space again, the same command finishes the run."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.faults.conftest import Laboratory

pytestmark = pytest.mark.fault

STAGES = {
    "data": "prepare",
    "estimator/fold1": "estimator",
    "latents": "latents",
    "pretrain": "pretrain",
    "finetune": "finetune",
    "pools/minimax": "generation",
    "guided/dag-ipc2": "generation",
    "scores/minimax": "scores",
    "distilled/minimax_dgs-ipc2": "select",
    "evaluation/minimax_dgs-ipc2/convnet2/seed0": "evaluation",
    "report": "report",
    "matched/dm-ipc2": "matched",
    "matched/idc1-ipc2": "matched",
    "crops": "crops",
    "stitched/rded-ipc2": "stitch",
}


def ends_in_words(code: int, log: str) -> None:
    """Check that a run ended with one line on the disk."""
    assert code == 2, log
    assert "Traceback" not in log
    last = log.rstrip().rsplit("\n", 1)[-1]
    assert last.startswith("dgs run: ")
    assert "Free space or choose another folder, and run the same command again" in last


@pytest.mark.parametrize(
    "stage", [pytest.param(stage, marks=[] if stage == "finetune" else [pytest.mark.matrix]) for stage in STAGES]
)
def test_a_file_that_the_system_cuts_off_is_no_result(
    laboratory_of: Callable[[str], "Laboratory"],
    output: Path,
    stage: str,
    record_property: Callable[[str, object], None],
) -> None:
    """The system lets no file grow to the size of the largest one of the stage."""
    laboratory = laboratory_of(STAGES[stage])
    laboratory.before(stage, output)
    ends_in_words(*laboratory.run(output, file_bytes=laboratory.largest_file(stage) - 1))
    laboratory.check(output)
    record_property("fault", STAGES[stage])


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 MB in memory, where this user may mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", disk], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no disk may be mounted here: {error}")
    yield disk
    subprocess.run(["umount", disk], check=True)


@pytest.mark.matrix
@pytest.mark.parametrize("stage", ["pretrain", "pools/minimax", "report"])
def test_a_full_disk_is_told_and_waited_out(
    laboratory: "Laboratory", small_disk: Path, stage: str, record_property: Callable[[str, object], None]
) -> None:
    output, filler = laboratory.before(stage, small_disk / "run"), small_disk / "filler"
    filler.write_bytes(bytes(shutil.disk_usage(small_disk).free - 2**16))  # enough is left to begin with
    ends_in_words(*laboratory.run(output))
    filler.unlink()
    laboratory.check(output)
    record_property("fault", STAGES[stage])
