"""Configs: YAML files of the user and those shipped with the package, read, started from and merged."""

import difflib
from pathlib import Path
from typing import Any

import yaml

from dgs_lightning.errors import InputError

_PACKAGE = Path(__file__).parent
ROOT = _PACKAGE / "configs" if (_PACKAGE / "configs").is_dir() else _PACKAGE.parents[1] / "configs"


def load_config(name: str, folder: str = "") -> dict[str, Any]:
    """Settings of a config, merged into those of the config that its key ``base`` names, if it has one.

    Args:
        name: Path of a YAML file, or the name of a shipped config with or without its ending,
            such as ``minimax/digits.yaml``. ``base`` is such a name, too.
        folder: Folder of the shipped configs in which shipped names are looked up.

    Raises:
        InputError: If a file is missing or broken, or if a config starts from itself.
    """
    settings: dict[str, Any] = {}
    seen: list[Path] = []
    next_name: str | None = name
    while next_name is not None:
        path = find_config(next_name, folder)
        if any(path.samefile(other) for other in seen):
            raise InputError(
                f"{path}: base",
                found=f"a circle: {' -> '.join(map(str, [*seen, path]))}",
                expected="a config that does not start from itself",
                remedy="Remove one 'base' of these files",
            )
        seen.append(path)
        own = load_yaml(path)
        next_name = own.pop("base", None)
        if not isinstance(next_name, str | None):
            raise InputError(
                f"{path}: base", found=repr(next_name), expected="the name of one config", remedy="Name one config"
            )
        settings = merge(own, settings)
    return settings


def find_config(name: str, folder: str = "") -> Path:
    """Path of a config: a file of the user, or a config shipped with the package.

    Args:
        name: Path of a YAML file, or the name of a shipped config with or without its ending,
            such as ``minimax/digits.yaml``.
        folder: Folder of the shipped configs in which shipped names are looked up.

    Raises:
        InputError: If there is neither. The message names the shipped configs with similar names.
    """
    path = Path(name)
    if path.is_file():
        return path
    for candidate in (ROOT / folder / name, ROOT / folder / f"{name}.yaml"):
        if candidate.is_file():
            return candidate
    known = sorted(str(p.relative_to(ROOT / folder).with_suffix("")) for p in (ROOT / folder).rglob("*.yaml"))
    beside = [other for other in known if other.split("/")[0] == name.split("/")[0]]
    near = difflib.get_close_matches(name.removesuffix(".yaml"), known, n=3, cutoff=0.7) or beside or known
    raise InputError(
        f"config {name!r}",
        found="no such file",
        expected="a YAML file or a shipped config",
        remedy=f"Give a path, or one of: {', '.join(near[:20])}{', ...' if len(near) > 20 else ''}",
    )


def load_yaml(path: Path) -> dict[str, Any]:
    """Mapping in a YAML file.

    Raises:
        InputError: If the file is not valid YAML, or holds something other than a mapping.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        line = getattr(getattr(error, "problem_mark", None), "line", 0) + 1
        problem = getattr(error, "problem", None) or "broken YAML"
        raise InputError(
            path, found=f"{problem} in line {line}", expected="valid YAML", remedy="Mend the line"
        ) from None
    if not isinstance(content, dict):
        raise InputError(
            path,
            found=type(content).__name__,
            expected="a mapping of settings",
            remedy="Write it as 'key: value' lines",
        )
    return content


def merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Settings with changes laid over them: mappings are merged, everything else is replaced."""
    merged = dict(base)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else value
    return merged
