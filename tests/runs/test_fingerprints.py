import os
import shutil
from pathlib import Path

import pytest

from dgs_lightning.runs import fingerprints as module
from dgs_lightning.runs.fingerprints import fingerprints, unread_bytes


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of two files, and a cache of this test's own that remembers files at once."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "SETTLED", 0.0)
    for name, content in (("images/cat/1.png", "one"), ("images/dog/1.png", "two")):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return tmp_path / "images"


def of(folder: Path, kind: module.Kind = "content") -> str:
    return fingerprints([str(folder)], kind)[str(folder)]


@pytest.mark.parametrize("kind", ["content", "names"])
def test_a_copy_and_a_new_time_have_the_same_fingerprint(images: Path, tmp_path: Path, kind: module.Kind) -> None:
    before = of(images, kind)
    (images / "cat" / "1.png").touch()
    assert of(images, kind) == before
    assert of(shutil.copytree(images, tmp_path / "elsewhere" / "images"), kind) == before


def test_a_change_that_keeps_size_and_time_changes_the_fingerprint_of_the_content(images: Path) -> None:
    before, names = of(images), of(images, "names")
    replaced, time = images / "cat" / "1.png", (images / "cat" / "1.png").stat().st_mtime_ns
    replaced.unlink()
    replaced.write_text("0ne")  # a new file, often with the same inode
    os.utime(replaced, ns=(time, time))
    assert of(images) != before
    assert of(images, "names") == names


def test_a_renamed_file_changes_the_fingerprint(images: Path) -> None:
    before = of(images), of(images, "names")
    (images / "cat" / "1.png").rename(images / "cat" / "2.png")
    assert of(images) != before[0]
    assert of(images, "names") != before[1]


def test_a_file_is_read_once(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert unread_bytes([str(images)]) == 6
    first = of(images)
    assert unread_bytes([str(images)]) == 0
    monkeypatch.setattr(module, "hash_file", lambda path: pytest.fail(f"{path} is read again"))
    assert of(images) == first


def test_a_file_that_changed_a_moment_ago_is_not_remembered(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of(images)
    monkeypatch.setattr(module, "SETTLED", 3600.0)
    (images / "cat" / "1.png").write_text("new")
    of(images)
    assert unread_bytes([str(images)]) == 3  # its next change may have the same time


@pytest.mark.parametrize("cache", ["file", "broken"])
def test_without_a_usable_cache_all_files_are_read(images: Path, tmp_path: Path, cache: str) -> None:
    before = of(images)
    shutil.rmtree(tmp_path / "cache")
    if cache == "file":
        (tmp_path / "cache").write_text("no folder")
    else:
        (tmp_path / "cache" / "dgs-lightning").mkdir(parents=True)
        (tmp_path / "cache" / "dgs-lightning" / "hashes.sqlite").write_text("no data base")
    assert of(images) == before


def test_progress_is_told_in_bytes(images: Path) -> None:
    told: list[tuple[int, int]] = []
    fingerprints([str(images)], "content", lambda done, total: told.append((done, total)))
    assert told[-1] == (6, 6)


def test_files_behind_links_count_where_links_are_followed(images: Path, tmp_path: Path) -> None:
    shutil.move(images / "cat", tmp_path / "store")
    (images / "cat").symlink_to(tmp_path / "store")
    before, followed = of(images), fingerprints([str(images)], links="follow")
    (tmp_path / "store" / "2.png").write_text("three")
    assert of(images) == before
    assert fingerprints([str(images)], links="follow") != followed
    assert unread_bytes([str(images)], links="follow") == 0
