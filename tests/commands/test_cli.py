import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dgs_lightning import __main__
from dgs_lightning.__main__ import COMMANDS, main
from dgs_lightning.commands.arguments import with_one_config
from dgs_lightning.commands.cli import execute, logger_of
from dgs_lightning.errors import InputError
from dgs_lightning.examples import write_latents

HEAVY = {"torch", "lightning", "numpy", "scipy"}
CSV = SimpleNamespace(class_path="CSVLogger")  # a logger of the user


def without(modules: set[str], args: list[str], status: int = 0) -> str:
    """What a command prints that must end with a status, and not import modules that take seconds to import."""
    code = (
        f"import sys; from dgs_lightning.__main__ import main; assert (main({args}) or 0) == {status}\n"
        f"found = {modules} & set(sys.modules); assert not found, found"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_help_lists_every_command_without_importing_torch() -> None:
    shown = without(HEAVY, ["--help"])
    assert all(f"  {name} " in shown for name in COMMANDS)


def test_a_dry_run_plans_without_importing_torch(tmp_path: Path) -> None:
    shown = without(HEAVY, ["run", "quickstart", "--output", str(tmp_path / "run"), "--dry-run"])
    assert "finetune" in shown


def test_the_doctor_refuses_a_wrong_setting_without_importing_torch() -> None:
    assert "colour" in without(HEAVY, ["doctor", "quickstart", "--set", "colour=3"], status=1)


def test_the_doctor_imports_nothing_that_only_a_run_needs(tmp_path: Path) -> None:
    only_in_runs = {"diffusers", "sklearn", "pandas", "timm", "tensorboard", "ray"}
    few = ["--set", "methods=[random, dit]", "--set", "networks=[]", "--output", str(tmp_path / "run")]
    assert "settings of all" in without(only_in_runs, ["doctor", "quickstart", *few])


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
    assert with_one_config([*flag, "--x=1"]) == ["--config", "trainer:\n  accelerator: cpu\n  devices: 1\n", "--x=1"]


def test_help_of_a_command_says_what_it_does_and_each_setting_once(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["select", "--help"])
    text = capsys.readouterr().out
    assert "Select a distilled set from an image pool." in text
    assert "  --ipc IPC" in text
    assert "Args:" not in text
    assert "Raises:" not in text


@pytest.fixture
def handlers() -> Iterator[None]:
    """The test's own answers to signals, given back afterwards."""
    before = {number: signal.getsignal(number) for number in __main__.SIGNALS}
    signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background of a shell it is ignored
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # so it is under nohup
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("number", "status", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated"), (signal.SIGHUP, 129, "hung up")],
)
@pytest.mark.parametrize(
    "made_of_it",
    [None, ImportError("half a module"), InputError("a", found="b", expected="c", remedy="D"), SystemExit(1)],
)
def test_a_signal_ends_a_command_in_words_whatever_a_library_makes_of_it(
    number: int,
    status: int,
    word: str,
    made_of_it: BaseException | None,
    handlers: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run(command: str, args: list[str]) -> int:
        try:
            os.kill(os.getpid(), number)
            time.sleep(10)
        except BaseException as signalled:
            raise made_of_it or signalled from None
        raise AssertionError("no signal came")

    monkeypatch.setattr(__main__, "dispatch", run)
    assert main(["fit"]) == status
    assert capsys.readouterr().err == f"dgs fit: {word}; the same command continues\n"


def test_a_signal_that_the_shell_has_set_to_be_ignored_stays_so(
    handlers: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def run(command: str, args: list[str]) -> int:
        os.kill(os.getpid(), signal.SIGINT)
        return 0

    monkeypatch.setattr(__main__, "dispatch", run)
    assert main(["fit"]) == 0


def test_an_error_of_the_program_itself_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch, handlers: None) -> None:
    def run(command: str, args: list[str]) -> int:
        raise KeyError("a fault of ours")

    monkeypatch.setattr(__main__, "dispatch", run)
    with pytest.raises(KeyError, match="a fault of ours"):
        main(["fit"])


def test_nobody_reading_the_output_is_no_error() -> None:
    code = (
        "import sys; from dgs_lightning import __main__\n"
        "__main__.dispatch = lambda *_: print('x' * 100_000)\n"
        "sys.exit(__main__.main(['run']))"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_tensorboard_shows_a_training_under_the_name_of_its_folder_also_after_a_restart(tmp_path: Path) -> None:
    cache, root = write_latents(str(tmp_path / "latents")), tmp_path / "evaluation" / "seed0"
    size = "--model.size={hidden_size: 16, depth: 1, num_heads: 2, patch_size: 2}"
    run = ["--config=minimax/pretrain_digits.yaml", size, f"--data.cache={cache}", "--data.batch_size=2"]
    run += [f"--trainer.default_root_dir={root}", "--trainer.accelerator=cpu", "--trainer.log_every_n_steps=1"]
    for steps in (2, 4):  # the second training goes on after the checkpoint of step 2
        execute("fit", [*run, f"--trainer.max_steps={steps}"])
    assert len(list(tmp_path.rglob("*tfevents*"))) == 2
    (folder,) = {path.parent for path in tmp_path.rglob("*tfevents*")}
    assert folder == root
    events = EventAccumulator(str(folder)).Reload()
    assert [scalar.step for scalar in events.Scalars("loss")] == [0, 1, 2, 3]
    assert "hp_metric" not in events.Tags()["scalars"]


@pytest.mark.parametrize(
    ("command", "logger", "root", "expected"),
    [
        ("fit", None, "RUN", "RUN"),
        ("fit", True, "RUN", "RUN"),
        ("fit", False, "RUN", False),
        ("fit", None, None, True),  # the folder of the terminal, where Lightning numbers the trainings
        ("predict", None, "RUN", False),
        ("predict", True, "RUN", "RUN"),
        ("predict", CSV, "RUN", CSV),
    ],
)
def test_a_logger_that_the_user_sets_stays(command: str, logger: object, root: str | None, expected: object) -> None:
    found = logger_of(command, SimpleNamespace(logger=logger, default_root_dir=root))
    if expected == "RUN":
        assert found.class_path == "lightning.pytorch.loggers.TensorBoardLogger"
        found = found.init_args.save_dir
    assert found == expected
