import hashlib
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dgs_lightning.data.cards import CARD, hash_file, hash_files, hash_json, read_card, versions, write_card
from dgs_lightning.data.folders import read_set, scan_images
from dgs_lightning.data.records import MANIFEST, ImageRecord, read_manifest, require_scores, write_manifest
from dgs_lightning.data.writing import write_set
from dgs_lightning.errors import InputError

FIELDS = [field.name for field in fields(ImageRecord)]
MakeSet = Callable[..., Path]


def names(folder: Path) -> list[str]:
    return [record.file_name for record in scan_images(folder)]


# ---- the manifest ------------------------------------------------------------------------------------------------


def test_a_manifest_comes_back_as_it_was_written_in_order_of_file_names(tmp_path: Path) -> None:
    full = ImageRecord("b/1.png", "b", "bee", 1, 2**62, 0.1 + 0.2, "net@1", "a", 3, {"kept": [1, None], "also": "é"})
    write_manifest(tmp_path, [full, ImageRecord("a/é 字.png", "a")])
    assert read_manifest(tmp_path) == [ImageRecord("a/é 字.png", "a"), full]


def test_a_line_names_file_and_label_first_and_leaves_out_what_is_unknown(tmp_path: Path) -> None:
    write_manifest(tmp_path, [ImageRecord("a/1.png", "a", difficulty=1 / 3, extra={"z": 1, "b": "é"})])
    expected = '{"file_name": "a/1.png", "label": "a", "difficulty": 0.3333333333333333, "b": "é", "z": 1}\n'
    assert (tmp_path / MANIFEST).read_text(encoding="utf-8") == expected


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"file_name": "a/2.png", "lab', "truncated"),
        ("[1]", "list"),
        ("", "truncated"),
        ("\x00\x01", "truncated"),
        ('{"label": "a"}', "file_name"),
        ('{"file_name": "a/2.png"}', "label"),
        ('{"file_name": 3, "label": "a"}', "file_name"),
        ('{"file_name": "a/1.png", "label": "a"}', "second line"),
        ('{"file_name": "./a//1.png", "label": "a"}', "second line"),
        ('{"file_name": "/etc/passwd", "label": "a"}', "leaves the folder"),
        ('{"file_name": "../x.png", "label": "a"}', "leaves the folder"),
        ('{"file_name": "a/../../x.png", "label": "a"}', "leaves the folder"),
        ('{"file_name": "a/..", "label": "a"}', "leaves the folder"),
        ('{"file_name": ".", "label": "a"}', "leaves the folder"),
        ('{"file_name": "a/\\u0000.png", "label": "a"}', "file_name"),
        ('{"file_name": "a/2.png", "label": ".."}', "class folder"),
        ('{"file_name": "a/2.png", "label": "a/../../b"}', "class folder"),
        ('{"file_name": "a/2.png", "label": ".cat"}', "begins with a dot"),
        ('{"file_name": "a/2.png", "label": 7}', "class folder"),
        ('{"file_name": "a/2.png", "label": "a", "difficulty": 1.5}', "difficulty"),
        ('{"file_name": "a/2.png", "label": "a", "difficulty": NaN}', "difficulty"),
        ('{"file_name": "a/2.png", "label": "a", "difficulty": "0.5"}', "difficulty"),
        ('{"file_name": "a/2.png", "label": "a", "difficulty": true}', "difficulty"),
        ('{"file_name": "a/2.png", "label": "a", "index": 1.5}', "index"),
        ('{"file_name": "a/2.png", "label": "a", "seed": -1}', "seed"),
        ('{"file_name": "a/2.png", "label": "a", "interval": true}', "interval"),
        ('{"file_name": "a/2.png", "label": "a", "estimator": 5}', "estimator"),
        ("[" * 100_000, "nested"),
        ('{"file_name": "a/\\ud800.png", "label": "a"}', "surrogates"),
    ],
)
def test_a_broken_line_is_named_with_its_number(tmp_path: Path, line: str, problem: str) -> None:
    (tmp_path / MANIFEST).write_text('{"file_name": "a/1.png", "label": "a"}\n' + line + "\n", encoding="utf-8")
    with pytest.raises(InputError, match=f"line 2: .*{problem}") as error:
        read_manifest(tmp_path)
    assert str(tmp_path / MANIFEST) in str(error.value)


PATHS = st.lists(st.text(min_size=1).filter(lambda p: "/" not in p and "\0" not in p), min_size=1, max_size=3)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
LINES = st.dictionaries(st.sampled_from(FIELDS), SCALARS | st.lists(SCALARS, max_size=2))
on_a_busy_machine = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@on_a_busy_machine
@given(line=st.binary() | LINES.map(lambda line: json.dumps(line).encode()))
def test_any_line_is_a_record_or_an_input_error(tmp_path_factory: pytest.TempPathFactory, line: bytes) -> None:
    folder = tmp_path_factory.mktemp("set")
    (folder / MANIFEST).write_bytes(line)
    with suppress(InputError):
        for record in read_manifest(folder):
            assert (folder / record.file_name).resolve().is_relative_to(folder.resolve())


@on_a_busy_machine
@given(
    parts=PATHS.filter(lambda parts: not {".", ".."} & set(parts) and not parts[0].startswith(".")),
    difficulty=st.none() | st.floats(0, 1),
    seed=st.none() | st.integers(0, 2**64 - 1),
    words=st.none() | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
)
def test_any_record_comes_back_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory,
    parts: list[str],
    difficulty: float | None,
    seed: int | None,
    words: str | None,
) -> None:
    folder = tmp_path_factory.mktemp("set")
    record = ImageRecord("/".join(parts), parts[0], words, None, seed, difficulty, words, extra={"x": words})
    write_manifest(folder, [record])
    assert read_manifest(folder) == [record]


def test_text_that_is_not_utf8_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_bytes(b'{"file_name": "\xff.png", "label": "a"}\n')
    with pytest.raises(InputError, match="not UTF-8"):
        read_manifest(tmp_path)


def test_a_folder_without_a_manifest_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=MANIFEST):
        read_manifest(tmp_path)


@pytest.mark.parametrize("value", [float("nan"), [float("inf")]])
def test_numbers_that_are_not_finite_are_not_written(tmp_path: Path, value: object) -> None:
    with pytest.raises(ValueError, match="finite"):
        write_manifest(tmp_path, [ImageRecord("a/1.png", "a", extra={"x": value})])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_manifest_of_a_million_lines_reads_in_a_gigabyte(tmp_path: Path) -> None:
    lines = (
        f'{{"file_name": "n{i % 1000:08d}/{i:07d}.png", "label": "n{i % 1000:08d}", "index": {i}, '
        f'"difficulty": {i / 1e6}, "estimator": "torchvision:resnet50@0123456789ab"}}\n'
        for i in range(1_000_000)
    )
    with (tmp_path / MANIFEST).open("w", encoding="utf-8") as file:
        file.writelines(lines)
    code = (
        "import sys, pathlib; from dgs_lightning.data.records import read_manifest;"
        "print(len(read_manifest(pathlib.Path(sys.argv[1]))))"
    )
    arguments = [sys.executable, "-c", code, str(tmp_path)]
    limit = (2**30, 2**30)
    done = subprocess.run(
        arguments, capture_output=True, text=True, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, limit)
    )
    assert done.stdout.strip() == "1000000", done.stderr


# ---- folders of images -------------------------------------------------------------------------------------------


def test_a_tree_is_scanned_by_class_folders_in_order_of_names(make_set: MakeSet) -> None:
    folder = make_set("tree", {"dog": ["2.PNG", "1.jpg"], "cat": ["1.png"], "cat/young": ["1.png"]})
    (folder / "dog" / "notes.txt").write_text("no image")
    (folder / "dog" / ".hidden.png").write_text("no image")
    (folder / "loose.png").write_text("in no class folder")
    records = scan_images(folder)
    assert [r.file_name for r in records] == ["cat/1.png", "cat/young/1.png", "dog/1.jpg", "dog/2.PNG"]
    assert [r.label for r in records] == ["cat", "cat", "dog", "dog"]


def test_unicode_and_very_long_names_are_names_like_others(make_set: MakeSet, tmp_path: Path) -> None:
    long = "x" * 251 + ".png"
    folder = make_set("tree", {"犬 ñ": ["été '\"\n.png", long], "b": ["b\\c.png"]})
    records = read_set(folder)
    write_manifest(folder, records)
    assert read_set(folder) == records
    write_set(folder, records, tmp_path / "out", {"kind": "distilled"})
    assert names(tmp_path / "out") == names(folder)


@pytest.mark.parametrize("empty", ["missing", "empty", "no images"])
def test_a_folder_without_images_is_an_input_error(tmp_path: Path, empty: str) -> None:
    folder = tmp_path / "tree"
    if empty != "missing":
        folder.mkdir()
    if empty == "no images":
        (folder / "cat").mkdir()
        (folder / "cat" / "readme.txt").write_text("no image")
    with pytest.raises(InputError, match=str(folder)):
        scan_images(folder)


@pytest.mark.parametrize("target", ["file outside", "folder outside", "folder inside", "itself"])
def test_links_out_of_the_tree_and_to_folders_are_refused(make_set: MakeSet, tmp_path: Path, target: str) -> None:
    folder = make_set("tree", {"cat": ["1.png"]})
    outside = make_set("outside", {"dog": ["1.png"]})
    link = folder / "cat" / "link.png"
    targets = {
        "file outside": outside / "dog" / "1.png",
        "folder outside": outside / "dog",
        "folder inside": folder,
        "itself": link,
    }
    link.symlink_to(targets[target])
    with pytest.raises(InputError, match=r"link\.png"):
        scan_images(folder)


def test_links_within_the_tree_are_images_like_others(make_set: MakeSet) -> None:
    folder = make_set("tree", {"cat": ["1.png"]})
    (folder / "cat" / "2.png").symlink_to("1.png")
    assert names(folder) == ["cat/1.png", "cat/2.png"]


def test_names_that_are_not_utf8_are_refused(make_set: MakeSet) -> None:
    folder = make_set("tree", {"cat": ["1.png"]})
    Path(os.fsdecode(os.fsencode(folder / "cat") + b"/\xff.png")).write_bytes(b"")
    with pytest.raises(InputError, match="UTF-8"):
        scan_images(folder)


def test_a_manifest_gives_labels_where_folders_do_not(make_set: MakeSet) -> None:
    folder = make_set("flat", {"images": ["1.png", "2.png"]})
    records = [ImageRecord("images/1.png", "cat"), ImageRecord("images/2.png", "dog")]
    write_manifest(folder, records)
    assert read_set(folder) == records


@pytest.mark.parametrize(("listed", "problem"), [(["1", "2", "3"], "missing images"), (["1"], "manifest lacks")])
def test_a_manifest_must_fit_the_files(make_set: MakeSet, listed: list[str], problem: str) -> None:
    folder = make_set("tree", {"cat": ["1.png", "2.png"]})
    write_manifest(folder, [ImageRecord(f"cat/{name}.png", "cat") for name in listed])
    with pytest.raises(InputError, match=problem):
        read_set(folder)


# ---- scores ------------------------------------------------------------------------------------------------------


def scored(records: list[ImageRecord], estimator: str) -> list[ImageRecord]:
    return [replace(r, difficulty=i / 10, estimator=estimator, predicted="dog") for i, r in enumerate(records)]


def test_scores_of_a_folder_replace_the_sets_own(make_set: MakeSet, tmp_path: Path) -> None:
    folder = make_set("tree", {"cat": ["1.png", "2.png"]})
    records = scan_images(folder)
    write_manifest(folder, scored(records, "old"))
    write_manifest(tmp_path / "scores", scored(records, "new")[1:])
    first, second = read_set(folder, tmp_path / "scores")
    assert (first.difficulty, first.estimator) == (None, None)
    assert (second.difficulty, second.estimator, second.predicted) == (0.1, "new", "dog")


def test_scores_of_other_images_or_labels_are_an_input_error(make_set: MakeSet, tmp_path: Path) -> None:
    folder = make_set("tree", {"cat": ["1.png"]})
    write_manifest(tmp_path / "scores", [ImageRecord("cat/1.png", "dog", difficulty=0.5)])
    with pytest.raises(InputError, match="label 'dog'"):
        read_set(folder, tmp_path / "scores")
    write_manifest(tmp_path / "scores", [ImageRecord("cat/1.png", "cat"), ImageRecord("cat/9.png", "cat")])
    with pytest.raises(InputError, match=r"cat/9\.png"):
        read_set(folder, tmp_path / "scores")


def test_scores_that_lost_whole_lines_are_an_input_error(make_set: MakeSet, tmp_path: Path) -> None:
    folder, scores = make_set("tree", {"cat": ["1.png", "2.png"]}), tmp_path / "scores"
    write_manifest(scores, scored(scan_images(folder), "net@1"))
    write_card(scores, {"images": 2})
    assert len(read_set(folder, scores)) == 2
    (scores / MANIFEST).write_text((scores / MANIFEST).read_text().splitlines(keepends=True)[0])
    with pytest.raises(InputError, match=r"scores/metadata\.jsonl: found 1 of 2 lines, expected a line for each"):
        read_set(folder, scores)


def test_a_scored_set_names_its_one_estimator(make_set: MakeSet) -> None:
    folder = make_set("tree", {"cat": ["1.png", "2.png"]})
    records = scored(scan_images(folder), "net@1")
    assert require_scores(records, folder) == "net@1"
    with pytest.raises(InputError, match="1 of 2 images without"):
        require_scores([records[0], replace(records[1], difficulty=None)], folder)
    with pytest.raises(InputError, match="1 of 2 images without"):
        require_scores([records[0], replace(records[1], estimator=None)], folder)
    with pytest.raises(InputError, match="net@1, other"):
        require_scores([records[0], replace(records[1], estimator="other")], folder)
    with pytest.raises(InputError, match="0 of 0"):
        require_scores([], folder)


# ---- cards, hashes, atomic files ---------------------------------------------------------------------------------


def test_a_card_comes_back_as_it_was_written(tmp_path: Path) -> None:
    card = {"name": "é", "images": 3, "settings": {"scale": 0.1 + 0.2}}
    write_card(tmp_path, card)
    assert read_card(tmp_path) == card
    assert list(json.loads((tmp_path / CARD).read_text(encoding="utf-8"))) == ["images", "name", "settings"]
    assert read_card(tmp_path / "elsewhere") == {}


@pytest.mark.parametrize("text", ["[]", '{"name": ', "[" * 100_000])
def test_a_broken_card_is_an_input_error(tmp_path: Path, text: str) -> None:
    (tmp_path / CARD).write_text(text)
    with pytest.raises(InputError, match=CARD):
        read_card(tmp_path)


def test_hashes_are_those_of_sha256(tmp_path: Path) -> None:
    path = tmp_path / "abc"
    path.write_bytes(b"abc")
    assert hash_file(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert hash_json({"b": 1, "a": [2]}) == hash_json({"a": [2], "b": 1}) != hash_json({"a": [2], "b": 2})


def test_the_hash_of_images_is_that_of_their_lines_in_order_of_names(
    make_set: MakeSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dgs_lightning.data.cards.HASHED_AT_ONCE", 2)
    folder = make_set("tree", {"cat": ["3.png", "1.png"], "dog": ["4.png", "2.png", "0.png"]})
    records = scan_images(folder)
    lines = [json.dumps([r.file_name, r.label, hash_file(folder / r.file_name)]) for r in records]
    assert hash_files(folder, records) == hashlib.sha256("".join(lines).encode()).hexdigest()


def test_the_hash_of_images_depends_on_names_labels_and_bytes_and_not_on_order(make_set: MakeSet) -> None:
    folder = make_set("tree", {"cat": ["1.png", "2.png"]})
    records = scan_images(folder)
    before = hash_files(folder, records)
    assert hash_files(folder, records[::-1]) == before
    assert hash_files(folder, [replace(records[0], label="dog"), records[1]]) != before
    assert hash_files(folder, records[:1]) != before
    (folder / "cat" / "1.png").write_bytes(b"other")
    assert hash_files(folder, records) != before


def test_versions_name_what_results_depend_on() -> None:
    assert {"python", "torch", "lightning", "dgs-lightning", "pillow"} <= versions().keys()
