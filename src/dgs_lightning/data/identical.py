"""Files with the same content, found without reading most of them."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from dgs_lightning.data.cards import hash_file
from dgs_lightning.files import explain_disk_errors

SAMPLE = 2048  # bytes from the middle of a file


def identical_files(files: Iterable[Path], others: Iterable[Path]) -> dict[Path, Path]:
    """The files whose content one of ``others`` has as well, each with the first of these.

    Sizes are compared first; then, of files with a size in common, some bytes; then, of what is left, hashes.
    """
    left = [[*files], [*others]]
    keyed: list[list[tuple[object, Path]]] = []
    steps: tuple[Callable[[Path], object], ...] = (os.path.getsize, _middle, hash_file)
    for key_of in steps:
        keyed = [[(key_of(path), path) for path in paths] for paths in left]
        common = set.intersection(*({key for key, _ in pairs} for pairs in keyed))
        keyed = [[pair for pair in pairs if pair[0] in common] for pairs in keyed]
        left = [[path for _, path in pairs] for pairs in keyed]
    own, theirs = keyed
    first = dict(reversed(theirs))
    return {path: first[key] for key, path in own}


def _middle(path: Path) -> bytes:
    """Some bytes from the middle of a file, where images differ whose headers are the same."""
    with explain_disk_errors(path):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            return os.pread(descriptor, SAMPLE, max(0, (os.fstat(descriptor).st_size - SAMPLE) // 2))
        finally:
            os.close(descriptor)
