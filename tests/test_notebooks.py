"""The notebooks: they run from a clean start, are stored without results, and name code that exists."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[1] / "notebooks"
NAMES = (
    "01_difficulty_and_sampling",
    "02_minimax_and_guidance",
    "03_distil_your_own_images",
    "04_methods_of_others",
)
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
    NotebookClient(notebook, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 4


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
