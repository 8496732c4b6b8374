"""The workflows and issue templates of GitHub. None was run: a linter and the rules written here check them."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TEMPLATES = [path for path in sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml")) if path.name != "config.yml"]
OF_WORKFLOW = {"name", "on", "permissions", "concurrency", "jobs"}
OF_JOB = {"runs-on", "timeout-minutes", "strategy", "steps", "needs", "environment", "permissions"}
EVENTS = {"push": {"branches", "tags"}, "pull_request": set[str]()}


def read(path: Path) -> dict[str, Any]:
    """A file as GitHub reads it: ``on`` is a text there, and not true as in YAML 1.1."""
    content: dict[Any, Any] = yaml.load(path.read_text(), yaml.SafeLoader)
    return {"on" if key is True else key: value for key, value in content.items()}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_has_the_form_that_github_documents(path: Path) -> None:
    workflow = read(path)
    assert {"name", "on", "jobs"} <= workflow.keys() <= OF_WORKFLOW
    for event, filters in workflow["on"].items():
        assert set(filters or {}) <= EVENTS[event]
    for name, job in workflow["jobs"].items():
        assert {"runs-on", "steps", "timeout-minutes"} <= job.keys() <= OF_JOB, name
        assert not job.get("needs") or job["needs"] in workflow["jobs"]
        matrix = job.get("strategy", {}).get("matrix", {})
        assert all(isinstance(version, str) for version in matrix.get("python", []))  # 3.10 would be 3.1
        for step in job["steps"]:
            assert ("run" in step) != ("uses" in step)
            assert step.keys() <= {"run", "uses", "with", "name"}
            assert re.fullmatch(r"[\w-]+/[\w-]+@[\w/]+", step.get("uses", "a/b@v1"))
        used = re.findall(r"\$\{\{ ([\w.]+) \}\}", yaml.safe_dump(job))
        assert {value.removeprefix("matrix.") for value in used} <= matrix.keys()


def test_the_linter_of_workflows_finds_nothing(tmp_path: Path) -> None:
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    linter = shutil.which("zizmor", path=places)
    if linter is None:
        pytest.skip("zizmor, of the extra dev, is not installed")

    def lint(folder: Path) -> subprocess.CompletedProcess[str]:
        command = [
            linter,
            "--offline",
            "--strict-collection",
            "--config",
            str(ROOT / ".github" / "zizmor.yml"),
            str(folder),
        ]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    done = lint(ROOT / ".github" / "workflows")
    assert done.returncode == 0, done.stdout + done.stderr
    text = (ROOT / ".github" / "workflows" / "test.yml").read_text()
    for number, wrong in enumerate(
        (text.replace("runs-on", "runs_on"), text.replace("persist-credentials: false", ""))
    ):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "test.yml").write_text(wrong)
        assert lint(tmp_path / str(number)).returncode != 0


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_says_that_it_was_not_run_and_may_change_nothing(path: Path) -> None:
    assert path.read_text().startswith("# Not run yet")
    assert read(path)["permissions"] == {"contents": "read"}


def test_every_make_target_of_the_workflows_is_there() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    used = {target for path in WORKFLOWS for target in re.findall(r"run: make ([\w-]+)", path.read_text())}
    assert {"test", "docs", "wheel-test"} <= used <= targets


def test_a_release_is_published_by_trust_and_names_no_host_and_no_token() -> None:
    text = (ROOT / ".github" / "workflows" / "release.yml").read_text()
    publish = read(ROOT / ".github" / "workflows" / "release.yml")["jobs"]["publish"]
    assert publish["permissions"] == {"id-token": "write"}
    assert publish["needs"] == "build"
    assert publish["steps"][-1].keys() == {"uses"}  # no host, no password
    assert not re.search(r"https?:|secrets|password|repository-url|index-url", text)


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_a_template_asks_for_the_report_of_the_doctor(path: Path) -> None:
    template = read(path)
    assert {"name", "description", "body"} <= template.keys()
    ids = [part["id"] for part in template["body"]]
    assert len(set(ids)) == len(ids)
    assert all(part["type"] == "textarea" and part["attributes"]["label"] for part in template["body"])
    report = next(part for part in template["body"] if part["id"] == "report")
    assert "dgs doctor EXPERIMENT --report" in report["attributes"]["label"]
    assert report["validations"]["required"]
