"""The rule for half-finished folders, of which each writer makes use."""

import errno
import os
from pathlib import Path

import pytest

from dgs_lightning.data.cards import write_card
from dgs_lightning.data.folders import IMAGES, read_set
from dgs_lightning.data.unfinished import Unfinished
from dgs_lightning.errors import InputError
from dgs_lightning.files import write_text


def test_a_folder_is_marked_as_long_as_something_is_made_in_it(tmp_path: Path) -> None:
    folder = Unfinished(tmp_path / "new", "scores")
    folder.check_free()
    assert folder.begun() is None
    assert not (tmp_path / "new").exists()
    folder.begin({"steps": 3})
    folder.note(1, ["a", 1])
    again = Unfinished(tmp_path / "new", "scores")
    assert again.begun() == {"steps": 3}
    assert list(again.noted()) == [["a", 1]]
    again.end()
    assert again.begun() is None
    assert list((tmp_path / "new").iterdir()) == []


def test_what_was_begun_as_something_else_is_refused(tmp_path: Path) -> None:
    Unfinished(tmp_path, "scores").begin("key")
    with pytest.raises(InputError, match="found unfinished scores, expected nothing, or latents"):
        Unfinished(tmp_path, "latents").begun()


@pytest.mark.parametrize(
    "name", ["cat/1.png", "dataset.json", "metadata.jsonl", "latents.json", "00000000.safetensors"]
)
def test_files_that_nothing_proves_to_be_ours_are_refused(tmp_path: Path, name: str) -> None:
    write_text(tmp_path / name, "mine")
    with pytest.raises(InputError, match="which this command did not make"):
        Unfinished(tmp_path, "latents").check_free()


def test_logs_and_hidden_files_are_no_hindrance(tmp_path: Path) -> None:
    write_text(tmp_path / "lightning_logs" / "version_0" / "metrics.csv", "")
    write_text(tmp_path / ".git" / "cat.png", "")
    Unfinished(tmp_path, "latents").check_free()


@pytest.mark.parametrize("harm", ["cut", "a letter changed", "another file's text"])
def test_a_line_of_a_journal_that_was_harmed_is_not_used_and_the_others_are(tmp_path: Path, harm: str) -> None:
    folder = Unfinished(tmp_path, "scores")
    folder.begin("key")
    for part in ("first", "second", "third"):
        folder.note(0, part)
    lines = folder.journal(0).read_text().splitlines(keepends=True)
    harmed = {
        "cut": lines[1][:-3] + "\n",
        "a letter changed": lines[1].replace("s", "z", 1),
        "another file's text": "\0{[\n",
    }
    folder.journal(0).write_text(lines[0] + harmed[harm] + lines[2])
    assert list(folder.noted()) == ["first", "third"]
    folder.begin("key", folder.noted())
    folder.note(0, "fourth")
    assert list(folder.noted()) == ["first", "third", "fourth"]


def test_what_was_begun_with_another_key_is_forgotten(tmp_path: Path) -> None:
    folder = Unfinished(tmp_path, "scores")
    folder.begin("one", ["part"])
    folder.begin("two")
    assert folder.begun() == "two"
    assert list(folder.noted()) == []


def test_a_link_in_place_of_the_mark_is_not_followed(tmp_path: Path) -> None:
    write_text(tmp_path / "theirs" / "0.jsonl", "mine")
    (tmp_path / "pool").mkdir()
    (tmp_path / "pool" / ".unfinished").symlink_to(tmp_path / "theirs")
    with pytest.raises(InputError, match="a symbolic link"):
        Unfinished(tmp_path / "pool", "scores").begun()
    assert (tmp_path / "theirs" / "0.jsonl").read_text() == "mine"


def test_unfinished_images_are_no_image_set(tmp_path: Path) -> None:
    write_text(tmp_path / "cat" / "1.png", "an image")
    assert len(read_set(tmp_path)) == 1
    Unfinished(tmp_path, IMAGES).begin("key")
    with pytest.raises(InputError, match="unfinished images"):
        read_set(tmp_path)
    Unfinished(tmp_path / "scored", "scores").begin("key")
    write_text(tmp_path / "scored" / "cat" / "1.png", "an image")
    assert len(read_set(tmp_path / "scored")) == 1


def test_a_journal_that_cannot_be_read_is_no_empty_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Unfinished(tmp_path, "scores")
    folder.begin("key", ["part"])

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(Path, "open", fail)
    with pytest.raises(InputError, match=r"0\.jsonl: found input/output error"):
        list(folder.noted())


def test_a_card_is_no_mark(tmp_path: Path) -> None:
    write_card(tmp_path, {"kind": "scores"})
    assert Unfinished(tmp_path, "scores").begun() is None
