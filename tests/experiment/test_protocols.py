"""Downstream training with the labels of the images, with the soft labels of a teacher, or with both, side by side."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from dgs_lightning.errors import InputError
from dgs_lightning.experiment.plan import Plan
from dgs_lightning.experiment.settings import Experiment, load_experiment
from dgs_lightning.experiment.stage import InRun, Settings

SMALL = Experiment(
    title="small",
    methods=["random", "full"],
    ipc=10,
    networks=["convnet2", "convnet1"],
    protocols=["hard", "soft"],
    draws=1,
    repeats=1,
    output="runs/small",
    data="digits",
    prepare={},
)


def evaluations(experiment: Experiment) -> dict[str, Settings]:
    stages = Plan(experiment).everything()
    return {stage.name: stage.config for stage in stages if stage.name.startswith("evaluation/")}


def teacher_of(config: Settings) -> object:
    return config["model"]["init_args"]["teacher"]


def test_every_row_is_trained_under_both_protocols_side_by_side() -> None:
    names = list(evaluations(replace(SMALL, teacher="torchvision:resnet18")))
    assert names == [
        f"evaluation/{row}/{protocol}{network}/seed0"
        for row in ("random-ipc10", "full")
        for network in ("convnet2", "convnet1")
        for protocol in ("", "soft/")
    ]
    soft = evaluations(replace(SMALL, teacher="torchvision:resnet18", protocols=["soft"]))
    assert list(soft) == [name for name in names if "/soft/" in name]


def test_trainings_with_hard_labels_are_the_same_beside_those_with_soft_ones() -> None:
    both = evaluations(replace(SMALL, teacher="timm:resnet18"))
    alone = evaluations(replace(SMALL, teacher="timm:resnet18", protocols=["hard"]))
    assert alone == {name: config for name, config in both.items() if "/soft/" not in name}


def test_soft_labels_are_those_of_the_protocol_of_rded_by_the_named_teacher(tmp_path: Path) -> None:
    weights = tmp_path / "teacher.safetensors"
    weights.write_bytes(b"weights")
    experiment = replace(SMALL, teacher="timm:resnet18", teacher_weights=str(weights))
    config = evaluations(experiment)["evaluation/random-ipc10/soft/convnet2/seed0"]
    task = config["model"]["init_args"]
    assert (teacher_of(config)["name"], teacher_of(config)["weights"].path) == ("timm:resnet18", str(weights))  # type: ignore[index]
    assert (task["teacher"]["temperature"], task["teacher"]["squared"]) == (20.0, False)
    assert (task["optimizer"]["schedule"], task["optimizer"]["decayed"]) == ("half_cosine", "matrices")
    assert (task["network"], task["augmentation"]["patches"]) == ("convnet2", 2)
    assert config["data"]["init_args"]["batch_size"] == "by_ipc"


def test_without_a_named_teacher_the_judge_teaches_and_is_trained_once() -> None:
    experiment = load_experiment("quickstart", ["protocols=[hard, soft]", "draws=1", "methods=[random, dit]"])
    stages = {stage.name: stage for stage in Plan(experiment).everything()}
    soft = stages["evaluation/random-ipc10/soft/convnet2/seed0"]
    assert teacher_of(soft.config)["name"] == InRun("judge/weights")  # type: ignore[index]
    assert "judge" in {needed.name for needed in soft.needs}
    assert [name for name in stages if name.startswith("judge")] == ["judge"]
    with pytest.raises(InputError, match=r"teacher: .*or a section 'judge'.*torchvision:resnet18"):
        Plan(replace(experiment, judge=None)).everything()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("protocols=[]", r"protocols: .*hard, soft or both.*\[hard, soft\]"),
        ("protocols=[gentle]", "protocols"),
        ("protocols=null", "protocols"),
    ],
)
def test_an_experiment_without_a_known_protocol_is_refused(change: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_experiment("quickstart", [change])


def test_the_settings_of_a_protocol_are_those_of_its_section() -> None:
    shorter = replace(SMALL, teacher="timm:resnet18", soft={"trainer": {"max_epochs": 7}})
    configs = evaluations(shorter)
    epochs = {
        name.split("/")[2] == "soft": config["trainer"]["max_epochs"]
        for name, config in configs.items()
        if "random" in name
    }
    assert epochs == {True: 7, False: -1}
    assert json.dumps(configs["evaluation/random-ipc10/soft/convnet2/seed0"]["model"]).count("half_cosine") == 1
