"""What the disk has when the power is cut: a finished stage as a whole, and enough of an unfinished one to go on."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.faults.calls import Fault, Watch
from tests.faults.conftest import Laboratory

from dgs_lightning.runs.results import is_passing

pytestmark = pytest.mark.fault


class Disk:
    """A disk of its own, whose power can be cut.

    The disk is an ext4 file system in a file. The file holds what the system has written through; a copy of it is what
    a loss of power would leave. The file system is mounted without its own care for files that replace others.

    Args:
        folder: Folder for the file, and for the place where the disk is mounted.
    """

    def __init__(self, folder: Path) -> None:
        self.image, self.copy, self.root = (folder / name for name in ("disk", "copy", "mounted"))
        self.root.mkdir()
        with self.image.open("wb") as file:
            file.truncate(2**26)
        subprocess.run(["mkfs.ext4", "-q", self.image], check=True, capture_output=True)
        self.mount()

    def mount(self) -> None:
        """Mount it; the journal is replayed."""
        options = "loop,noauto_da_alloc"
        subprocess.run(["mount", "-o", options, self.image, self.root], check=True, capture_output=True)

    def unmount(self) -> None:
        """Unmount it."""
        subprocess.run(["umount", self.root], check=True)

    def cut(self) -> None:
        """Keep what the disk has at this moment: the names of all files, but content only where it was forced."""
        other = self.root / "other"
        with other.open("w") as file:
            os.fsync(file)  # has the journal written, and with it all names
        subprocess.run(["cp", "--sparse=always", self.image, self.copy], check=True)
        other.unlink()

    def restart(self) -> None:
        """Go on with what was kept."""
        self.unmount()
        os.replace(self.copy, self.image)
        self.mount()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    try:
        made = Disk(tmp_path)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no disk may be mounted here: {error}")
    with ExitStack() as stack:
        stack.callback(made.unmount)
        yield made


def test_what_a_finished_run_left_was_forced_to_the_disk(smallest: Laboratory, tmp_path: Path) -> None:
    """All but logs, by the system calls of the run."""
    watch = Watch(tmp_path / "run")
    code, log = smallest.watched(watch, tmp_path / "run")
    assert code == 0, log
    assert [name for name in sorted(watch.unsaved) if not is_passing(name)] == []


def test_a_finished_run_outlives_a_loss_of_power(
    smallest: Laboratory, disk: Disk, record_property: Callable[[str, object], None]
) -> None:
    output = disk.root / "run"
    code, log = smallest.run(output)
    assert code == 0, log
    disk.cut()
    disk.restart()
    names = [path.relative_to(output).as_posix() for path in output.rglob("*") if path.is_file()]
    assert [name for name in names if not is_passing(name) and not (output / name).stat().st_size] == []
    code, log = smallest.run(output)
    assert ": dgs " not in log  # no stage begins
    smallest.check(output)
    record_property("fault", "loss of power")


CASES = [
    (stage, share) for stage in ("data", "finetune", "guided/dag-ipc1", "scores/dag-ipc1") for share in (0.3, 0.6, 0.9)
]
SHORT = (("data", 0.3), ("finetune", 0.9))


@pytest.mark.parametrize(
    ("stage", "share"), [pytest.param(*case, marks=[] if case in SHORT else [pytest.mark.matrix]) for case in CASES]
)
def test_a_stage_that_loses_power_is_run_to_its_end(
    smallest: Laboratory, disk: Disk, stage: str, share: float, record_property: Callable[[str, object], None]
) -> None:
    output = smallest.without(stage, disk.root / "run")
    counted = Watch(output)
    smallest.watched(counted, output)
    shutil.rmtree(output)
    smallest.without(stage, output)
    os.sync()
    watch = Watch(output, int(share * len(counted.calls)), Fault(kills=True), at_fault=disk.cut)
    smallest.watched(watch, output)
    disk.restart()
    smallest.check(output)
    record_property("fault", "loss of power")
