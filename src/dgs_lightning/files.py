"""Files that are written as a whole or not at all, and clear errors where a disk refuses them."""

import errno
import hashlib
import json
import os
import re
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError

from dgs_lightning.errors import BrokenFile, InputError, is_out_of_memory

if TYPE_CHECKING:
    from torch import Tensor

_AGAIN = "and run the same command again: it keeps what is finished"
_FULL = "a disk that has space and may be written to", f"Free space or choose another folder, {_AGAIN}"
_DENIED = "a file or folder that this user may use", f"Change its permissions or choose another folder, {_AGAIN}"
_FAILING = "a disk or file server that works", f"Check the disk and the connection to it, {_AGAIN}"
_NAMES = "a path that this file system can have", f"Choose a folder with a shorter path and fewer links, {_AGAIN}"
_OPEN = "fewer open files", f"Raise the limit of open files ('ulimit -n'), {_AGAIN}"
_MEMORY = "enough memory", f"Free memory or use a machine with more, {_AGAIN}"
REFUSALS = {  # error of the system -> what is expected, and what to do
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), _FULL),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), _DENIED),
    **dict.fromkeys((errno.EIO, errno.ESTALE, errno.ENXIO, errno.ENODEV, errno.EREMOTEIO, errno.EUCLEAN), _FAILING),
    **dict.fromkeys((errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EBUSY, errno.ENOTCONN), _FAILING),
    **dict.fromkeys((errno.ENAMETOOLONG, errno.ELOOP, errno.EMLINK), _NAMES),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), _OPEN),
    errno.ENOMEM: _MEMORY,
}
_LFS = "a git-LFS pointer in place of the file", "Fetch the file itself with 'git lfs pull'"
_PAGE = "a web page in place of the file", "Download the file again: such a page often asks for a login"
STAND_INS = {b"version https://git-lfs": _LFS, b"<!doctype html": _PAGE, b"<html": _PAGE}  # by their first characters
# What a killed process leaves beside the file that it was writing: this program, or safetensors.
_LEFTOVER = re.compile(r"\.([0-9a-f]{16}\.partial|tmp[A-Za-z0-9]{6})")


def refused(where: object, error: BaseException) -> InputError | None:
    """The error of a disk, of permissions or of too little memory as one that says what to do; none for another error.

    Args:
        where: The file at fault.
        error: What the system or a library raised.
    """
    if is_out_of_memory(error):
        return InputError(where, "too little memory", *_MEMORY)
    number = _error_number(error)
    return InputError(where, os.strerror(number).lower(), *REFUSALS[number]) if number in REFUSALS else None


def _error_number(error: BaseException) -> int:
    """The system's number of an error, 0 if it has none; safetensors gives it in the message alone."""
    if isinstance(error, OSError):
        return error.errno or 0
    named = re.search(r"os error (\d+)", str(error)) if isinstance(error, SafetensorError) else None
    return int(named[1]) if named else 0


@contextmanager
def explain_disk_errors(path: Path | None = None) -> Iterator[None]:
    """Turn the error of a disk that refuses a file into an error that says what to do.

    Args:
        path: The file; by default the one that the error names.

    Raises:
        InputError: If the disk is full or fails, or the file may not be used.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        explained = refused(path or getattr(error, "filename", None) or "output", error)
        if explained is None:
            raise
        raise explained from None


@contextmanager
def hide_thread_disk_errors() -> Iterator[None]:
    """Do not print a thread's disk error: the waiting code raises it anyway."""
    before = threading.excepthook

    def hook(thread: threading.ExceptHookArgs) -> None:
        if not isinstance(thread.exc_value, OSError) or refused("output", thread.exc_value) is None:
            before(thread)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = before


def stand_in(path: Path, expected: str) -> BrokenFile | None:
    """The error of a file that is only a pointer of git-LFS, or a web page that came in its place; else none."""
    try:
        with path.open("rb") as file:
            start = file.read(512).lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    except OSError:
        return None
    found = next((what for begin, what in STAND_INS.items() if start.startswith(begin)), None)
    return BrokenFile(path, found[0], expected, found[1]) if found else None


@contextmanager
def reading(path: object, expected: str, remedy: str = "", what: str = "a broken file") -> Iterator[None]:
    """Turn whatever goes wrong while a file is read into one clear error.

    Only a file whose content is wrong is called broken. One that cannot be read for lack of memory or permission, or
    because of the disk, may be whole.

    Args:
        path: The file.
        expected: What it should hold.
        remedy: What to do if it is broken; by default: delete it and make it again.
        what: What a broken file is called.

    Raises:
        InputError: If the file is missing or cannot be read.
        BrokenFile: If its content is wrong.
    """
    try:
        yield
    except InputError:
        raise
    except (FileNotFoundError, NotADirectoryError):
        raise InputError.missing(path, expected) from None
    except IsADirectoryError:
        raise InputError(path, "a folder", expected, "Check the path") from None
    except Exception as error:  # decoders and unpicklers raise all kinds on broken files
        other = stand_in(Path(str(path)), expected)
        raise refused(path, error) or other or InputError.broken(path, error, expected, remedy, what) from None


@contextmanager
def replacing(path: Path, *, durable: bool = False, apart: bool = False) -> Iterator[Path]:
    """A hidden path beside ``path`` to write to. It replaces ``path`` when the block ends without an error.

    What a killed process leaves there is written over by the next one that writes ``path``, and removed by
    :func:`remove_leftovers`.

    Args:
        path: The file to write.
        durable: Wait until the disk has the file and its name, so that it outlives a loss of power.
        apart: Give a path in a hidden folder of its own, for a library that makes temporary files beside its output.

    Raises:
        InputError: If the disk is full or may not be written to.
    """
    # A hash, since a name at the file system's limit has no room for a suffix.
    hidden = path.with_name(f".{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]}.partial")
    partial = hidden / "file" if apart else hidden
    with explain_disk_errors(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if apart:
                _remove(hidden)
                hidden.mkdir()
            yield partial
            if durable:
                force_to_disk(partial)
            os.replace(partial, path)
            if durable:
                force_to_disk(path.parent)
        except BaseException:
            with suppress(OSError):
                _remove(hidden)
            raise
        if apart:
            _remove(hidden)


@contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """An empty hidden folder in another one, for files that are needed until the block ends.

    What a killed process leaves there is removed by the next one that asks for it, and by :func:`remove_leftovers`.

    Raises:
        InputError: If the disk is full or may not be written to.
    """
    hidden, new = folder / f".{'0' * 16}.partial", not folder.exists()
    with explain_disk_errors(folder):
        _remove(hidden)
        hidden.mkdir(parents=True)
        try:
            yield hidden
        finally:
            with suppress(OSError):
                _remove(hidden)
                if new and not any(folder.iterdir()):
                    folder.rmdir()


def remove_leftovers(folder: Path) -> None:
    """Remove the files below a folder that killed processes left while they wrote others. Links are not followed."""
    for parent, folders, names in os.walk(folder):
        for name in filter(_LEFTOVER.fullmatch, [*folders, *names]):
            _remove(Path(parent, name))
        folders[:] = [name for name in folders if not _LEFTOVER.fullmatch(name)]


def _remove(path: Path) -> None:
    """Remove a file, or a folder with all that is in it, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def force_to_disk(path: Path) -> None:
    """Wait until the disk has the content of a file, or the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str, *, durable: bool = False) -> None:
    """Write a UTF-8 file atomically; for ``durable`` see :func:`replacing`."""
    with replacing(path, durable=durable) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, content: object, *, durable: bool = False) -> None:
    """Write JSON atomically, with sorted keys and all digits of every number; for ``durable`` see :func:`replacing`."""
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, indent=2, allow_nan=False) + "\n"
    write_text(path, text, durable=durable)


def write_tensors(
    path: Path, tensors: Mapping[str, "Tensor"], metadata: dict[str, str] | None = None, *, durable: bool = False
) -> None:
    """Write a safetensors file atomically, from any device; for ``durable`` see :func:`replacing`."""
    from safetensors.torch import save_file  # only here: torch is slow to import

    on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with replacing(path, durable=durable, apart=True) as partial:
        partial.touch()
        mode = partial.stat().st_mode
        save_file(on_cpu, partial, metadata)
        partial.chmod(mode)  # safetensors makes files that no other user can read
