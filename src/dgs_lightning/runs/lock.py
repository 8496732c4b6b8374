"""The lock of a folder: one process writes into it at a time, also on file systems without locks."""

import errno
import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypedDict

from dgs_lightning.documents.files import read_json
from dgs_lightning.errors import InputError

HEARTBEAT = 20.0  # seconds between two signs of life of a holder
SILENCE = 6 * HEARTBEAT  # seconds without a sign after which a holder is taken for dead
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


class Holder(TypedDict):
    """The process that holds a folder."""

    host: str
    process: int


@contextmanager
def locked(path: Path, folder: Path | None = None) -> Iterator[str]:
    """Hold the lock of a folder.

    Where the file system has no locks, as often on Lustre and NFS, a second file ``NAME.holder`` says which process on
    which machine holds the folder, and its time of change shows that the process lives.

    Args:
        path: The lock file, which is made where it is missing. It stays.
        folder: The folder, by default the one that the lock file is in.

    Yields:
        One line that says how the folder is held, where it has no locks; else nothing.

    Raises:
        InputError: If another process holds the folder, or the lock file is a link.
    """
    folder = folder or path.parent
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        found, remedy = "a symbolic link", "Remove the link, or give another folder"
        raise InputError(path, found, "a lock file of this program", remedy) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        held = None
    except BlockingIOError:
        raise InputError.busy(folder) from None
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        held = path.with_name(f"{path.name}.holder")
    try:
        if held is None:
            yield ""
        else:
            with _held_by_file(held, folder):
                yield f"{folder}: its file system has no locks; {held.name} says that this process holds it"
    finally:
        os.close(descriptor)


def is_held(path: Path) -> bool:
    """Whether a process holds the lock of this file."""
    if not path.exists():
        return False
    try:
        with locked(path):
            return False
    except InputError:
        return True


@contextmanager
def _held_by_file(path: Path, folder: Path) -> Iterator[None]:
    """Hold a folder by a file that names the holder and is touched as a sign of life."""
    _drop_dead(path)
    try:
        with path.open("x", encoding="utf-8") as file:
            json.dump({"host": socket.gethostname(), "process": os.getpid()}, file)
    except FileExistsError:
        raise InputError.busy(folder, _holder(path)) from None
    ended = threading.Event()

    def touch() -> None:
        while not ended.wait(HEARTBEAT):
            with suppress(OSError):
                os.utime(path)

    thread = threading.Thread(target=touch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        path.unlink(missing_ok=True)


def _drop_dead(path: Path) -> None:
    """Remove the file of a holder that is dead: on this machine it has no process, elsewhere it gives no sign."""
    try:
        silent = time.time() - path.stat().st_mtime > SILENCE
    except FileNotFoundError:
        return
    host, process = _read(path)
    here = host == socket.gethostname()
    if silent or (here and process is not None and not Path("/proc", str(process)).exists()):
        # Under a name of its own first: of two processes that find it, one renames it.
        dead = path.with_name(f"{path.name}.{socket.gethostname()}-{os.getpid()}")
        with suppress(FileNotFoundError):
            os.rename(path, dead)
            dead.unlink()


def _read(path: Path) -> tuple[str | None, int | None]:
    """Host and process that a file names; None where it does not say them."""
    with suppress(InputError):
        held = read_json(path, Holder, "the holder of a lock")
        return held["host"], held["process"]
    return None, None


def _holder(path: Path) -> str:
    host, process = _read(path)
    return f"process {process} on {host}" if host and process else "another process"
