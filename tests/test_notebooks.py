"""The notebooks: they run from a clean start, are stored without results, and name code that exists."""

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from IPython.core.interactiveshell import InteractiveShell
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[1] / "notebooks"
NAMES = (
    "01_difficulty_and_sampling",
    "02_minimax_and_guidance",
    "03_distil_your_own_images",
    "04_methods_of_others",
    "05_install_and_distil",
)
SHORTER = {  # cells that are run after the cell with this id, since the lengths of trainings are not what is tested
    "choose-sets": 'settings[-2:] = ["options.dm.trainer.max_steps=3", "evaluate.trainer.max_steps=3"]'
}
LINK = re.compile(r"\[(`?)([^\]`]+)`?\]\(([^)]+)\)")  # [`name`](file) or [words](file)

each_notebook = pytest.mark.parametrize("name", NAMES)


def read(name: str) -> nbformat.NotebookNode:
    notebook: nbformat.NotebookNode = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)  # type: ignore[no-untyped-call]
    return notebook


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_every_notebook_is_tested() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == list(NAMES)


@pytest.mark.slow
@each_notebook
def test_a_notebook_runs_from_start_to_end_and_draws(name: str, tmp_path: Path) -> None:
    notebook = read(name)
    for place, cell in reversed([*enumerate(notebook.cells, 1)]):
        if cell.id in SHORTER:
            notebook.cells.insert(place, nbformat.v4.new_code_cell(SHORTER[cell.id]))  # type: ignore[no-untyped-call]
    NotebookClient(notebook, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 4


@pytest.mark.parametrize(
    ("there", "given", "wheels", "asked_for"),
    [
        (True, None, ["0.1", "0.2"], []),
        (False, "dgs-lightning", ["0.1"], ["dgs-lightning"]),
        (
            False,
            "dgs_lightning-0.2-py3-none-any.whl",
            ["0.1", "0.2"],
            ["dgs-lightning", "dgs_lightning-0.2-py3-none-any.whl"],
        ),
        (False, None, [], ["dgs-lightning"]),
        (False, None, ["0.1"], ["dgs-lightning", "dgs_lightning-0.1-py3-none-any.whl"]),
    ],
    ids=["is there", "by name", "the newest wheel", "neither", "a wheel that cannot be installed"],
)
def test_the_package_is_installed_by_name_or_else_from_a_wheel_beside_the_notebook(
    there: bool,
    given: str | None,
    wheels: list[str],
    asked_for: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for version in wheels:
        (tmp_path / f"dgs_lightning-{version}-py3-none-any.whl").touch()
    monkeypatch.chdir(tmp_path)
    installed = [there]
    asked: list[str] = []

    def pip(line: str) -> None:
        asked.append(line.removeprefix("install --quiet "))
        installed.append(asked[-1] == given)

    monkeypatch.setattr("importlib.util.find_spec", lambda name: name if any(installed) else None)
    shell: Any = InteractiveShell()  # type: ignore[no-untyped-call]
    shell.register_magic_function(pip)
    (cell,) = [cell for cell in code_cells(read("05_install_and_distil")) if cell.id == "install"]
    result = shell.run_cell(cell.source)
    assert asked == asked_for
    if there or given:
        result.raise_error()
    else:
        with pytest.raises(RuntimeError, match="put its wheel beside this notebook"):
            result.raise_error()


@each_notebook
def test_a_notebook_is_stored_without_results(name: str) -> None:
    notebook = read(name)
    assert [(cell.execution_count, cell.outputs, cell.metadata) for cell in code_cells(notebook)] == [
        (None, [], {}) for _ in code_cells(notebook)
    ]
    assert notebook.metadata.keys() == {"kernelspec", "language_info"}


@each_notebook
def test_a_notebook_is_valid_and_its_cells_have_names_of_their_own(name: str) -> None:
    notebook = read(name)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor, notebook.metadata.kernelspec.name) == (4, 5, "python3")
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)


@each_notebook
def test_what_a_notebook_links_to_is_there_and_defines_the_name(name: str) -> None:
    links = [link for cell in read(name).cells if cell.cell_type == "markdown" for link in LINK.findall(cell.source)]
    assert links
    for code, word, target in links:
        text = (FOLDER / target).read_text(encoding="utf-8")
        assert not code or re.search(rf"^(def|class) {word}\b", text, re.MULTILINE), f"{word} is not in {target}"


@each_notebook
def test_a_notebook_uses_public_names_alone(name: str) -> None:
    source = "\n".join(cell.source for cell in code_cells(read(name)))
    assert not re.search(r"\._[a-z]|\bimport _", source)
