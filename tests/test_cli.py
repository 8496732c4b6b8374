import subprocess
import sys

import pytest

from dgs_lightning.__main__ import COMMANDS, main
from dgs_lightning.cli import with_shipped_configs
from dgs_lightning.shipped import ROOT


def test_help_lists_every_command_without_importing_torch() -> None:
    code = (
        "import sys; from dgs_lightning.__main__ import main; main(['--help'])\n"
        "assert not {'torch', 'lightning', 'numpy'} & set(sys.modules), 'heavy imports'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(f"  {name} " in done.stdout for name in COMMANDS)


def test_an_unknown_command_is_answered_with_those_that_exist(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["distil"]) == 2
    assert "'distil'" in capsys.readouterr().err


def test_bad_input_is_one_line_without_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "nowhere.yaml"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "nowhere.yaml" in error
    assert "Traceback" not in error


@pytest.mark.parametrize("flag", [["-c", "trainer/cpu"], ["--config", "trainer/cpu.yaml"], ["--config=trainer/cpu"]])
def test_shipped_configs_are_named_like_files(flag: list[str]) -> None:
    assert with_shipped_configs(flag)[-1].endswith(str(ROOT / "trainer" / "cpu.yaml"))


def test_help_of_a_command_says_what_it_does_and_each_setting_once(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["select", "--help"])
    text = capsys.readouterr().out
    assert "Select a distilled set from an image pool." in text
    assert "  --ipc IPC" in text
    assert "Args:" not in text
    assert "Raises:" not in text
