from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from dgs_lightning.__main__ import main
from dgs_lightning.doctor.examination import examine
from dgs_lightning.doctor.finding import Finding, show
from dgs_lightning.experiment.settings import Experiment


def problems(experiment: Experiment) -> list[Finding]:
    return [finding for finding in examine(experiment) if finding.level == "problem"]


def files(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def test_a_healthy_setup_has_no_problem_and_is_left_as_it_was(healthy: Experiment, tmp_path: Path) -> None:
    before = files(tmp_path)
    findings = examine(healthy)
    assert not [finding for finding in findings if finding.level == "problem"]
    assert files(tmp_path) == before
    said = " ".join(finding.what for finding in findings)
    for word in ("settings of all", "10 classes of imagenette", "GPUs", "disk:", "memory:", "to do:", "time:"):
        assert word in said


def test_every_problem_and_warning_comes_with_a_remedy(healthy: Experiment) -> None:
    spoilt = replace(healthy, classes="imagewoof", estimator="torchvision:resnet50", dit="nowhere/at/all", ipc=50)
    found = [finding for finding in examine(spoilt) if finding.level != "ok"]
    assert len(found) >= 4
    assert all(finding.remedy for finding in found)


def test_a_setting_that_a_stage_does_not_know_is_named_with_its_stage(healthy: Experiment) -> None:
    found = problems(replace(healthy, evaluate={"model": {"init_args": {"epoch": 4}}}))
    assert any("stage evaluation/" in finding.what and "epoch" in finding.what for finding in found)


def test_images_are_looked_at_even_where_the_settings_are_wrong(healthy: Experiment) -> None:
    found = [finding.what for finding in problems(replace(healthy, methods=["dream"], classes="imagewoof"))]
    assert any("'dream'" in what for what in found)
    assert any("imagewoof" in what for what in found)


def test_a_network_that_the_images_are_too_small_for_is_a_problem(healthy: Experiment) -> None:
    found = problems(replace(healthy, networks=["convnet2", "convnet6"]))
    assert any("convnet6" in finding.what and "stage evaluation/" in finding.what for finding in found)
    assert not any("convnet2" in finding.what for finding in found)


def test_the_exit_status_is_one_where_there_is_a_problem_and_zero_elsewhere(
    healthy: Experiment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "small.yaml"
    file.write_text(yaml.safe_dump(vars(healthy)))
    assert main(["doctor", str(file), "--output", str(tmp_path / "elsewhere")]) == 0
    assert "0 problem" in capsys.readouterr().out
    assert main(["doctor", str(file), "--set", "classes=imagewoof"]) == 1
    assert "imagenette" in capsys.readouterr().out
    assert not (tmp_path / "elsewhere").exists()


def test_an_experiment_that_is_not_valid_is_a_problem_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "quickstart", "--set", "colour=3"]) == 1
    assert "colour" in capsys.readouterr().out


def test_brackets_in_a_finding_are_shown_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert show([Finding("warning", "ipc [5, 10] [red]", "try [bold]")]) == 0
    out = capsys.readouterr().out
    assert "[5, 10] [red]" in out
    assert "[bold]" in out


def test_without_a_terminal_a_finding_is_one_line_and_what_to_do_another(capsys: pytest.CaptureFixture[str]) -> None:
    path = "/data/" + "/".join(f"a folder with a long name {number}" for number in range(9))
    show([Finding("problem", f"{path}: found nothing", f"Put images into {path}"), Finding("ok", "a network")])
    assert capsys.readouterr().out.splitlines() == [
        f"problem  {path}: found nothing",
        f"         what to do: Put images into {path}",
        "ok       a network",
        "1 ok, 0 warning, 1 problem",
    ]
