"""The documentation: built without a warning, linked to what there is, its examples run as they stand."""

import importlib
import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from dgs_lightning.commands.arguments import experiment_parser
from dgs_lightning.commands.cli import check
from dgs_lightning.commands.publish import publish_parser
from dgs_lightning.data.cards import read_card
from dgs_lightning.data.records import read_manifest
from dgs_lightning.errors import InputError
from dgs_lightning.experiment import evaluate
from dgs_lightning.experiment.settings import load_experiment
from dgs_lightning.models.classifier import ClassifierConfig, save_classifier
from dgs_lightning.models.dit.formats import save_dit
from dgs_lightning.models.dit.network import DiT, DiTConfig, initialise
from dgs_lightning.runs.methods import METHODS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMANDS_IN_TEXT = (
    re.compile(r"^\$ dgs (.*?)(?: +#.*)?$", re.MULTILINE),
    re.compile(r"^\$ torchrun .* -m dgs_lightning +(.*)$", re.MULTILINE),
    re.compile(r"^\$ sbatch .*'srun dgs (.*)'$", re.MULTILINE),
    re.compile(r"`dgs ((?:run|doctor) [a-z][^`]*)`"),
)
LABELS = ("ant", "bee", "cow")


def in_text(command: str) -> str:
    """A command on one line."""
    return command.replace("\\\n", "")


def commands_of(text: str) -> set[str]:
    """Arguments of each ``dgs`` in a page: in a console, in a job of several machines, in a sentence."""
    return {match[1] for form in COMMANDS_IN_TEXT for match in form.finditer(in_text(text))}


COMMANDS = sorted({command for page in PAGES for command in commands_of(page.read_text())})


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=quiet, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 2, 3, 4, 6, 7, 8, 9, 10])
def test_each_equation_is_a_formula_with_a_link_to_the_function_that_says_so(site: Path, number: int) -> None:
    text = (site / "method" / "index.html").read_text()
    (section,) = re.findall(rf'id="eq-{number}".*?(?=<h[23])', text, re.DOTALL)
    assert "<math" in section
    page, anchor = re.findall(r'href="\.\./reference/(\w+)/#([\w.]+)"', section)[0]
    assert f'id="{anchor}"' in (site / "reference" / page / "index.html").read_text()
    module, _, name = anchor.rpartition(".")
    assert re.search(rf"Eq\. {number}\b", getattr(importlib.import_module(module), name).__doc__)


@pytest.mark.slow
def test_no_page_fetches_anything_from_elsewhere_or_leaves_a_formula_to_a_script(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text()
        assert not re.search(r'(?:<(?:script|img)[^>]* src|<link[^>]* href)="https?:', text), page
        assert "arithmatex" not in text, page
        assert not re.search(r":(?:func|class|math|data|attr):", text), page


@pytest.mark.slow
def test_the_page_of_methods_has_a_row_for_each_method_that_can_be_run(site: Path) -> None:
    text = (site / "methods" / "index.html").read_text()
    keys = re.findall(r"<tr>\s*<td>[^<]*</td>\s*<td><code>(\w+)</code></td>", text)
    assert keys == [method.key for method in METHODS.values() if not method.quoted]


@pytest.mark.slow
def test_no_example_of_a_docstring_is_left_as_text(site: Path) -> None:
    for page in (site / "reference").rglob("*.html"):
        assert not re.search(r"```|<p>(?:<[^>]*>)*&gt;&gt;&gt; ", page.read_text()), page


@pytest.mark.parametrize("command", COMMANDS)
def test_the_settings_of_each_command_exist(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tutorial = (ROOT / "docs" / "tutorial.md").read_text()
    (tmp_path / "photos.yaml").write_text(re.findall(r'```yaml title="photos.yaml"\n(.*?)```', tutorial, re.DOTALL)[0])
    name, *args = shlex.split(command)
    if name in ("run", "doctor"):
        options = experiment_parser(name, "").parse_args([arg for arg in args if arg != "--dry-run"])
        assert load_experiment(options.experiment, options.set, options.output).title
    elif name == "evaluate":
        assert load_experiment(evaluate.arguments(args).experiment, []).networks
    elif name == "publish":
        publish_parser().parse_args(args)
    else:
        check(name, args)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A DiT, a classifier and images, under the names that the examples give them."""
    model = DiT(DiTConfig(input_size=4, num_classes=3, in_channels=1, hidden_size=16, depth=1, num_heads=2), LABELS)
    initialise(model, 0)
    save_dit(model, tmp_path / "model")
    config = ClassifierConfig("convnet1", LABELS, 4, 3, (0.5,) * 3, (0.25,) * 3, width=4)
    save_classifier(config.build(), config, tmp_path / "estimator")
    rng = np.random.default_rng(0)
    for label in LABELS:
        (tmp_path / "photos" / label).mkdir(parents=True)
        for index in range(5):
            pixels = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / label / f"{index}.png")
    return tmp_path


def run_example(name: str, folder: Path, page: str = "how-to/extend.md", changes: Sequence[str] = ()) -> None:
    """Write an example of a page into a folder, and run the command that follows it, with changed settings."""
    text = in_text((ROOT / "docs" / page).read_text())
    form = rf'```python title="{name}"\n(.*?)```.*?(?:```console\n\$ |`)python (.*?)(?:\n```|`)'
    ((example, command),) = re.findall(form, text, re.DOTALL)
    (folder / name).write_text(example)
    done = subprocess.run(
        [sys.executable, *shlex.split(command), *changes], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_example_of_a_guidance_guides(folder: Path) -> None:
    run_example("my_guidance.py", folder)
    assert len(read_manifest(folder / "white")) == 2 * len(LABELS)
    guidance = read_card(folder / "white")["settings"]["model"]["guidance"]
    assert guidance == {"class": "TowardsWhite", "scale": 0.2}


@pytest.mark.slow
def test_the_example_of_a_difficulty_scores(folder: Path) -> None:
    run_example("my_difficulty.py", folder)
    records = read_manifest(folder / "ranks")
    assert {record.difficulty for record in records} <= {0.0, 0.5, 1.0}
    assert all(record.estimator and record.estimator.endswith(":Rank") for record in records)
    assert all((record.difficulty == 0) == (record.predicted == record.label) for record in records)


@pytest.mark.slow
def test_the_example_of_a_network_is_trained(folder: Path) -> None:
    run_example("my_network.py", folder)
    result = json.loads((folder / "pooled" / "result.json").read_text())
    assert result["network"] == "timm:pooled"
    assert result["accuracy_best"] > 1 / len(LABELS)


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [1, 2])
def test_the_example_of_a_method_runs_to_a_row_of_the_table(jobs: int, tmp_path: Path) -> None:
    lengths = ("cross_fit.trainer.max_steps=20", "evaluate.trainer.max_steps=20", "judge=null")
    tiny = [
        part for setting in (f"jobs={jobs}", "draws=1", "repeats=1", "folds=2", *lengths) for part in ("--set", setting)
    ]
    run_example("my_method.py", tmp_path, "methods.md", tiny)
    assert "| Gentle | 10 |" in (tmp_path / "runs" / "quickstart" / "summary.md").read_text()


def tool(name: str) -> ModuleType:
    """A script of docs/tools."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


def test_the_diagrams_are_those_that_their_script_draws_and_a_page_shows_each() -> None:
    script = tool("diagrams")
    shown = "".join(page.read_text() for page in PAGES)
    for name, draw in script.DIAGRAMS.items():
        text = (ROOT / "docs" / "images" / f"{name}.svg").read_text()
        assert text == draw().svg(), f"run docs/tools/diagrams.py to draw {name} anew"
        assert "prefers-color-scheme: dark" in text
        assert f"images/{name}.svg)" in shown


def test_the_tables_of_the_pages_are_those_of_the_kept_records() -> None:
    script = tool("results")
    pages = {page: page.read_text() for page in PAGES if script.TABLE.search(page.read_text())}
    assert {str(page.relative_to(ROOT)) for page in pages} == set(script.PAGES)
    for page, text in pages.items():
        assert script.filled(text) == text, f"run docs/tools/results.py to fill {page.name} anew"
    (changed,) = {text.replace("| 0.231 |", "| 0.213 |", 1) for page, text in pages.items() if page.name == "README.md"}
    assert script.filled(changed) == pages[ROOT / "README.md"]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("rows", "rows"),
        ("results | Mean", "Mean"),
        ("results | Method | IPC = 7", "no row with 7"),
        ("results | Method = DiT or X", "no row with X"),
    ],
)
def test_a_table_that_the_records_do_not_have_is_an_error(wanted: str, found: str) -> None:
    with pytest.raises(InputError, match=f"results/quickstart.*{found}"):
        tool("results").table("results/quickstart", wanted)


def test_kept_records_are_small_and_name_no_place_of_a_machine() -> None:
    for path in (ROOT / "results").glob("*/records.json"):
        text = path.read_text()
        assert len(text) < 500_000
        assert not re.search(r'"(/|~|\.\.?/)', text), f"{path} has a path of a machine"
