"""The files that a stage left in the run's folder: their names, sizes and hashes, and whether they are still there."""

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Annotated, NamedTuple, TypeVar

from dgs_lightning.bounds import AtLeast
from dgs_lightning.data.cards import hash_file
from dgs_lightning.data.records import relative_path
from dgs_lightning.documents.files import lines_of, parse_line
from dgs_lightning.errors import BrokenFile, short
from dgs_lightning.files import force_to_disk, write_text

# Files of a stage that are no results: logs, checkpoints, and what is hidden, such as a half-written file.
_PASSING = re.compile(
    r"(.*/)?((\.[^/]+|lightning_logs)(/.*)?|events\.out\.tfevents\.[^/]+|(hparams|config)\.yaml|metrics\.csv|[^/]+\.ckpt)"
)
Of = TypeVar("Of")
To = TypeVar("To")


class Result(NamedTuple):
    """Size in bytes and SHA-256 of a file."""

    size: int
    sha256: str


_LINE: type[tuple[str, int, str]] = tuple[str, Annotated[int, AtLeast(0)], str]  # name, size and hash
Results = Mapping[str, Result]  # path of a file in the run's folder, in POSIX form -> what it holds


def files_of(folder: Path, inside: Iterable[str]) -> Iterator[str]:
    """All files of a stage.

    Args:
        folder: Folder of the run.
        inside: Files and folders of the stage in it.
    """
    for name in inside:
        path = folder / name
        if path.is_file():
            yield name
        else:
            yield from sorted(p.relative_to(folder).as_posix() for p in path.rglob("*") if p.is_file())


def is_passing(name: str) -> bool:
    """Whether a file of a stage is no result of it but a log, a checkpoint, or a half-written file."""
    return _PASSING.fullmatch(name) is not None


def measure(folder: Path, inside: Iterable[str]) -> Results:
    """What the results of a stage hold; the arguments are those of :func:`files_of`."""
    names = [name for name in files_of(folder, inside) if not is_passing(name)]
    return dict(zip(names, _in_threads(lambda name: _measured(folder / name), names), strict=True))


def _measured(path: Path) -> Result:
    return Result(path.stat().st_size, hash_file(path))


def _in_threads(function: Callable[[Of], To], values: Iterable[Of]) -> list[To]:
    with ThreadPoolExecutor(2 * len(os.sched_getaffinity(0))) as threads:
        return list(threads.map(function, values))


def make_durable(folder: Path, results: Iterable[str]) -> None:
    """Wait until the disk has the results and their folders, so that they outlive a loss of power."""
    names = list(results)
    folders = {parent for name in names for parent in (folder / name).parents if parent.is_relative_to(folder)}
    _in_threads(force_to_disk, [*(folder / name for name in names), *folders])


def write_results(path: Path, results: Results) -> None:
    """Write what the results hold, one JSON list of name, size and hash in a line, whole or not at all."""
    lines = (json.dumps([name, *held], ensure_ascii=False) + "\n" for name, held in sorted(results.items()))
    write_text(path, "".join(lines), durable=True)


def read_results(path: Path) -> Results | None:
    """What :func:`write_results` wrote; None without the file.

    Raises:
        InputError: If a line is broken.
    """
    try:
        state = path.stat()
    except FileNotFoundError:
        return None
    return _read_results(path, state.st_ino, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=4096)  # a run looks at each stage several times
def _read_results(path: Path, *state: int) -> Results:
    """The results in a file whose state is what it was when they were read."""
    found: dict[str, Result] = {}
    number = 0
    try:
        with path.open(encoding="utf-8") as file:
            for line in lines_of(file):
                number += 1
                name, size, sha256 = parse_line(line, _LINE)
                found[relative_path(name)] = Result(size, sha256)
    except ValueError as error:
        number += isinstance(error, UnicodeDecodeError)  # which comes before its line
        where, expected = f"{path}, line {number}", "name, size and hash of a file of the run"
        raise BrokenFile(where, short(error), expected, "Delete the file: the stage is then run again") from None
    return found


def changes(folder: Path, results: Results, hashes: bool = False) -> dict[str, str]:
    """Results that are not as the stage left them: their names, and what is wrong with each.

    Args:
        folder: Folder of the run.
        results: What the stage left.
        hashes: Compare hashes, too, for which all files are read. By default names and sizes are compared.
    """
    problems: dict[str, str] = {}
    for name, held in results.items():
        try:
            size = (folder / name).stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            problems[name] = "is missing"
            continue
        if size != held.size:
            problems[name] = f"has {size} bytes instead of {held.size}"
    if hashes:
        names = [name for name in results if name not in problems]
        found = _in_threads(lambda name: hash_file(folder / name), names)
        other = (name for name, value in zip(names, found, strict=True) if value != results[name].sha256)
        problems |= dict.fromkeys(other, "has another content")
    return problems


def remove(folder: Path, names: Iterable[str]) -> None:
    """Remove files, and the folders that are then empty."""
    for name in names:
        (folder / name).unlink(missing_ok=True)
        for parent in (folder / name).parents:
            if parent == folder:
                break
            with suppress(OSError):  # not empty
                parent.rmdir()
