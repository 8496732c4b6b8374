from pathlib import Path

import pytest
import yaml

from dgs_lightning.__main__ import main
from dgs_lightning.data.cards import versions


def reported(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, object]:
    assert main(["doctor", *arguments, "--report"]) == 0
    found: dict[str, object] = yaml.safe_load(capsys.readouterr().out)
    return found


def test_a_report_has_versions_and_changed_settings_and_no_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cats").mkdir()
    changes = ("ipc=7", "data=cats", "original=/home/me/photos", "dit=facebook/DiT-XL-2-256", "codec=me/mine")
    options = [part for change in changes for part in ("--set", change)]
    found = reported(capsys, "quickstart", "--output", str(tmp_path / "run"), *options)
    settings = found["settings"]
    assert isinstance(settings, dict)
    assert found["versions"] == versions()
    assert {name: settings[name] for name in ("ipc", "data", "original", "dit", "codec", "output", "name")} == {
        "ipc": 7,
        "data": "PATH",
        "original": "PATH",
        "dit": "facebook/DiT-XL-2-256",
        "codec": "PATH",
        "output": "PATH",
        "name": "quickstart",
    }
    assert "PATH" not in str(settings["evaluate"])  # shipped configs are no paths of the user's
    assert str(tmp_path) not in str(found)
    assert list(tmp_path.iterdir()) == [tmp_path / "cats"]


def test_a_report_needs_no_experiment_and_an_examination_does(capsys: pytest.CaptureFixture[str]) -> None:
    assert reported(capsys).keys() == {"versions", "machine"}
    assert main(["doctor"]) == 2
    assert "experiment: found nothing, expected an experiment to examine" in capsys.readouterr().err
