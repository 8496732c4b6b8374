"""The one error a user sees: where, what was found, what was expected, what to do."""

import re

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")  # in names of files and in libraries' words


class InputError(ValueError):
    """A file or setting that cannot be used as it is.

    The command line prints its message alone, without a traceback, and exits with status 2.

    Args:
        where: The file or setting at fault, as the user knows it.
        found: What is there.
        expected: What should be there.
        remedy: What to do, as an imperative sentence without its full stop.
    """

    def __init__(self, where: object, *, found: str, expected: str, remedy: str) -> None:
        where, found, expected = (_UNPRINTABLE.sub(_escaped, str(part)) for part in (where, found, expected))
        super().__init__(f"{where}: found {found}, expected {expected}. {remedy}.")
        self.parts = (where, found, expected, remedy)

    def __reduce__(self) -> tuple[object, ...]:
        """Travel between processes by the parts, since they are keywords."""
        return _from_parts, self.parts


def _escaped(character: re.Match[str]) -> str:
    return repr(character[0])[1:-1]


def _from_parts(where: str, found: str, expected: str, remedy: str) -> InputError:
    return InputError(where, found=found, expected=expected, remedy=remedy)
