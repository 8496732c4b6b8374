import errno
import os
import resource
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from dgs_lightning.errors import BrokenFile, InputError
from dgs_lightning.files import (
    hide_thread_disk_errors,
    reading,
    remove_leftovers,
    replacing,
    write_json,
    write_tensors,
    write_text,
)


def fail_after_half_of(path: Path) -> None:
    with replacing(path) as partial:
        partial.write_text("half a fi")
        raise RuntimeError


def files_below(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def little_space() -> Iterator[None]:
    """A limit of 1,000 bytes a file."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limit[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limit)


def test_a_file_is_replaced_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "f.json"
    write_json(path, {"b": 1, "a": "é"})
    before = path.read_text(encoding="utf-8")
    assert before == '{\n  "a": "é",\n  "b": 1\n}\n'
    with pytest.raises(RuntimeError):
        fail_after_half_of(path)
    assert files_below(tmp_path) == {"f.json": before.encode()}


def test_a_name_at_the_limit_of_the_file_system_can_be_written(tmp_path: Path) -> None:
    write_text(tmp_path / ("n" * 255), "text")
    assert (tmp_path / ("n" * 255)).read_text() == "text"


@pytest.mark.parametrize(
    "write",
    [
        lambda path: write_text(path, "x" * 10_000),
        lambda path: write_tensors(path, {"weight": torch.zeros(10_000)}),
    ],
    ids=["text", "tensors"],
)
def test_a_full_disk_is_explained_and_leaves_what_was_there(
    tmp_path: Path, little_space: None, write: Callable[[Path], None]
) -> None:
    path = tmp_path / "file"
    write_text(path, "old")
    with pytest.raises(InputError, match=r"file: found file too large, .*Free space"):
        write(path)
    assert files_below(tmp_path) == {"file": b"old"}


def test_tensors_come_back_whatever_their_layout(tmp_path: Path) -> None:
    tensor = torch.arange(6.0, requires_grad=True).reshape(2, 3).T
    write_tensors(tmp_path / "folder" / "t.safetensors", {"t": tensor}, {"key": "k"})
    assert torch.equal(load_file(tmp_path / "folder" / "t.safetensors")["t"], tensor)


@pytest.mark.parametrize(("number", "printed"), [(errno.ENOSPC, False), (errno.EIO, False), (errno.EBADF, True)])
def test_the_disk_error_of_a_thread_is_not_printed(
    number: int, printed: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def write() -> None:
        raise OSError(number, "no")

    monkeypatch.setattr(threading, "excepthook", threading.__excepthook__)  # without pytest's own
    with hide_thread_disk_errors():
        thread = threading.Thread(target=write)
        thread.start()
        thread.join()
    assert ("Traceback" in capsys.readouterr().err) is printed
    assert threading.excepthook is threading.__excepthook__


def raise_(error: Exception) -> None:
    raise error


GOOD = {  # what may keep a whole file from being read, and what the message names
    "permission": (PermissionError(errno.EACCES, "no"), "permission denied, .*Change its permissions"),
    "not permitted": (OSError(errno.EPERM, "no"), "operation not permitted, .*Change its permissions"),
    "input/output": (OSError(errno.EIO, "no"), "input/output error, .*Check the disk"),
    "stale": (OSError(errno.ESTALE, "no"), "stale file handle, .*Check the disk"),
    "safetensors": (
        SafetensorError("I/O error: Input/output error (os error 5)"),
        "input/output error, .*Check the disk",
    ),
    "many files": (OSError(errno.EMFILE, "no"), "too many open files, .*Raise the limit"),
    "long": (OSError(errno.ENAMETOOLONG, "no"), "file name too long, .*shorter path"),
    "memory": (MemoryError(), "too little memory"),
    "memory of the system": (OSError(errno.ENOMEM, "no"), "too little memory"),
    "memory of torch": (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "too little memory"),
    "memory of Pillow": (OSError("out of memory error when reading image file"), "too little memory"),
}


@pytest.mark.parametrize("kind", GOOD)
def test_a_file_that_may_be_whole_is_not_called_broken(kind: str) -> None:
    error, message = GOOD[kind]
    with pytest.raises(InputError, match=f"^f: found {message}") as caught, reading("f", "a card", "Delete it"):
        raise error
    assert not isinstance(caught.value, BrokenFile)
    assert "Delete" not in str(caught.value)


@pytest.mark.parametrize("error", [ValueError("cut off"), OSError("truncated"), RuntimeError("no archive"), EOFError()])
def test_a_file_with_wrong_content_is_called_broken(error: Exception) -> None:
    with pytest.raises(BrokenFile, match=r"f: found a broken file \(.*Delete it"), reading("f", "a card", "Delete it"):
        raise error


NUMBERS = (
    *("ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EACCES", "EPERM", "EIO", "ESTALE", "ENOTSUP", "EOPNOTSUPP", "ENOLCK"),
    *("ENXIO", "EMFILE", "ENFILE", "ENAMETOOLONG", "ELOOP", "ENOMEM"),
)


@pytest.mark.parametrize("name", NUMBERS)
def test_each_refusal_of_a_disk_is_explained_with_its_own_remedy(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = getattr(errno, name)
    monkeypatch.setattr(os, "replace", lambda *_: raise_(OSError(number, os.strerror(number))))
    with pytest.raises(InputError) as caught:
        write_text(tmp_path / "f", "text")
    assert ("Free space" in str(caught.value)) == (name in ("ENOSPC", "EDQUOT", "EFBIG"))
    assert "run the same command again" in str(caught.value)


def test_what_killed_writers_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    ours = (".0123456789abcdef.partial", "cat/.0123456789abcdef.partial/.tmpAb3dE6", "cat/.tmpAb3dE6")
    theirs = ("cat/1.png", ".tmp", ".tmpfile", "cat/.partial", "other.partial", ".git/config")
    for name in (*ours, *theirs):
        write_text(tmp_path / name, "text")
    (tmp_path / "cat" / "link").symlink_to(tmp_path.parent)
    remove_leftovers(tmp_path)
    assert sorted(name for name in theirs if (tmp_path / name).is_file()) == sorted(theirs)
    assert not any((tmp_path / name).exists() for name in ours)


def test_tensors_are_written_apart_and_what_a_killed_writer_left_of_them_is_removed(
    tmp_path: Path, killed_before_change: Callable[..., bool]
) -> None:
    path = tmp_path / "t.safetensors"
    assert killed_before_change(5, tmp_path, lambda: write_tensors(path, {"t": torch.zeros(2)}))  # the renaming
    assert len(list(tmp_path.iterdir())) == 1  # what it left
    write_tensors(path, {"t": torch.ones(2)})
    assert [p.name for p in tmp_path.iterdir()] == ["t.safetensors"]


def test_others_may_read_tensors_as_they_may_read_other_files(tmp_path: Path) -> None:
    write_text(tmp_path / "text", "text")
    write_tensors(tmp_path / "t.safetensors", {"t": torch.zeros(2)})
    assert (tmp_path / "t.safetensors").stat().st_mode == (tmp_path / "text").stat().st_mode
