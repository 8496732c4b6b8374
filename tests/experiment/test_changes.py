"""What ``--set`` takes: texts as they are typed, YAML elsewhere, and errors that name the option."""

from pathlib import Path

import pytest

from dgs_lightning.commands.cli import function_arguments
from dgs_lightning.documents.texts import yaml_text
from dgs_lightning.errors import InputError
from dgs_lightning.experiment.plan import Plan
from dgs_lightning.experiment.settings import load_experiment


@pytest.mark.parametrize(
    "text", ["photos #2", "2024", "3e5", "no", "~", "off", "2024-01-31", "a: b", "[1]", '"mine"', "#1", "@home", "!x"]
)
def test_a_text_setting_takes_what_is_typed(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    changes = [f"{name}={text}" for name in ("data", "title", "dit", "classes")]
    experiment = load_experiment("quickstart", changes)
    assert [experiment.data, experiment.title, experiment.dit, experiment.classes] == [text] * 4
    for data in (text, tmp_path / text):  # a stage gets it, too
        (tmp_path / text).mkdir(exist_ok=True)
        stage = Plan(load_experiment("quickstart", [f"data={data}", f"classes={text}", "methods=[full]"])).everything()[
            0
        ]
        (tmp_path / "stage.yaml").write_text(yaml_text(stage.settings(tmp_path / "run")))
        settings, _ = function_arguments("prepare", ["--config", str(tmp_path / "stage.yaml")])
        assert (settings["data"], settings["classes"]) == (str(data), text)


def test_a_text_in_a_section_is_not_cut_at_a_number_sign() -> None:
    experiment = load_experiment("quickstart", ["prepare.classes=list #2", "score.model.init_args.weights='a #3'"])
    assert experiment.prepare == {"classes": "list #2"}
    assert experiment.score["model"]["init_args"]["weights"] == "a #3"  # in quotes: YAML as before


def test_null_unsets_an_optional_text_and_no_other() -> None:
    assert load_experiment("quickstart", ["data=null", "dit=null"]).data is None
    for change in ("title=null", "codec=null", "data=", "codec="):
        with pytest.raises(InputError, match=rf"^--set {change.split('=')[0]}.*: found (null|nothing), expected "):
            load_experiment("quickstart", [change])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("ipc=10,20", r"--set ipc: found '10,20', .* Write a list in brackets: \[10,20\]"),
        ("ipc=ten", r"--set ipc: found 'ten', expected a whole number or a list"),
        ("networks=resnet_ap10", r"--set networks: found 'resnet_ap10', expected a list\. .*: \[resnet_ap10\]"),
        ("methods={dit: 1}", "--set methods: found a mapping, expected a list"),
        ("variants=null", "--set variants: found null, expected a mapping"),
        ("variants.x.select.share=2\nvariants.x.select=3", r"--set variants\.x\.select"),
        ("judge.trainer=3\njudge=yes", "--set judge: found True, expected a mapping or null"),
        ("draws=0", "--set draws: found 0, expected at least 1"),
        ("title.main=x", r"--set title\.main: found a mapping, expected text"),
        ("netwroks=[convnet2]", r"--set netwroks: found an unknown setting, expected one of networks"),
        ("options.nope.x=1", r"--set options\.nope\.x: found 'nope'"),
    ],
)
def test_an_error_names_the_option_that_was_typed(change: str, says: str) -> None:
    with pytest.raises(InputError, match=f"^{says}"):
        load_experiment("quickstart", change.split("\n"))


def test_an_error_names_the_file_where_nothing_was_typed(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("base: quickstart\nvariants: {b: 3}\nipc: many\n")
    with pytest.raises(InputError, match=r"^.*mine\.yaml: ipc: found 'many'"):
        load_experiment(str(file), ["variants.b.method=dit"])
    with pytest.raises(InputError, match=r"^.*mine\.yaml: variants\.b: found 3, expected a mapping"):
        load_experiment(str(file), ["ipc=10", "variants.a.method=dit"])
