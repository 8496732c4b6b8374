"""Sets of other people as rows of an experiment, beside the run that made the same images."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dgs_lightning.__main__ import main
from dgs_lightning.commands.import_set import import_set
from dgs_lightning.data.cards import read_card
from dgs_lightning.data.folders import read_set
from dgs_lightning.errors import InputError
from dgs_lightning.exchange.readers import read_source
from dgs_lightning.exchange.source import Reading
from dgs_lightning.experiment.evaluate import evaluation, experiment_of
from dgs_lightning.experiment.plan import Plan
from dgs_lightning.experiment.run import ExperimentRun
from dgs_lightning.experiment.settings import load_experiment
from dgs_lightning.experiment.stage import Given
from dgs_lightning.reporting.folder import read_run
from dgs_lightning.reporting.recognition import recognition
from dgs_lightning.reporting.summary import summarize

IPC = 12
TINY = [
    "options.dm={trainer: {max_steps: 3}}",
    *(f"ipc={IPC}", "jobs=1", "folds=2", "draws=1", "judge=null"),
    "cross_fit.trainer.callbacks=[{class_path: PublishedLength, init_args: {steps: 150}}]",
    *(
        f"{part}.trainer.callbacks=[{{class_path: PublishedLength, init_args: {{steps: 20}}}}]"
        for part in ("evaluate", "soft")
    ),
]
SOFT = [
    "protocols=[hard, soft]",
    "soft.config=classify/rded_digits.yaml",
    "judge={config: classify/judge_digits.yaml, trainer: {max_steps: 20}}",
]


def write_pt(folder: Path, path: Path, shift: int = 0) -> Path:
    """The first images of each class of a set of ours as tensors, the numbers of their classes shifted."""
    taken = Counter[str]()
    records = []
    for record in read_set(folder):
        taken[record.label] += 1
        records += [record] * (taken[record.label] <= IPC)
    images = np.stack([np.asarray(Image.open(folder / record.file_name)) for record in records])[:, None]
    labels = torch.tensor([(int(record.label) + shift) % 10 for record in records])
    torch.save({"images": torch.from_numpy(images) / 255 * 2 - 1, "labels": labels}, path)
    return path


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run that made two sets, one learned and one of originals, and evaluated them by both protocols."""
    folder = tmp_path_factory.mktemp("ours")
    run = ExperimentRun(load_experiment("quickstart", ["methods=[dm, herding]", *TINY, *SOFT], str(folder / "run")))
    run.execute()
    return folder / "run"


def settings_of_set(path: Path, **settings: object) -> str:
    return f"sets.theirs={json.dumps({'path': str(path), 'mean': [0.5], 'std': [0.5], **settings})}"


def rows_of(run: Path) -> dict[tuple[str, str | None], dict[str, Any]]:
    return {(row["method"], row["network"]): row for row in summarize(read_run(run))["rows"]}


@pytest.mark.slow
def test_the_set_of_a_run_that_comes_back_as_tensors_has_the_same_row(ours: Path, tmp_path: Path) -> None:
    made = ours / "distilled" / f"dm-ipc{IPC}"
    source, output = write_pt(made, tmp_path / "mine.pt"), tmp_path / "run"
    normalised = ["--import", "mean=[0.5]", "--import", "std=[0.5]"]
    experiment = ["--experiment", str(ours / "experiment.yaml"), "--output", str(output)]
    assert main(["evaluate", str(source), *normalised, *experiment]) == 0
    theirs = output / "distilled" / f"set:mine-ipc{IPC}"
    for file, copy in zip(sorted((made / "3").iterdir()), sorted((theirs / "3").iterdir()), strict=True):
        with Image.open(file) as image, Image.open(copy) as other:
            assert np.array_equal(np.asarray(image), np.asarray(other))
    before, after = rows_of(ours), rows_of(output)
    before = {(method, network): row for (method, network), row in before.items() if method == "dm"}
    assert len(after) == len(before) == 2  # both protocols
    for (_, network), row in before.items():
        assert None not in (row["accuracy_last_mean"], row["mean_difficulty"], row["distribution_distance"])
        assert after["set:mine", network] == {**row, "method": "set:mine"}
    assert "| mine |" in (output / "summary.md").read_text()
    assert (output / "figures" / f"samples-set:mine-ipc{IPC}.png").is_file()
    card = read_card(theirs)
    assert card["provenance"][0]["card"]["provenance"][0]["place"] == "mine.pt"


def pixels_of(folder: Path) -> dict[str, list[bytes]]:
    """The pixels of the images of each class, in the order of their names."""
    found: dict[str, list[bytes]] = {}
    for record in sorted(read_set(folder), key=lambda record: record.file_name):
        found.setdefault(record.label, []).append(Image.open(folder / record.file_name).tobytes())
    return found


@pytest.mark.slow
def test_a_set_has_the_row_of_its_run_where_it_lies_and_after_an_export_and_an_import(
    ours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("datasets", "pyarrow", "webdataset"):
        pytest.importorskip(package, reason=f"{package}, of the extra dev, is not installed")
    monkeypatch.chdir(tmp_path)
    made, name = ours / "distilled" / f"herding-ipc{IPC}", f"herding_ipc{IPC}"
    row = rows_of(ours)["herding", "convnet2"]
    assert None not in (row["accuracy_last_mean"], row["mean_difficulty"], row["distribution_distance"])
    assert main(["evaluate", str(made), "--protocol", "hard", "--output", "one"]) == 0
    assert rows_of(Path("one")) == {(f"set:{name}", "convnet2"): {**row, "method": f"set:{name}"}}
    forms = ["parquet", "webdataset", "pt", "npz"]
    for form in forms:
        assert main(["export", str(made), "--to", form, "--output", f"exported/{form}"]) == 0
        assert main(["import", f"exported/{form}", form]) == 0
        assert pixels_of(Path(form)) == pixels_of(made)
    changes = [  # in the same folder, so that the estimators are there
        *(f"name=evaluate-{name}", "protocols=[hard]", f"methods=[{', '.join(f'set:{form}' for form in forms)}]"),
        *(f"sets.{form}.path={form}" for form in forms),
    ]
    options = [part for change in changes for part in ("--set", change)]
    assert main(["run", str(ours / "experiment.yaml"), "--output", "one", *options]) == 0
    assert rows_of(Path("one")) == {(f"set:{form}", "convnet2"): {**row, "method": f"set:{form}"} for form in forms}


@pytest.mark.slow
def test_classes_in_a_wrong_order_are_told(ours: Path, tmp_path: Path) -> None:
    source = write_pt(ours / "data" / "train", tmp_path / "set.pt", shift=1)
    short = ["methods=['set:theirs']", "networks=[]", settings_of_set(source), *TINY]
    found = r"set theirs: found .* recognised, but .*classes=\[...\].*: 0 -> 9, 1 -> 0, "
    with pytest.raises(InputError, match=found):
        ExperimentRun(load_experiment("quickstart", short, str(tmp_path / "run"))).execute()
    _, warnings = recognition(read_run(tmp_path / "run"))
    assert any("they are in a wrong order" in warning for warning in warnings)
    order = [str((digit - 1) % 10) for digit in range(10)]
    right = [*short, settings_of_set(source, classes=order)]
    ExperimentRun(load_experiment("quickstart", right, str(tmp_path / "run"))).execute()
    assert not [w for w in recognition(read_run(tmp_path / "run"))[1] if w.startswith("theirs")]


def test_the_experiment_of_a_set_is_that_of_its_run_or_of_its_data(ours: Path, tmp_path: Path) -> None:
    made = ours / "distilled" / f"dm-ipc{IPC}"
    assert experiment_of(read_source(made)) == str(ours / "experiment.yaml")
    import_set(str(made), str(tmp_path / "copy"))
    assert experiment_of(read_source(tmp_path / "copy")) == "quickstart"
    with pytest.raises(InputError, match=r"found a set that names no data, .* --experiment quickstart"):
        experiment_of(read_source(write_pt(made, tmp_path / "set.pt"), settings=Reading(mean=[0.5], std=[0.5])))


def test_a_set_of_a_run_is_evaluated_by_its_settings_alone(ours: Path) -> None:
    base = load_experiment(str(ours / "experiment.yaml"), [])
    options = {"network": ["convnet3"], "protocol": ["soft"], "val": "nowhere"}
    one = evaluation(base, "mine", {"path": "mine.pt"}, IPC, options)
    assert (one.methods, one.networks, one.protocols) == (["set:mine"], ["convnet3"], ["soft"])
    several = replace(base, draws=2, repeats=2, scores=["lrs"])
    often = evaluation(several, "mine", {"path": "mine.pt"}, IPC, {"protocol": ["hard"]})
    names = [stage.name for stage in Plan(often).everything()]  # as for a row without chance, and what its score needs
    assert [len([n for n in names if n.startswith(f"evaluation/{each}")]) for each in ("set:mine", "full")] == [4, 4]
    with pytest.raises(InputError, match=r"val nowhere: found no such file or folder"):
        Plan(one).everything()
    stages = {stage.name: stage.config for stage in Plan(replace(one, val=".")).everything()}
    training = stages[f"evaluation/set:mine-ipc{IPC}/soft/convnet3/seed0"]
    assert training["data"]["init_args"]["val"] == Given(".")


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        (["methods=['set:theirs']"], r"methods: found 'set:theirs', expected one of random, .*"),
        (["sets.theirs.ipc=10"], r"sets.theirs.path: found nothing"),
        (["sets.theirs.path=nowhere.pt"], r"sets.theirs.path nowhere.pt: found no such file"),
        (["sets.my-set.path=."], r"found .my-set., expected a name of letters"),
        (["ipc=[1, 10]", "sets.theirs.path=."], r"sets.theirs.ipc: found nothing, expected that of the set"),
        (
            ["ipc=[1, 10]", "sets.theirs={path: ., ipc: 5}"],
            r"sets.theirs.ipc: found 5, expected one .*ipc=\[1, 10, 5\]",
        ),
        (["sets.theirs={path: ., wrong: 5}", "methods=['set:theirs']"], "wrong"),
    ],
)
def test_a_set_that_cannot_be_a_row_is_one_clear_error(changes: list[str], found: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=found):
        ExperimentRun(load_experiment("quickstart", changes, str(tmp_path / "run"))).execute()
    assert not list(tmp_path.rglob("*.png"))


def test_a_set_has_a_row_for_its_own_number_of_images_alone(tmp_path: Path) -> None:
    (tmp_path / "set.pt").touch()
    changes = ["methods=[random, 'set:theirs']", "ipc=[1, 10]", settings_of_set(tmp_path / "set.pt", ipc=1), "draws=2"]
    names = [stage.name for stage in Plan(load_experiment("quickstart", changes)).everything()]
    assert [name for name in names if "theirs" in name and not name.startswith("evaluation")] == [
        "imported/theirs",
        "scores/imported-theirs",
        "distilled/set:theirs-ipc1",
    ]
    assert len([name for name in names if name.startswith("evaluation/set:theirs-ipc1/")]) == 2  # one for each draw
    stages = {stage.name: stage.config for stage in Plan(load_experiment("quickstart", changes)).everything()}
    assert stages["imported/theirs"]["ipc"] == 1
