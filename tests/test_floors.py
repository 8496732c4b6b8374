import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import dgs_lightning

ROOT = Path(dgs_lightning.__file__).parent
FLOORS = {
    "errors": -1,
    "files": -1,
    "bounds": -1,
    "configs": -1,
    "seeding": -1,
    "selection": 0,
    "diffusion": 0,
    "data": 1,
    "runs": 2,
    "models": 3,
    "distil": 4,
    "reporting": 4,
    "datamodules": 5,
    "tasks": 6,
    "callbacks": 7,
    "commands": 8,
    "experiment": 9,
    "doctor": 10,
}
TOP = 11
MODULES = sorted(ROOT.rglob("*.py"))


def floor_of(module: str) -> int:
    """Floor of a dotted module inside the package; the package itself carries only its version."""
    head = module.split(".")[0]
    return -1 if not head else FLOORS.get(head, TOP)


def imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("dgs_lightning"):
            yield node.module.removeprefix("dgs_lightning").lstrip(".")
        elif isinstance(node, ast.Import):
            yield from (
                a.name.removeprefix("dgs_lightning").lstrip(".")
                for a in node.names
                if a.name.startswith("dgs_lightning")
            )


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_floor_imports_only_from_itself_and_the_floors_below(path: Path) -> None:
    here = floor_of(".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix("__init__").rstrip("."))
    above = {name for name in imported(ast.parse(path.read_text())) if floor_of(name) > here >= -1}
    assert not above, f"{path.name} on floor {here} imports {above}"


@pytest.mark.parametrize(
    "path", [p for p in MODULES if floor_of(p.relative_to(ROOT).parts[0]) == 0], ids=lambda p: p.stem
)
def test_floor_zero_knows_neither_lightning_nor_files(path: Path) -> None:
    text = path.read_text()
    assert "lightning." not in text.replace("dgs_lightning.", "")
    assert "pathlib" not in text
    assert "open(" not in text
