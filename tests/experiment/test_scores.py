"""DD-Ranking's scores in an experiment: the trainings that they add, and a small run with them."""

import json
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch

from dgs_lightning.configs import load_config
from dgs_lightning.data.augmentation import Augmentation, normalise
from dgs_lightning.errors import InputError
from dgs_lightning.experiment.plan import Plan
from dgs_lightning.experiment.run import ExperimentRun
from dgs_lightning.experiment.settings import Experiment, load_experiment
from dgs_lightning.experiment.stage import InRun, Settings, one_of_each_kind
from dgs_lightning.reporting.ddranking import normalised
from dgs_lightning.seeding import generator

SMALL = Experiment(
    title="small",
    methods=["herding", "dit"],
    ipc=[1, 2],
    networks=["convnet2"],
    draws=2,
    repeats=1,
    output="runs/small",
    data="digits",
    prepare={},
    teacher="torchvision:resnet18",
)
PLAIN = load_config("classify/no_augmentation")["model"]["init_args"]["augmentation"]


def configs(experiment: Experiment) -> dict[str, Settings]:
    return {stage.name: stage.config for stage in Plan(experiment).everything()}


def trainings(experiment: Experiment) -> set[str]:
    return {name.removeprefix("evaluation/") for name in configs(experiment) if name.startswith("evaluation/")}


def test_a_plan_without_scores_is_what_it_was() -> None:
    without, with_scores = configs(SMALL), configs(replace(SMALL, scores=["lrs", "ars"]))
    assert without["report"] == {"runs": [InRun()], "threads": 1}
    assert {name: config for name, config in with_scores.items() if name in without and name != "report"} == {
        name: config for name, config in without.items() if name != "report"
    }


def test_lrs_adds_the_trainings_on_random_sets_and_on_the_full_set() -> None:
    added = trainings(replace(SMALL, scores=["lrs"])) - trainings(SMALL)
    random = {
        f"random-ipc{ipc}{draw}/convnet2/seed{seed}" for ipc in (1, 2) for draw, seed in (("", 0), ("-draw1", 1000))
    }
    assert added == random | {"full/convnet2/seed0", "full/convnet2/seed1000"}


def test_lrs_of_soft_labels_adds_the_trainings_with_the_labels_of_the_images() -> None:
    soft = replace(SMALL, protocols=["soft"], ipc=1, draws=1, methods=["herding"])
    assert trainings(soft) == {"herding-ipc1/soft/convnet2/seed0"}
    assert trainings(replace(soft, scores=["lrs"])) - trainings(soft) == {
        *("herding-ipc1/convnet2/seed0", "full/convnet2/seed0", "random-ipc1/soft/convnet2/seed0")
    }


def test_ars_adds_the_trainings_without_data_augmentation_of_each_protocol() -> None:
    both = replace(SMALL, protocols=["hard", "soft"], ipc=1, draws=1, methods=["herding", "random", "full"])
    added = trainings(replace(both, scores=["ars"])) - trainings(both)
    protocols = ("hard-unaugmented", "soft-unaugmented")
    assert added == {f"{row}-ipc1/{of}/convnet2/seed0" for row in ("herding", "random") for of in protocols}


def test_rows_of_the_table_and_scores_share_trainings_and_repeats() -> None:
    table = replace(SMALL, methods=["random", "dit", "full"], repeats=2)
    assert trainings(replace(table, scores=["lrs"])) == trainings(table)
    assert not {name for name in configs(replace(SMALL, methods=["full"], scores=["lrs", "ars"])) if "random" in name}


@pytest.mark.parametrize("protocol", ["hard", "soft"])
def test_a_training_without_data_augmentation_differs_in_that_alone(protocol: str) -> None:
    asked = replace(SMALL, protocols=["hard", "soft"], scores=["ars"])
    prefix = "" if protocol == "hard" else "soft/"
    augmented = configs(asked)[f"evaluation/dit-ipc1/{prefix}convnet2/seed0"]
    plain = configs(asked)[f"evaluation/dit-ipc1/{protocol}-unaugmented/convnet2/seed0"]
    own = plain["model"]["init_args"].pop("augmentation")
    augmented["model"]["init_args"].pop("augmentation", None)
    plain["trainer"]["default_root_dir"] = augmented["trainer"]["default_root_dir"]
    assert own == PLAIN
    assert plain == augmented


def test_without_data_augmentation_images_are_only_normalised_whatever_may_be_drawn() -> None:
    assert PLAIN.keys() == {field.name for field in fields(Augmentation)}
    augmentation, images = Augmentation(**PLAIN), torch.rand(16, 3, 9, 9, generator=generator("images"))
    mean, std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    torch.testing.assert_close(augmentation(images, mean, std, generator("draws")), normalise(images, mean, std))
    assert augmentation.cutmix == 0


def test_new_weights_write_the_report_again_and_nothing_else() -> None:
    before, after = (configs(replace(SMALL, scores=["lrs"], lrs_weight=weight)) for weight in (0.5, 0.25))
    assert {name for name in before if before[name] != after[name]} == {"report"}


def test_the_trainings_of_scores_are_checked_once_for_each_kind_before_the_run() -> None:
    kinds = one_of_each_kind(Plan(replace(SMALL, scores=["ars"], draws=3)).everything())
    assert sum("hard-unaugmented" in stage.name for stage in kinds) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["scores=[best]"], r"--set scores\[0\]: found 'best', expected one of lrs, ars"),
        (["scores=lrs"], r"--set scores: found 'lrs', expected a list.*Write a list in brackets: \[lrs\]"),
        (["scores=[lrs]", "networks=[]"], r"scores: found lrs, but no networks.*Set networks=\[convnet3\]"),
        (["lrs_weight=1.5"], r"--set lrs_weight: found 1.5, expected .*at least 0, at most 1"),
        (["ars_weight=-0.1"], r"--set ars_weight: found -0.1, expected .*at least 0, at most 1"),
        (["ars_weight=much"], r"--set ars_weight: found 'much', expected a number"),
        (["scores=[ars]", "variants.random={method: dit}"], r"--set variants.random: found a variant with the name"),
    ],
)
def test_settings_of_scores_that_cannot_be_used_are_named(changes: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_experiment("quickstart", changes)


def test_the_shipped_experiments_have_no_scores() -> None:
    assert load_experiment("quickstart", []).scores == []


SHORT = [
    *("methods=[herding]", "ipc=1", "protocols=[soft]", "draws=1", "jobs=1", "folds=2"),
    *("networks=[convnet1]", "scores=[lrs, ars]", "lrs_weight=0.25"),
    *(f"{part}.model.init_args={{network: convnet1, width: 4}}" for part in ("evaluate", "judge", "soft", "cross_fit")),
    *(
        f"{part}.trainer.callbacks=[{{class_path: PublishedLength, init_args: {{steps: 2, most_times: 1}}}}]"
        for part in ("evaluate", "judge", "cross_fit", "soft")
    ),
]


@pytest.mark.slow
def test_an_experiment_with_scores_runs_from_one_command_to_the_scores_of_its_rows(tmp_path: Path) -> None:
    run = ExperimentRun(load_experiment("rivals_digits", SHORT, str(tmp_path / "run")))
    run.execute()
    [row] = json.loads((run.output / "summary.json").read_text())["rows"]
    assert (row["method"], row["network"], row["scores_missing"]) == ("herding", "soft/convnet1", {})
    accuracies: dict[str, float] = {
        path.parents[1].relative_to(run.output / "evaluation").as_posix(): json.loads(path.read_text())["accuracy_last"]
        for path in run.output.glob("evaluation/**/result.json")
    }
    assert len(accuracies) == 6

    def gain(protocol: str) -> float:
        return accuracies[f"herding-ipc1/{protocol}convnet1"] - accuracies[f"random-ipc1/{protocol}convnet1"]

    recovery = accuracies["full/convnet1"] - accuracies["herding-ipc1/convnet1"]
    assert row["hlr_mean"] == pytest.approx(recovery)
    assert (row["ior_mean"], row["ior_unaugmented_mean"]) == (gain("soft/"), gain("soft-unaugmented/"))
    assert row["lrs_mean"] == pytest.approx(normalised(0.25 * gain("soft/") - 0.75 * recovery))
    assert "LRS is 0.25 IOR - 0.75 HLR" in (run.output / "summary.md").read_text()
    again = ExperimentRun(load_experiment("rivals_digits", [*SHORT, "ars_weight=1"], str(run.output)))
    assert [stage.name for stage in again.stages if again.status(stage) != "done"] == ["report"]
