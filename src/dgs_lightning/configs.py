"""Configs: YAML files of the user and those shipped with the package, read, started from and merged."""

import difflib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict

from dgs_lightning.documents.files import read_yaml
from dgs_lightning.errors import InputError, listed, short

Settings = dict[str, Any]
_PACKAGE = Path(__file__).parent
ROOT = _PACKAGE / "configs" if (_PACKAGE / "configs").is_dir() else _PACKAGE.parents[1] / "configs"


class ClassConfig(TypedDict, total=False):
    """A class and its settings. Other keys are allowed."""

    class_path: str
    init_args: dict[str, Any] | None


class TrainerConfig(TypedDict, total=False):
    """The settings of a trainer. Other keys are allowed."""

    callbacks: list[str | ClassConfig] | ClassConfig | str | None


class Config(TypedDict, total=False):
    """The parts of a config that are merged or looked at here. Other keys are allowed."""

    base: str | None
    model: str | ClassConfig | None
    data: str | ClassConfig | None
    trainer: TrainerConfig | None


def load_config(name: str, folder: str = "") -> Settings:
    """Settings of a config, merged into those of the config that its key ``base`` names, if it has one.

    Args:
        name: Path of a YAML file, or the name of a shipped config with or without its ending,
            such as ``minimax/digits.yaml``. ``base`` is such a name, too.
        folder: Folder of the shipped configs in which shipped names are looked up.

    Raises:
        InputError: If a file is missing or broken, or if a config starts from itself.
    """
    settings: Settings = {}
    seen: list[Path] = []
    next_name: str | None = name
    while next_name is not None:
        path = find_config(next_name, folder)
        if any(path.samefile(other) for other in seen):
            found = f"a circle: {' -> '.join(map(str, [*seen, path]))}"
            expected = "a config that does not start from itself"
            raise InputError(f"{path}: base", found, expected, "Remove one 'base' of these files")
        seen.append(path)
        own = load_yaml(path)
        next_name = own.pop("base", None)
        settings = merge(own, settings)
    return settings


def expand(section: Settings) -> Settings:
    """Settings of a section of an experiment, laid over the files that its ``config`` names.

    Raises:
        InputError: If there is no such file, or a part of the section is not a mapping or a list where it must be.
    """
    names = section.get("config") or []
    settings: Settings = {}
    for name in names if isinstance(names, list) else [names]:
        settings = merge(settings, load_config(str(name)))
    settings = merge(settings, {key: value for key, value in section.items() if key != "config"})
    _check_shape(settings, "", ("model", "data", "trainer"))
    for name in ("model", "data"):
        _check_shape(settings.get(name, {}), f"{name}.", ("init_args",))
    _check_shape(settings.get("trainer", {}), "trainer.", ("callbacks",), list)
    return remove_callbacks(settings)


def find_config(name: str, folder: str = "") -> Path:
    """Path of a config: a file of the user, or a config shipped with the package.

    Args:
        name: Path of a YAML file, or the name of a shipped config with or without its ending,
            such as ``minimax/digits.yaml``.
        folder: Folder of the shipped configs in which shipped names are looked up.

    Raises:
        InputError: If there is neither. The message names the shipped configs with similar names.
    """
    for candidate in (Path(name), ROOT / folder / name, ROOT / folder / f"{name}.yaml"):
        if os.path.isfile(candidate):  # also where the name is too long for a file system
            return candidate
    known = sorted(str(p.relative_to(ROOT / folder).with_suffix("")) for p in (ROOT / folder).rglob("*.yaml"))
    beside = [other for other in known if other.split("/")[0] == name.split("/")[0]]
    longer = [other for other in known if other.startswith(name.removesuffix(".yaml"))]
    near = longer or difflib.get_close_matches(name.removesuffix(".yaml"), known, n=3, cutoff=0.7) or beside or known
    remedy = f"Give a path, or one of: {listed(near, 20)}"
    raise InputError(f"config {short(name)!r}", "no such file", "a YAML file or a shipped config", remedy)


def load_yaml(path: Path) -> Settings:
    """Settings in a YAML file; one that is no :class:`Config` raises an InputError."""
    return {**read_yaml(path, Config)}


def merge(base: Settings, changes: Settings, section: str = "") -> Settings:
    """Settings, changed by others.

    Mappings are merged, callbacks of a trainer are added (:func:`add_callbacks`), and everything else is replaced.

    Args:
        base: Settings that are changed.
        changes: Settings that win.
        section: Key under which both stand, if any.
    """
    merged = dict(base)
    for key, value in changes.items():
        old, new = _class_settings(merged.get(key), value), _class_settings(value, merged.get(key))
        if isinstance(old, dict) and isinstance(new, dict):
            merged[key] = merge(old, new, key)
        elif (section, key) == ("trainer", "callbacks") and isinstance(new, list | dict | str | None):
            merged[key] = add_callbacks(as_list(old), as_list(new))
        else:
            merged[key] = value
    return merged


def add_callbacks(shipped: list[Any], own: list[Any]) -> list[Any]:
    """Callbacks of a config and those of a user, as one list.

    A callback of the user takes the place of a shipped callback of the same class, or else comes last. If the user has
    several of one class, all of them stay. An entry ``{remove: CLASS}`` stands for the removal of all callbacks of that
    class before it; :func:`remove_callbacks` carries it out.

    >>> add_callbacks(["ResumeCheckpoint", "SampleGrid"], [{"class_path": "SampleGrid", "init_args": {"columns": 4}}])
    ['ResumeCheckpoint', {'class_path': 'SampleGrid', 'init_args': {'columns': 4}}]

    Args:
        shipped: Names of classes, or mappings with ``class_path``. Classes are compared by the last part of their path.
        own: The user's, in the same form.
    """
    merged = [(entry, True) for entry in shipped]  # with whether it is still a shipped one
    for entry in own:
        name = class_name(entry)
        removed = max((place for place, (other, _) in enumerate(merged) if _removed_class(other) == name), default=-1)
        same = [
            place
            for place, (other, is_shipped) in enumerate(merged)
            if is_shipped and place > removed and name and class_name(other) == name
        ]
        if same:
            merged[same[0]] = (entry, False)
            merged = [pair for place, pair in enumerate(merged) if place not in same[1:]]
        else:
            merged.append((entry, False))
    return [entry for entry, _ in merged]


def remove_callbacks(settings: Settings) -> Settings:
    """Settings in which the callbacks are removed that entries ``{remove: CLASS}`` of ``trainer.callbacks`` name.

    Raises:
        InputError: If there is no such callback before the entry.
    """
    trainer = settings.get("trainer")
    if not isinstance(trainer, dict) or "callbacks" not in trainer:
        return settings
    kept: list[Any] = []
    for entry in as_list(trainer["callbacks"]):
        name = _removed_class(entry)
        there = [class_name(other) for other in kept]
        if name is None:
            kept.append(entry)
        elif name in there:
            kept = [other for other in kept if class_name(other) != name]
        else:
            found, known = f"{{remove: {name}}}, but no {name}", ", ".join(filter(None, there)) or "it has none"
            expected = f"the name of a callback of this run ({known})"
            raise InputError("trainer.callbacks", found, expected, "Correct the name, or delete the entry")
    return {**settings, "trainer": {**trainer, "callbacks": kept}}


def _check_shape(settings: Settings, above: str, names: Sequence[str], shape: type = dict) -> None:
    """Check that parts of a section can be combined with this run's own settings.

    Raises:
        InputError: If one is neither a mapping nor, where a list is expected, a list.
    """
    for name in names:
        value = settings.get(name)
        if name in settings and not isinstance(value, shape) and not (value is None and shape is list):
            expected = "a mapping of settings" if shape is dict else "a list of classes"
            raise InputError.setting(f"{above}{name}", repr(value), expected, "Correct the section")


def as_list(callbacks: Any) -> list[Any]:  # noqa: ANN401
    """Callbacks as a list: YAML may have one alone, or none."""
    return callbacks if isinstance(callbacks, list) else [] if callbacks is None else [callbacks]


def class_name(callback: Any) -> str | None:  # noqa: ANN401
    """Last part of the path of a callback's class; none where an entry names no class."""
    path = callback.get("class_path") if isinstance(callback, dict) else callback
    return path.rpartition(".")[2] if isinstance(path, str) else None


def _removed_class(entry: Any) -> str | None:  # noqa: ANN401
    """Name of the class that an entry ``{remove: CLASS}`` removes; none for other entries."""
    return class_name(entry["remove"]) if isinstance(entry, dict) and entry.keys() == {"remove"} else None


def _class_settings(value: Any, other: Any) -> Any:  # noqa: ANN401
    """The mapping that the name of a class stands for, where it meets such a mapping."""
    short = isinstance(value, str) and isinstance(other, dict) and other.keys() & {"class_path", "init_args"}
    return {"class_path": value} if short else value
