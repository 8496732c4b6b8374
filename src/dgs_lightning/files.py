"""Files that are written as a whole or not at all, and clear errors where a disk refuses them."""

import errno
import hashlib
import json
import os
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError

from dgs_lightning.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)


@contextmanager
def explain_disk_errors(path: Path | None = None) -> Iterator[None]:
    """Turn the error of a disk that refuses a file into an error that says what to do.

    Args:
        path: The file; by default the one that the error names.

    Raises:
        InputError: If the disk is full or may not be written to.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        number = _error_number(error)
        if number not in REFUSALS:
            raise
        where = path or getattr(error, "filename", None) or "output"
        remedy = "Free space or choose another folder, and run the same command again: it keeps what is finished"
        raise InputError(
            where, os.strerror(number).lower(), "a disk that has space and may be written to", remedy
        ) from None


@contextmanager
def hide_thread_disk_errors() -> Iterator[None]:
    """Do not print a thread's disk error: the waiting code raises it anyway."""
    before = threading.excepthook

    def hook(thread: threading.ExceptHookArgs) -> None:
        if not isinstance(thread.exc_value, OSError) or _error_number(thread.exc_value) not in REFUSALS:
            before(thread)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = before


def _error_number(error: OSError | SafetensorError) -> int:
    """The system's number of an error, 0 if it has none; safetensors gives it in the message alone."""
    if isinstance(error, OSError):
        return error.errno or 0
    named = re.search(r"os error (\d+)", str(error))
    return int(named[1]) if named else 0


@contextmanager
def replacing(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """A hidden path beside ``path`` to write to. It replaces ``path`` when the block ends without an error.

    Args:
        path: The file to write.
        durable: Wait until the disk has the file and its name, so that it outlives a loss of power.

    Raises:
        InputError: If the disk is full or may not be written to.
    """
    # A hash, since a name at the file system's limit has no room for a suffix.
    partial = path.with_name(f".{hashlib.sha256(path.name.encode()).hexdigest()[:16]}.partial")
    with explain_disk_errors(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield partial
            if durable:
                force_to_disk(partial)
            os.replace(partial, path)
            if durable:
                force_to_disk(path.parent)
        except BaseException:
            with suppress(OSError):
                partial.unlink()
            raise


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


def write_tensors(path: Path, tensors: Mapping[str, "Tensor"], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file atomically, from any device."""
    from safetensors.torch import save_file  # only here: torch is slow to import

    on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with replacing(path) as partial:
        save_file(on_cpu, partial, metadata)
