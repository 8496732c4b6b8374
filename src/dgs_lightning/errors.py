"""The one error that a user sees: where, what was found, what was expected, what to do.

Use the constructor that describes the fault. Each states the common part of its message once, so that a call is short::

    raise InputError.setting("ipc", ipc, "a whole number from 1 on")
    raise InputError.broken(path, error, "a latent cache's card", "Encode the images again")

Where none describes it, give the four parts in order: ``InputError(where, found, expected, remedy)``.
"""

import errno
import re
from collections.abc import Collection, Iterable
from typing import cast

# Characters of names and of libraries' messages that control a terminal, turn the direction of text, or are no text.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\u2028-\u202e\u2066-\u2069]")
_LONGEST = 200  # characters of a problem that a library describes
_MOST = 1000  # characters of a part of an error: names in files may have any length
_NO_MEMORY = ("out of memory", "allocate memory", "insufficient memory")  # in messages of torch, Pillow and zlib


class InputError(ValueError):
    """A file or setting that cannot be used as it is.

    The command line prints its message alone, without a traceback, and exits with status 2.

    Args:
        where: The file or setting at fault, as the user knows it.
        found: What is there.
        expected: What should be there.
        remedy: What to do, as an imperative sentence without its full stop.
    """

    def __init__(self, where: object, found: object, expected: object, remedy: str) -> None:
        # The four parts are the exception's arguments, by which it travels between processes.
        parts = (_UNPRINTABLE.sub(_escaped, str(part)) for part in (where, found, expected))
        shortened = (part if len(part) <= _MOST else f"{part[:_MOST]}..." for part in parts)
        super().__init__(*shortened, printable(remedy))

    def __str__(self) -> str:
        """The message in one sentence, and the remedy in another."""
        where, found, expected, remedy = self.parts
        return f"{where}: found {found}, expected {expected}. {remedy}."

    @property
    def parts(self) -> tuple[str, str, str, str]:
        """Where, found, expected and remedy, as texts."""
        return cast(tuple[str, str, str, str], self.args)

    # ---- settings ------------------------------------------------------------------------------------------------

    @classmethod
    def setting(cls, name: str, value: object, expected: str, remedy: str = "Correct the setting") -> "InputError":
        """A setting whose value is out of range, or does not go with another one."""
        return cls(name, value, expected, remedy)

    @classmethod
    def unset(cls, name: str, expected: str, example: str) -> "InputError":
        """A setting that has no value but needs one, such as ``example``."""
        return cls(name, "nothing", expected, f"Set {name}={example}")

    @classmethod
    def choice(cls, name: str, value: object, choices: Iterable[str], remedy: str = "") -> "InputError":
        """A setting whose value is none of the choices."""
        return cls(name, repr(value), f"one of {', '.join(choices)}", remedy or "Name one of them")

    @classmethod
    def wrong_class(cls, where: str, given: Iterable[object], expected: str, remedy: str = "") -> "InputError":
        """A callback, task or datamodule that is used with objects of another class than it needs."""
        found = " with ".join(type(part).__name__ for part in given)
        return cls(where, found, expected, remedy or f"Use it with {expected}")

    @classmethod
    def not_installed(cls, package: str, wanted_for: str) -> "InputError":
        """A package that a setting needs and that is not installed."""
        return cls(wanted_for, f"no package {package}", "it beside dgs-lightning", f"Run: pip install {package}")

    @classmethod
    def resume(cls, found: object, expected: str = "the settings of this run") -> "InputError":
        """A checkpoint of another run than the one that is to be resumed."""
        return cls("checkpoint to resume", found, expected, "Resume with the old settings, or start in a new folder")

    @classmethod
    def not_finite(cls, where: str, value: object, remedy: str) -> "InputError":
        """A number of the computation that has become infinite or not a number."""
        return cls(where, value, "a finite number", remedy)

    # ---- files and folders -----------------------------------------------------------------------------------------

    @classmethod
    def missing(cls, path: object, expected: str, remedy: str = "Check the path") -> "InputError":
        """A file or folder that does not exist."""
        return cls(path, "no such file or folder", expected, remedy)

    @classmethod
    def broken(
        cls, path: object, problem: object, expected: str, remedy: str = "", what: str = "a broken file"
    ) -> "BrokenFile":
        """A file whose content is wrong for certain: truncated, of another format, or not what it should be.

        A file that could not be read for another reason, such as too little memory, is not called broken; see
        ``dgs_lightning.files.reading``.

        Args:
            path: The file.
            problem: What is wrong with it: an exception, or words.
            expected: What it should hold.
            remedy: By default: delete it and make it again.
            what: What is there instead.
        """
        remedy = remedy or "Delete it, and run the command that wrote it again"
        return BrokenFile(path, f"{what} ({short(problem)})", expected, remedy)

    @classmethod
    def line(cls, path: object, number: int, problem: str) -> "BrokenFile":
        """A line of a manifest that cannot be used. Lines are counted from 1."""
        remedy = "Correct or delete the line, or make the file again with the command that wrote it"
        expected = "one JSON object an image with 'file_name' and 'label'"
        return BrokenFile(f"{path}, line {number}", problem[:300], expected, remedy)

    @classmethod
    def occupied(cls, folder: object, found: str, expected: str = "", remedy: str = "") -> "InputError":
        """A folder for output that holds something else already."""
        expected = expected or "an empty folder, or an earlier result of this command"
        return cls(folder, found, expected, remedy or "Delete it, or choose another output")

    @classmethod
    def busy(cls, folder: object, holder: str = "") -> "InputError":
        """A folder for output that another run, such as ``process 5 on node7``, writes into at this moment."""
        found = f"another run that writes into it{f' ({holder})' if holder else ''}"
        return cls(folder, found, "a folder of this run's own", "Wait until that run ends, or choose another output")

    # ---- models and labels -----------------------------------------------------------------------------------------

    @classmethod
    def weights(cls, where: object, found: object, expected: object, remedy: str = "") -> "InputError":
        """Weights that do not fit the model, or are none."""
        return cls(where, found, expected, remedy or "Give the weights of a model of this architecture")

    @classmethod
    def labels(
        cls,
        where: object,
        expected: str,
        remedy: str,
        *,
        missing: Collection[str] = (),
        unknown: Collection[str] = (),
    ) -> "InputError":
        """Labels that are not those expected: some are missing, or some are not known there."""
        groups = (("missing", missing), ("unknown", unknown))
        found = (f"{len(n)} {kind} label{'s' * (len(n) != 1)} ({listed(n, 20)})" for kind, n in groups if n)
        return cls(where, "; ".join(found), expected, remedy)


class BrokenFile(InputError):
    """A file whose content is wrong for certain."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device, or the machine, had no memory left."""
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    return isinstance(error, Exception) and any(words in str(error).lower() for words in _NO_MEMORY)


def listed(names: Iterable[object], most: int = 5) -> str:
    """The first few names in one line, with an ellipsis where there are more."""
    texts = [str(name) for name in names]
    return ", ".join(texts[:most]) + (", ..." if len(texts) > most else "")


def listed_with_number(names: Iterable[object], noun: str, most: int = 5) -> str:
    """The names in one line; if there are many, their number and the first few: ``8 stages (fold0, fold1, ...)``."""
    texts = list(map(str, names))
    return listed(texts, most) if len(texts) <= most else f"{counted(len(texts), noun)} ({listed(texts, most)})"


def counted(number: int, noun: str) -> str:
    """A number with its noun, in the plural where it is not one: ``1 class``, ``1,200 classes``."""
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{number:,} {noun if number == 1 else plural}"


def short(problem: object) -> str:
    """What is wrong, in one line of at most 200 characters without full stop; an exception without message is named."""
    words = " ".join(str(problem).split())[:_LONGEST].rstrip(".")
    return words or type(problem).__name__


def printable(text: object) -> str:
    """A text for a terminal: characters that control it are shown by their codes, except the ends of lines."""
    return "\n".join(_UNPRINTABLE.sub(_escaped, line) for line in str(text).split("\n"))


def _escaped(character: re.Match[str]) -> str:
    return repr(character[0])[1:-1]
