"""Files of JSON and YAML, read as values of a declared type. All such files are read here."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeVar

from dgs_lightning.documents.shapes import check_shape
from dgs_lightning.documents.texts import JSON_SIZE, YAML_SIZE, Unreadable, parse_json, parse_yaml
from dgs_lightning.errors import BrokenFile, InputError
from dgs_lightning.files import reading, stand_in

T = TypeVar("T")
LINE = 2**24  # characters of a line of JSON


def read_json(path: Path, kind: type[T], expected: str, remedy: str = "", default: T | None = None) -> T:
    """Content of a JSON file.

    Args:
        path: The file.
        kind: The declared type of its content.
        expected: What it should be, for the message.
        remedy: What to do about a broken file, for the message.
        default: What to return where there is no such file; by default that is an error.

    Raises:
        InputError: If the file is missing or cannot be read.
        BrokenFile: If it is no JSON, or holds something else.
    """
    with reading(path, expected, remedy), naming(path, expected, remedy):
        try:
            text = _read(path, JSON_SIZE)
        except (FileNotFoundError, NotADirectoryError):
            if default is None:
                raise
            return default
        content: Any = parse_json(text)
        check_shape(content, kind)
    return content  # type: ignore[no-any-return]


def read_yaml(path: Path, kind: type[T], expected: str = "a mapping of settings", remedy: str = "") -> T:
    """Content of a YAML file.

    Args:
        path: The file.
        kind: The declared type of its content.
        expected: What it should be, for the message.
        remedy: What to do about a broken file, for the message.

    Raises:
        InputError: If the file is missing or cannot be read.
        BrokenFile: If it is no YAML, or holds something else.
    """
    remedy = remedy or "Correct the file"
    with reading(path, expected, remedy), naming(path, expected, remedy):
        content: Any = parse_yaml(_read(path, YAML_SIZE))
        check_shape(content, kind)
    return content  # type: ignore[no-any-return]


def parse_line(line: str, kind: type[T]) -> T:
    """The value of one line of a file that has a JSON value in each line.

    Raises:
        Unreadable: If it is no JSON, is too long, or holds something else.
    """
    content: Any = parse_json(check_length(line))
    check_shape(content, kind)
    return content  # type: ignore[no-any-return]


def lines_of(file: IO[str]) -> Iterator[str]:
    """The lines of a file. One that is too long comes in part, so that :func:`check_length` refuses it."""
    return iter(lambda: file.readline(LINE + 1), "")


def check_length(line: str) -> str:
    """A line, if it is not too long.

    Raises:
        Unreadable: If it is.
    """
    if len(line) > LINE:
        raise Unreadable("", f"more than {LINE:,} characters", "a shorter line")
    return line


def _read(path: Path, most: int) -> str:
    """Text of a file in UTF-8. A ValueError says that it is none, or too large."""
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise ValueError(f"more than {most / 1e6:.0f} MB")
    return content.decode()


@contextmanager
def naming(path: Path, expected: str, remedy: str = "") -> Iterator[None]:
    """Turn an :class:`Unreadable` into a BrokenFile, which names the file, too."""
    try:
        yield
    except Unreadable as error:
        if other := stand_in(path, expected):
            raise other from None
        if error.place:
            remedy = remedy or "Delete it, and run the command that wrote it again"
            raise BrokenFile(f"{path}: {error.place}", error.found, error.expected or expected, remedy) from None
        raise InputError.broken(path, error.found, expected, remedy) from None
