"""Fingerprints of the files that a run reads. They are of the content, so that a copied or moved file keeps its own."""

import hashlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Literal, NamedTuple

from dgs_lightning.data.cards import hash_file
from dgs_lightning.data.trees import Links, tree_files

Kind = Literal["content", "names"]
Listener = Callable[[int, int], None]  # bytes that are read, bytes to read in all
AT_ONCE = 64  # files that a thread hashes in one task
SETTLED = 2.0  # seconds after its last change from which a file's time of change tells every later change
_TABLE = "create table if not exists hashes (path text primary key, size, changed, inode, hash)"


class FileState(NamedTuple):
    """A file and what changes with its content: as long as size, time of change and inode stay, so does the content.

    The time of change is that of the file system (``ctime``). Programs cannot set it, unlike that of modification.
    """

    path: str
    size: int
    changed: int  # nanoseconds
    inode: int


def files_below(path: Path, links: Links = "refuse") -> list[FileState]:
    """A file, or all files below a folder, sorted by path; nothing if there is no such path.

    With ``links="follow"``, files behind links to folders count, and hidden ones do not.
    """
    place = str(path.absolute())
    if not path.is_dir():
        found = [place]
    elif links == "follow":
        found = [os.path.join(place, name) for name, _ in tree_files(path, links)]
    else:
        found = [os.path.join(folder, name) for folder, _, names in os.walk(place) for name in names]
    files = sorted(filter(os.path.isfile, found), key=lambda file: file.split("/"))
    states = ((file, os.stat(file)) for file in files)
    return [FileState(file, state.st_size, state.st_ctime_ns, state.st_ino) for file, state in states]


def fingerprints(
    paths: Iterable[str], kind: Kind = "content", listener: Listener | None = None, links: Links = "refuse"
) -> dict[str, str]:
    """A hash for each path, of the names of its files and of their content.

    The hash of a file's content is computed once, by all processors, and remembered in the user's cache until the
    file's size, time of change or inode changes.

    Args:
        paths: Files and folders.
        kind: ``names`` for names and sizes instead of names and content. This is quicker for very large trees, and
            does not see a change that keeps the size.
        listener: Told the bytes that are read, and the bytes to read in all.
        links: As for :func:`files_below`.
    """
    states = {path: files_below(Path(path), links) for path in paths}
    hashes: Mapping[str, str] = {}
    if kind == "content":
        hashes = _hashes([state for of_path in states.values() for state in of_path], listener)
    found = {}
    for path, of_path in states.items():
        digest, above = hashlib.sha256(), Path(path).absolute().parent
        for state in of_path:
            name = os.path.relpath(state.path, above)
            digest.update(f"{name}\0{hashes.get(state.path, state.size)}\0".encode(errors="surrogateescape"))
        found[path] = digest.hexdigest()
    return found


def unread_bytes(paths: Iterable[str], links: Links = "refuse") -> int:
    """Size of the files whose hashes :func:`fingerprints` has to compute."""
    states = [state for path in paths for state in files_below(Path(path), links)]
    with _cache() as cache:
        known = _known(cache, states)
    return sum(state.size for state in states if state.path not in known)


def _hashes(states: Sequence[FileState], listener: Listener | None) -> dict[str, str]:
    """Hash of each file's content, by its path."""
    with _cache() as cache:
        hashes = _known(cache, states)
        left = [state for state in states if state.path not in hashes]
        total, done = sum(state.size for state in left), 0
        parts = [left[start : start + AT_ONCE] for start in range(0, len(left), AT_ONCE)]
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:  # hashing lets other threads run
            for part, found in zip(parts, threads.map(_hashes_of, parts), strict=True):
                hashes |= found
                _remember(cache, part, found)
                done += sum(state.size for state in part)
                if listener:
                    listener(done, total)
    return hashes


def _hashes_of(states: Sequence[FileState]) -> dict[str, str]:
    return {state.path: hash_file(Path(state.path)) for state in states}


@contextmanager
def _cache() -> Iterator[sqlite3.Connection | None]:
    """The hashes that are remembered; None where the user's cache cannot be used."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dgs-lightning"
    connection = None
    with suppress(OSError, sqlite3.Error):
        folder.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(folder / "hashes.sqlite", timeout=5)
        connection.execute(_TABLE)
    if connection is None:
        yield None
        return
    with closing(connection):
        yield connection


def _known(cache: sqlite3.Connection | None, states: Sequence[FileState]) -> dict[str, str]:
    """The remembered hashes of files that have not changed."""
    known: dict[str, str] = {}
    if cache is None:
        return known
    query = "select size, changed, inode, hash from hashes where path = ?"
    with suppress(sqlite3.Error, UnicodeEncodeError):
        for state in states:
            row = cache.execute(query, (state.path,)).fetchone()
            if row and row[:3] == state[1:]:
                known[state.path] = str(row[3])
    return known


def _remember(cache: sqlite3.Connection | None, states: Sequence[FileState], hashes: Mapping[str, str]) -> None:
    """Remember hashes, but not of files that were changed a moment ago: another change may have the same time."""
    settled = time.time_ns() - int(SETTLED * 1e9)
    rows = [(*state, hashes[state.path]) for state in states if state.changed < settled]
    with suppress(sqlite3.Error, UnicodeEncodeError):  # names that are not UTF-8 are hashed each time
        if cache and rows:
            with cache:
                cache.executemany("insert or replace into hashes values (?, ?, ?, ?, ?)", rows)
