from pathlib import Path

import pytest

from dgs_lightning.commands.cli import check, function_arguments
from dgs_lightning.configs import load_config
from dgs_lightning.errors import InputError
from dgs_lightning.experiment.plan import expand


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder of its own, with configs in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "first.yaml").write_text("a: {x: 1, y: 1}\nb: 1\n")
    (tmp_path / "second.yaml").write_text("base: first.yaml\na: {y: 2}\n")
    (tmp_path / "third.yaml").write_text("base: second.yaml\nb: 3\n")
    return tmp_path


@pytest.mark.usefixtures("folder")
def test_a_config_changes_the_one_that_it_starts_from() -> None:
    assert load_config("third.yaml") == {"a": {"x": 1, "y": 2}, "b": 3}
    assert expand({"config": "third.yaml"}) == {"a": {"x": 1, "y": 2}, "b": 3}


def test_a_base_is_looked_up_among_the_shipped_configs(folder: Path) -> None:
    (folder / "mine.yaml").write_text("base: classify/digits\nmodel: {init_args: {learning_rate: 0.5}}\n")
    shipped, mine = load_config("classify/digits"), load_config("mine.yaml")
    assert mine.pop("model")["init_args"] == {**shipped.pop("model")["init_args"], "learning_rate": 0.5}
    assert mine == shipped


@pytest.mark.parametrize("text", ["base: circle.yaml", "base: other.yaml"])
def test_a_config_that_starts_from_itself_is_refused(text: str, folder: Path) -> None:
    (folder / "circle.yaml").write_text(text)
    (folder / "other.yaml").write_text("base: circle.yaml")
    with pytest.raises(InputError, match=r"circle.yaml: base: found a circle: .*circle.yaml -> .*circle.yaml"):
        load_config("circle.yaml")


def test_a_base_is_the_name_of_one_config(folder: Path) -> None:
    (folder / "two.yaml").write_text("base: [first.yaml, second.yaml]")
    with pytest.raises(InputError, match=r"two.yaml: base: .*expected the name of one config"):
        load_config("two.yaml")


def test_the_config_of_a_command_has_a_base(folder: Path) -> None:
    (folder / "train.yaml").write_text("base: classify/digits\ndata: {init_args: {train: a, val: b}}\n")
    check("fit", ["--config", "train.yaml"])
    (folder / "easy.yaml").write_text("base: select/validation_easy\nipc: 3\n")
    (folder / "more.yaml").write_text("pool: images\n")
    arguments = function_arguments("select", ["--output", "set", "--config=easy.yaml", "--config", "more.yaml"])
    assert (arguments["ipc"], arguments["pool"], arguments["output"]) == (3, "images", "set")
    assert arguments["method"] == load_config("select/validation_easy")["method"]
