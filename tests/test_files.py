import errno
import resource
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dgs_lightning.errors import InputError
from dgs_lightning.files import hide_thread_disk_errors, replacing, write_json, write_tensors, write_text


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


@pytest.mark.parametrize(("number", "printed"), [(errno.ENOSPC, False), (errno.EIO, True)])
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
