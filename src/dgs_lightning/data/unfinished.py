"""The rule for folders that are filled file by file, the same for all writers: a mark says what is being made in them.

The mark is written before the first file, and removed after the card. So a folder is always one of these:

- **new**: it has none of the files that a writer writes;
- **begun**: it has a mark, with the kind and the key of what is being made;
- **finished**: it has a card, and no mark;
- **somebody else's**: it has such files, but neither mark nor card. It is not touched.

Beside the mark is a journal of each device, with a line for each part that is finished and what proves it. A line that
was cut or altered is not used: each begins with its own hash.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from dgs_lightning.data.cards import CARD, LATENTS_CARD, read_mark
from dgs_lightning.data.records import MANIFEST, MARK
from dgs_lightning.data.trees import image_files
from dgs_lightning.documents.files import lines_of, parse_line
from dgs_lightning.documents.texts import Unreadable
from dgs_lightning.errors import InputError
from dgs_lightning.files import explain_disk_errors, force_to_disk, write_json, write_text

ADOPTED = "adopted"  # key of what is known to be a run's by its record alone
_HASH = 16  # characters of the hash of a line


class Unfinished:
    """The mark and the journals of a folder.

    Args:
        folder: The folder that is filled.
        kind: What is made in it, such as ``images``.
    """

    def __init__(self, folder: Path, kind: str) -> None:
        self.folder = folder
        self.kind = kind
        self.hidden = (folder / MARK).parent  # with the mark, the journals and the lock

    def begun(self) -> Any | None:  # noqa: ANN401
        """Key of what was begun here and is not finished; ``None`` where nothing was. See also :meth:`adopt`.

        Raises:
            InputError: If something of another kind was begun here, or the mark cannot be read.
        """
        if self.hidden.is_symlink():
            raise InputError(self.hidden, "a symbolic link", "a folder of this program", "Remove the link")
        mark = read_mark(self.folder)
        if mark and mark.get("kind") not in (self.kind, ADOPTED):
            remedy = f"Finish the command that makes them, or choose another output than {self.folder}"
            found = f"unfinished {mark.get('kind')}"
            raise InputError.occupied(self.folder, found, f"nothing, or {self.kind}", remedy)
        return mark.get("key")

    def check_free(self) -> None:
        """Check that the folder has none of the files that writers write. Others, such as logs, are no hindrance.

        Raises:
            InputError: If it has: without mark and card, nothing proves that they are this program's.
        """
        if self.folder.exists() and not self.folder.is_dir():
            raise InputError.occupied(self.folder, "a file", "a folder")
        found = next(_results(self.folder), None) if self.folder.is_dir() else None
        if found is not None:
            what, remedy = f"{found}, which this command did not make", "Name another output"
            raise InputError.occupied(self.folder, what, "an empty folder", remedy)

    def adopt(self, hashes: Mapping[str, str]) -> None:
        """Mark a folder that has lost its card, and is this program's for another reason: the record of a run.

        Its key is then ``ADOPTED``. Images and latents that are as they were are not made again.

        Args:
            hashes: SHA-256 of the files that were in the folder, by their path in it.
        """
        Unfinished(self.folder, ADOPTED).begin(ADOPTED, ({name: sha256} for name, sha256 in hashes.items()))

    def begin(self, key: object, finished: Iterable[object] = ()) -> None:
        """Mark the folder, and keep in its journals only the lines of these parts.

        Args:
            key: What the results depend on, as JSON.
            finished: Parts that are finished already.
        """
        text = "".join(_line(part) for part in finished)
        if self.begun() != key:  # what is there of another key is not used
            self._drop_journals()
            write_json(self.folder / MARK, {"kind": self.kind, "key": key}, durable=True)
            for path in (self.folder, self.folder.parent):
                force_to_disk(path)
        write_text(self.journal(0), text)
        self._drop_journals(all_but=self.journal(0))

    def journal(self, device: int) -> Path:
        """Journal of a device."""
        return self.hidden / f"{device}.jsonl"

    def note(self, device: int, part: object) -> None:
        """Add a part, as JSON, that is finished. Its files must be written."""
        with explain_disk_errors(self.folder), self.journal(device).open("a", encoding="utf-8") as journal:
            journal.write(_line(part))

    def noted(self, kind: Any = Any) -> Iterator[Any]:  # noqa: ANN401  (a type)
        """The parts that are finished, of all devices, without lines that were cut or altered.

        Args:
            kind: The declared type of a part. Lines with something else are left out.
        """
        for path in sorted(self.hidden.glob("*.jsonl")):
            with explain_disk_errors(path), path.open(encoding="utf-8", errors="replace") as file:
                for line in lines_of(file):
                    text = line[_HASH + 1 :].removesuffix("\n")
                    if _line_of(text) == line:
                        with suppress(Unreadable):
                            yield parse_line(text, kind)

    def hashes(self) -> dict[str, str]:
        """SHA-256 of the finished files, by their path in the folder, where the parts are such hashes."""
        return {name: sha256 for part in self.noted(dict[str, str]) for name, sha256 in part.items()}

    def end(self) -> None:
        """Remove the mark, after the card is written. Journals go first, since the mark proves that they are ours."""
        if not self.hidden.is_dir():
            return
        self._drop_journals()
        for path in (self.folder / MARK, *self.hidden.iterdir()):
            path.unlink(missing_ok=True)
        with suppress(OSError):  # a network file system may keep a file that is open, under another name
            self.hidden.rmdir()

    def _drop_journals(self, all_but: Path | None = None) -> None:
        for path in self.hidden.glob("*.jsonl"):
            if path != all_but:
                path.unlink()


def _results(folder: Path) -> Iterator[str]:
    """Files of a folder that a writer would write."""
    yield from (name for name in (CARD, LATENTS_CARD, MANIFEST) if (folder / name).exists())
    yield from (path.name for path in folder.glob("[0-9]*.safetensors"))
    yield from image_files(folder)


def _line(part: object) -> str:
    return _line_of(json.dumps(part))


def _line_of(text: str) -> str:
    return f"{hashlib.sha256(text.encode()).hexdigest()[:_HASH]} {text}\n"
