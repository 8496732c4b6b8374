"""Task and data that a callback works with."""

from typing import TypeVar

import lightning as L

from dgs_lightning.errors import InputError

Part = TypeVar("Part")


def require(kind: type[Part], found: object, callback: L.Callback) -> Part:
    """A task or datamodule, checked to be of the kind that a callback works with.

    Raises:
        InputError: If it is of another kind.
    """
    if isinstance(found, kind):
        return found
    raise InputError(
        type(callback).__name__,
        found=type(found).__name__,
        expected=kind.__name__,
        remedy=f"Use it with {kind.__name__}, or remove the callback",
    )
