"""The house of docs/architecture.md: floors, no circles, files and constructors of a size to read at once."""

import ast
import graphlib
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path

import lightning.pytorch as pl
import pytest

import dgs_lightning

ROOT = Path(dgs_lightning.__file__).parent
FLOORS = {
    "errors": -1,
    "files": -1,
    "bounds": -1,
    "configs": -1,
    "documents": -1,
    "seeding": -1,
    "selection": 0,
    "diffusion": 0,
    "matching": 0,
    "data": 1,
    "runs": 2,
    "models": 3,
    "distil": 4,
    "exchange": 4,
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
MOST_MODULES, MOST_LINES, MOST_PARAMETERS = 8, 350, 12  # at the root of the package, of a file, of a constructor


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


def name_of(path: Path) -> str:
    """Dotted name of a module inside the package; empty for the package itself."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix("__init__").rstrip(".")


def imported_modules(path: Path, known: set[str]) -> set[str]:
    """Modules of the package that a module imports, whether it names them or something in them."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("dgs_lightning"):
            module = node.module.removeprefix("dgs_lightning").lstrip(".")
            inside = {f"{module}.{alias.name}".lstrip(".") for alias in node.names} & known
            found |= inside or {module}
    return found - {"", name_of(path)}


def test_no_modules_import_each_other_in_a_circle() -> None:
    known = {name_of(path) for path in MODULES}
    graph = {name_of(path): imported_modules(path, known) for path in MODULES}
    graphlib.TopologicalSorter(graph).prepare()  # raises an error that names the circle


def test_the_root_of_the_package_has_few_modules() -> None:
    assert len(list(ROOT.glob("*.py"))) <= MOST_MODULES


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_file_can_be_read_at_once(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MOST_LINES


def lightning_classes() -> list[type]:
    """LightningModules, datamodules and callbacks that the package defines."""
    modules = [importlib.import_module(f"dgs_lightning.{name}") for path in MODULES if (name := name_of(path))]
    kinds = (pl.LightningModule, pl.LightningDataModule, pl.Callback)
    found = {
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, kinds) and value.__module__.startswith("dgs_lightning")
    }
    return sorted(found, key=lambda kind: kind.__qualname__)


def test_the_constructor_of_a_lightning_class_has_few_parameters() -> None:
    counts = {kind.__qualname__: len(inspect.signature(kind).parameters) for kind in lightning_classes()}
    assert len(counts) > len(dgs_lightning.__all__) / 2
    assert {name: count for name, count in counts.items() if count > MOST_PARAMETERS} == {}
