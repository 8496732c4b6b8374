from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import pytest

from dgs_lightning.bounds import Between
from dgs_lightning.documents.files import parse_line, read_json, read_yaml
from dgs_lightning.documents.shapes import FolderName, check_shape, words
from dgs_lightning.documents.texts import Unreadable, parse_json, parse_yaml
from dgs_lightning.errors import InputError
from dgs_lightning.files import write_json


class Part(TypedDict):
    """A mapping in a mapping."""

    size: Annotated[int, Between(1, 8)]
    kind: NotRequired[Literal["a", "b"]]


class Whole(TypedDict, total=False):
    """A mapping with all kinds of values."""

    name: str
    part: Part | None
    pairs: list[tuple[float, str]]
    counts: dict[str, int]
    flag: bool
    anything: Any


def test_a_json_object_is_read_or_its_default_where_there_is_no_file(tmp_path: Path) -> None:
    write_json(tmp_path / "f.json", {"name": "x", "other": 1})
    assert read_json(tmp_path / "f.json", Whole, "a card") == {"name": "x", "other": 1}
    assert read_json(tmp_path / "none.json", Whole, "a card", default={}) == {}
    with pytest.raises(InputError, match=r"none.json: found no such file or folder, expected a card"):
        read_json(tmp_path / "none.json", Whole, "a card")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"[1]", r": found a broken file \(a list\), expected a card"),
        (b'{"name": ', ": line 1: found Expecting value, expected JSON"),
        (b"\xff", r": found a broken file \('utf-8' codec can't decode"),
        (b"[" * 100_000, r": found a broken file \(more than 100 lists or mappings in each other\)"),
        (b'{"part": {"size": 9}}', ": part.size: found 9, expected a whole number, at least 1, at most 8"),
        (b'{"part": {}}', ": part.size: found nothing, expected a whole number"),
        (b'{"part": []}', ": part: found a list, expected a mapping or null"),
        (b'{"part": {"size": 1, "kind": "c"}}', ": part.kind: found 'c', expected one of a, b"),
        (b'{"pairs": [[1, "x"], [2]]}', r": pairs\[1\]: found 1 values, expected 2 values"),
        (b'{"pairs": [[1, "x"], [true, "y"]]}', r": pairs\[1\]\[0\]: found True, expected a number"),
        (b'{"counts": {"a": 1, "b": 1.0}}', ": counts.b: found 1.0, expected a whole number"),
        (b'{"flag": 1}', ": flag: found 1, expected true or false"),
        (b'{"anything": [{"deep": NaN}]}', r": anything\[0\].deep: found nan, expected a finite number"),
        (b'{"anything": 18446744073709551616}', ": anything: found a number with too many digits"),
    ],
    ids=lambda value: "" if isinstance(value, str) else value[:30].decode(errors="replace"),
)
def test_a_broken_json_file_is_an_error_with_the_place_that_says_what_to_do(
    tmp_path: Path, content: bytes, problem: str
) -> None:
    (tmp_path / "f.json").write_bytes(content)
    with pytest.raises(InputError, match=rf"f\.json{problem}.*\. Mend it\."):
        read_json(tmp_path / "f.json", Whole, "a card", "Mend it", default={})


def test_honest_aliases_and_merge_keys_are_read(tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    path.write_text("a: &a {name: x}\nb: {<<: *a, other: 1}\nc: [*a, *a]\nwhen: 2024-01-01\nlr: .nan\n")
    found = read_yaml(path, dict[str, Any])
    assert found["b"] == {"name": "x", "other": 1}
    assert found["c"] == [{"name": "x"}] * 2
    assert found["when"] == "2024-01-01"


def test_a_dataclass_takes_no_other_keys_and_a_line_is_checked_too() -> None:
    from dgs_lightning.data.latents import CacheSettings

    with pytest.raises(Unreadable, match="colour: an unknown key instead of one of codec, transform"):
        check_shape(
            {"codec": "x", "transform": "", "shape": [1, 2, 3], "posterior": True, "flips": 1, "dtype": "float16"}
            | {"colour": 3},
            CacheSettings,
        )
    assert [*parse_line('["a", 1]\n', tuple[str, int])] == ["a", 1]
    with pytest.raises(Unreadable, match=r"\[1\]: 'x' instead of a whole number"):
        parse_line('["a", "x"]', tuple[str, int])


def test_a_name_of_a_folder_is_no_path() -> None:
    limit = FolderName()
    assert all(map(limit.allows, ("cat", "a b", "é", None, 3)))
    assert not any(map(limit.allows, ("", ".", "..", "a/b", "a\0", "x" * 256)))
    assert words(Annotated[str, limit] | None) == "text, the name of a folder or null"


@pytest.mark.parametrize("text", ['"\\ud800"', '{"\\udfff": 1}', '"a\\u0000"'])
def test_half_characters_and_the_character_zero_are_no_text(text: str) -> None:
    for parse in (parse_json, parse_yaml):
        with pytest.raises(Unreadable, match="character"):
            parse(text)


def test_what_a_download_left_in_place_of_settings_is_named(tmp_path: Path) -> None:
    for name, start in (("pointer", "version https://git-lfs.github.com/spec/v1\noid"), ("page", "<!DOCTYPE html>")):
        (tmp_path / "config.json").write_text(start)
        with pytest.raises(InputError, match=f"config.json: found a .*{name} in place of the file"):
            read_json(tmp_path / "config.json", dict[str, int], "settings")
