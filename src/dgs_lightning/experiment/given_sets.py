"""Sets of other people in an experiment: ``sets: {NAME: {path: FILE}}``, the rows ``set:NAME``, and rows of one IPC."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dgs_lightning.errors import InputError, listed
from dgs_lightning.exchange.hub import is_on_hub
from dgs_lightning.experiment.stage import given
from dgs_lightning.runs.methods import SET

Sets = Mapping[str, Mapping[str, Any]]
PATHS = ("path", "labels")  # settings that may be files of the user


def check_sets(sets: Sets, ipcs: Sequence[int], above: str) -> None:
    """Check names, paths and numbers of images of the sets of an experiment.

    A set has one IPC, its own. An experiment with several has a row of it for that one alone, so that a row never
    stands for another number of images than its name says.

    Args:
        sets: The sets by name.
        ipcs: The numbers of images per class of the experiment.
        above: Text before the names of settings.

    Raises:
        InputError: If one is wrong. The error names the setting.
    """
    for name, settings in sets.items():
        place = f"{above}sets.{name}"
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
            raise InputError(place, repr(name), "a name of letters, digits and underscores", "Rename the set")
        path, ipc = settings.get("path"), settings.get("ipc")
        if not isinstance(path, str):
            raise InputError.unset(f"{place}.path", "a file or folder with the images of the set", "FILE")
        if not is_on_hub(path) and not Path(path).exists():
            raise InputError.missing(f"{place}.path {path}", "a file or folder with the images of the set")
        if ipc is None and len(ipcs) > 1:
            raise InputError.unset(f"{place}.ipc", f"that of the set, one of {listed(ipcs, 20)}", str(ipcs[0]))
        if ipc is not None and ipc not in ipcs:
            remedy = f"Set ipc=[{', '.join(map(str, ipcs))}, {ipc}] to evaluate sets of this size as well"
            raise InputError(f"{place}.ipc", repr(ipc), f"one that the experiment has: {listed(ipcs, 20)}", remedy)


def settings_of_set(sets: Sets, row: str) -> dict[str, Any]:
    """Settings of ``dgs import`` for a row; empty for a row that is no set."""
    own = sets.get(row.removeprefix(SET), {}) if row.startswith(SET) else {}
    return {key: given(value) if key in PATHS and isinstance(value, str) else value for key, value in own.items()}


def own_ipc(method: str, sets: Sets, options: Sets) -> int | None:
    """The one IPC that a set, or a method with the option ``ipc``, has a row for; None: all of the experiment."""
    settings = sets.get(method.removeprefix(SET), {}) if method.startswith(SET) else options.get(method, {})
    ipc: int | None = settings.get("ipc")
    return ipc
