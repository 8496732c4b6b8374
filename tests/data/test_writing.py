from collections.abc import Callable
from pathlib import Path

import pytest

from dgs_lightning.data.cards import hash_files, read_card, write_card
from dgs_lightning.data.folders import read_set, scan_images
from dgs_lightning.data.records import ImageRecord
from dgs_lightning.data.unfinished import Unfinished
from dgs_lightning.data.writing import is_intact, write_set
from dgs_lightning.errors import InputError
from dgs_lightning.files import write_text

MakeSet = Callable[..., Path]


def names(folder: Path) -> list[str]:
    return [record.file_name for record in scan_images(folder)]


def files_below(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_written_set_has_the_same_bytes_in_class_folders(make_set: MakeSet, tmp_path: Path) -> None:
    source = make_set("flat", {"images": ["1.png", "2.jpg"]})
    records = [ImageRecord("images/1.png", "cat", index=4), ImageRecord("images/2.jpg", "dog", difficulty=0.25)]
    write_set(source, records, tmp_path / "out", {"kind": "distilled", "hashes": {"pool": "abc"}})
    written = read_set(tmp_path / "out")
    assert written == [
        ImageRecord("cat/images/1.png", "cat", index=4),
        ImageRecord("dog/images/2.jpg", "dog", difficulty=0.25),
    ]
    for before, after in zip(records, written, strict=True):
        assert (source / before.file_name).read_bytes() == (tmp_path / "out" / after.file_name).read_bytes()
    hashes = {"images": hash_files(tmp_path / "out", written), "pool": "abc"}
    assert read_card(tmp_path / "out") == {"kind": "distilled", "images": 2, "hashes": hashes}
    assert is_intact(tmp_path / "out")


def test_the_same_set_again_leaves_the_folder_alone_and_another_replaces_it(make_set: MakeSet, tmp_path: Path) -> None:
    source, out = make_set("tree", {"cat": ["1.png", "2.png"]}), tmp_path / "out"
    records = scan_images(source)
    write_set(source, records, out, {"kind": "distilled"})
    first, inode = files_below(out), out.stat().st_ino
    write_set(source, records[::-1], out, {"kind": "distilled"})
    assert (files_below(out), out.stat().st_ino) == (first, inode)
    write_set(source, records[:1], out, {"kind": "distilled"})
    assert names(out) == ["cat/1.png"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "tree"]


def test_a_damaged_set_is_written_again(make_set: MakeSet, tmp_path: Path) -> None:
    source, out = make_set("tree", {"cat": ["1.png"]}), tmp_path / "out"
    write_set(source, scan_images(source), out, {"kind": "distilled"})
    before = files_below(out)
    (out / "cat" / "1.png").write_bytes(b"broken")
    assert not is_intact(out)
    write_set(source, scan_images(source), out, {"kind": "distilled"})
    assert files_below(out) == before


def test_an_interrupted_writing_leaves_nothing_in_the_way(make_set: MakeSet, tmp_path: Path) -> None:
    source, out = make_set("tree", {"cat": ["1.png"]}), tmp_path / "out"
    missing = [*scan_images(source), ImageRecord("cat/gone.png", "cat")]
    with pytest.raises(FileNotFoundError):
        write_set(source, missing, out, {"kind": "distilled"})
    assert not out.exists()
    write_set(source, scan_images(source), out, {"kind": "distilled"})
    assert names(out) == ["cat/1.png"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "tree"]


@pytest.mark.parametrize(
    "place", ["other files", "a file", "another kind", "the source", "above the source", "in the source"]
)
def test_writing_never_replaces_what_it_did_not_make(make_set: MakeSet, tmp_path: Path, place: str) -> None:
    source = make_set("data/tree", {"cat": ["1.png"]})
    write_card(source, {"kind": "distilled"})
    other = tmp_path / "other"
    if place == "a file":
        other.write_text("mine")
    elif place == "another kind":
        write_card(other, {"kind": "pool"})
    elif place == "other files":
        write_text(other / "thesis.txt", "mine")
    around = {"the source": source, "above the source": source.parent, "in the source": source / "out"}
    out = around.get(place, other)
    before = files_below(tmp_path)
    with pytest.raises(InputError, match="Name another folder"):
        write_set(source, scan_images(source), out, {"kind": "distilled"})
    assert files_below(tmp_path) == before


def test_two_images_of_one_name_in_a_class_are_not_written(make_set: MakeSet, tmp_path: Path) -> None:
    source = make_set("tree", {"cat": ["1.png"]})
    records = [ImageRecord("cat/1.png", "cat"), ImageRecord("1.png", "cat")]
    with pytest.raises(InputError, match="Rename"):
        write_set(source, records, tmp_path / "out", {"kind": "distilled"})


def test_a_set_is_replaced_whole_or_not_at_all_whenever_it_is_killed(
    make_set: MakeSet, tmp_path: Path, killed_at_changes: Callable[..., list[int]]
) -> None:
    source = make_set("tree", {"cat": ["1.png"], "dog": ["2.png"]})
    records = scan_images(source)

    def write(number: int, chosen: list[ImageRecord]) -> None:
        beside = {"report.json": lambda folder: write_text(folder / "report.json", f"{len(chosen)}")}
        write_set(source, chosen, tmp_path / str(number) / "out", {"kind": "distilled"}, beside)

    def folder_with_an_old_set(number: int) -> Path:
        write(number, records[:1])
        return tmp_path / str(number)

    write(0, records)
    kills = killed_at_changes(folder_with_an_old_set, lambda number: write(number, records))
    assert len(kills) > 6
    for number in kills:
        assert files_below(tmp_path / str(number)) == files_below(tmp_path / "0")


@pytest.mark.parametrize("place", [".out.partial", ".out.replaced"])
@pytest.mark.parametrize("what", ["other files", "a link"])
def test_a_hidden_folder_beside_a_set_is_removed_only_if_it_is_ours(
    make_set: MakeSet, tmp_path: Path, place: str, what: str
) -> None:
    source, out = make_set("tree", {"cat": ["1.png"]}), tmp_path / "out"
    theirs = tmp_path / ("theirs" if what == "a link" else place)
    write_text(theirs / "cat" / "mine.png", "mine")
    if what == "a link":
        (tmp_path / place).symlink_to(theirs)
    with pytest.raises(InputError, match=r"which this command did not make|a link"):
        write_set(source, scan_images(source), out, {"kind": "distilled"})
    assert (theirs / "cat" / "mine.png").read_text() == "mine"


def test_a_set_with_files_of_the_user_in_it_is_not_replaced(make_set: MakeSet, tmp_path: Path) -> None:
    source, out = make_set("tree", {"cat": ["1.png"], "dog": ["2.png"]}), tmp_path / "out"
    write_set(source, scan_images(source)[:1], out, {"kind": "distilled"})
    write_text(out / "notes.txt", "mine")
    with pytest.raises(InputError, match=r"found notes\.txt"):
        write_set(source, scan_images(source), out, {"kind": "distilled"})
    assert (out / "notes.txt").read_text() == "mine"


def test_a_set_that_lost_its_card_is_replaced_where_a_run_vouches_for_it(make_set: MakeSet, tmp_path: Path) -> None:
    source, out = make_set("tree", {"cat": ["1.png"]}), tmp_path / "out"
    write_set(source, scan_images(source), out, {"kind": "distilled"})
    whole = files_below(out)
    (out / "dataset.json").unlink()
    with pytest.raises(InputError, match="found other files"):
        write_set(source, scan_images(source), out, {"kind": "distilled"})
    Unfinished(out, "distilled/out").adopt({})
    write_set(source, scan_images(source), out, {"kind": "distilled"})
    assert files_below(out) == whole
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "tree"]
