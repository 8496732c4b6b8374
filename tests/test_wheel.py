"""The package as others get it: built, installed without the tree, and run outside of it."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

import dgs_lightning

pytestmark = pytest.mark.slow

PACKAGE = Path(dgs_lightning.__file__).parent
ROOT = PACKAGE.parents[1]
TINY = (
    "methods=[random, dit_dgs]",
    "ipc=2",
    "pool_multiple=3",
    "folds=2",
    "draws=1",
    "repeats=1",
    "pretrain.trainer.max_steps=40",
    "generate.model.init_args.steps=10",
    "cross_fit.trainer.max_epochs=2",
    "judge.trainer.max_epochs=2",
    "evaluate.trainer.max_steps=8",
)


def call(*command: str | Path, cwd: Path) -> str:
    """What a command prints that knows nothing of this tree."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build(tree: Path, output: Path) -> tuple[Path, Path]:
    """Wheel and sdist of a tree."""
    call(sys.executable, "-m", "hatchling", "build", "--directory", output, cwd=tree)
    return next(output.glob("*.whl")), next(output.glob("*.tar.gz"))


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as files:
        return {name: files.read(name) for name in files.namelist()}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return build(ROOT, tmp_path_factory.mktemp("built"))


@pytest.fixture(scope="module")
def installed(built: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment with the wheel, which finds what the wheel needs where these tests find it."""
    environment = tmp_path_factory.mktemp("environment")
    venv.create(environment, symlinks=True)
    python = environment / "bin" / "python"
    call(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", built[0], cwd=ROOT)
    path = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site_packages = Path(call(python, "-c", path, cwd=environment).strip())
    (site_packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return environment


def test_the_wheel_has_every_file_of_the_package_the_configs_and_the_licence(built: tuple[Path, Path]) -> None:
    found = contents(built[0])
    for folder, prefix in ((PACKAGE, "dgs_lightning"), (ROOT / "configs", "dgs_lightning/configs")):
        files = [path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
        shipped = {f"{prefix}/{path.relative_to(folder)}": path.read_bytes() for path in files}
        assert {name: found.get(name) for name in shipped} == shipped
    assert "dgs_lightning/runs/layout.py" in found  # a folder that .gitignore must not name
    (licence,) = [name for name in found if name.endswith("/LICENSE")]
    assert found[licence] == (ROOT / "LICENSE").read_bytes()


def test_the_sdist_builds_the_same_wheel(built: tuple[Path, Path], tmp_path: Path) -> None:
    shutil.unpack_archive(built[1], tmp_path)
    (tree,) = tmp_path.iterdir()
    assert contents(build(tree, tmp_path / "again")[0]) == contents(built[0])


def test_the_quickstart_runs_from_the_wheel_in_any_folder(installed: Path, tmp_path: Path) -> None:
    where = call(installed / "bin" / "python", "-c", "import dgs_lightning as d; print(d.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(installed)
    settings = [part for setting in TINY for part in ("--set", setting)]
    call(installed / "bin" / "dgs", "run", "quickstart", "--output", "tiny", *settings, cwd=tmp_path)
    summary = json.loads((tmp_path / "tiny" / "summary.json").read_text())
    assert len(summary["rows"]) == 2
    assert {path.name for path in tmp_path.iterdir()} == {"tiny"}
