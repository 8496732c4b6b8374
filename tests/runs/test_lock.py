import errno
import fcntl
import json
import os
import socket
import time
from pathlib import Path

import pytest

from dgs_lightning.errors import InputError
from dgs_lightning.runs.lock import SILENCE, locked


@pytest.fixture(params=[errno.ENOLCK, errno.EOPNOTSUPP])
def no_locks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system without locks, as Lustre and NFS often are."""

    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "flock", refuse)


def test_a_folder_has_one_holder(tmp_path: Path) -> None:
    with locked(tmp_path / ".lock") as how:
        assert how == ""
        with pytest.raises(InputError, match="another run that writes into it"), locked(tmp_path / ".lock"):
            pass
    with locked(tmp_path / ".lock"):
        pass


@pytest.mark.usefixtures("no_locks")
def test_without_locks_a_file_names_the_holder(tmp_path: Path) -> None:
    with locked(tmp_path / ".lock") as how:
        assert "has no locks" in how
        content = json.loads((tmp_path / ".lock.holder").read_text())
        assert content == {"host": socket.gethostname(), "process": os.getpid()}
        busy = f"another run that writes into it .process {os.getpid()} on "
        with pytest.raises(InputError, match=busy), locked(tmp_path / ".lock"):
            pass
    assert not (tmp_path / ".lock.holder").exists()


@pytest.mark.usefixtures("no_locks")
@pytest.mark.parametrize(
    ("holder", "silent", "free"),
    [
        ({"host": "elsewhere", "process": 1}, False, False),  # another machine that gives signs of life
        ({"host": "elsewhere", "process": 1}, True, True),
        ({"host": socket.gethostname(), "process": 2**22 + 1}, False, True),  # no such process here
        ({"host": socket.gethostname(), "process": os.getpid()}, False, False),
        (None, False, False),  # a holder that has not written its name yet
    ],
)
def test_without_locks_a_dead_holder_is_followed(tmp_path: Path, holder: object, silent: bool, free: bool) -> None:
    path = tmp_path / ".lock.holder"
    path.write_text("" if holder is None else json.dumps(holder))
    if silent:
        os.utime(path, (time.time() - SILENCE - 1,) * 2)
    if free:
        with locked(tmp_path / ".lock"):
            assert json.loads(path.read_text())["process"] == os.getpid()
    else:
        with pytest.raises(InputError, match="another run"), locked(tmp_path / ".lock"):
            pass
        assert path.exists()


def test_a_link_in_place_of_the_lock_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / ".lock").symlink_to(tmp_path / "mine.txt")
    with pytest.raises(InputError, match=r"\.lock: found a symbolic link"), locked(tmp_path / ".lock"):
        pass
    assert (tmp_path / "mine.txt").read_text() == "mine"
