from dataclasses import replace
from pathlib import Path
from shutil import copy, move

import pytest

from dgs_lightning.doctor.examination import examine
from dgs_lightning.doctor.finding import Finding
from dgs_lightning.experiment.settings import Experiment

TENCH, SPRINGER = "n01440764", "n02102040"


def warnings_of(experiment: Experiment) -> list[Finding]:
    """What the doctor finds in the images, without a trial of the networks."""
    return [finding for finding in examine(replace(experiment, methods=["none such"])) if finding.level != "ok"]


def test_the_doctor_says_which_files_and_folders_it_ignores(healthy: Experiment) -> None:
    data = Path(str(healthy.data))
    for name in ("train/" + TENCH + "/a.HEIC", "train/" + TENCH + "/b.jpg.part", "train/owl/1.avif", "test/cat/1.png"):
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).touch()
    said = [finding.what for finding in warnings_of(healthy) if "ignored" in finding.what]
    assert len(said) == 2
    assert all(words in said[0] for words in ("/train: ", "1 .heic", "1 .jpg.part", "1 .avif", "(1: owl)"))
    assert said[1] == f"{data}: ignored folders beside train and val (1: test)"


@pytest.mark.parametrize("one_tree", [False, True])
def test_the_doctor_finds_validation_images_that_are_trained_on(healthy: Experiment, one_tree: bool) -> None:
    data = Path(str(healthy.data))
    if one_tree:
        healthy = replace(healthy, data=str(data / "train"))
        for index in range(12):  # the split puts some of the pairs into both parts
            copy(data / "train" / TENCH / f"{index}.png", data / "train" / SPRINGER / f"copy{index}.png")
    else:
        copy(data / "train" / TENCH / "3.png", data / "val" / SPRINGER / "other.png")
        move(data / "val" / TENCH / "0.png", data / "val" / TENCH / "renamed.png")
    [found] = [f for f in warnings_of(healthy) if "also there for training" in f.what]
    assert found.level == "warning"
    assert one_tree or found.what.startswith("1 of 41 images for validation")


def test_the_doctor_names_images_that_differ_in_their_ending_alone(healthy: Experiment) -> None:
    train = Path(str(healthy.data), "train", TENCH)
    copy(train / "0.png", train / "0.jpeg")
    [found] = [f for f in warnings_of(healthy) if "only in their ending" in f.what]
    assert found.level == "problem"
    assert f"{TENCH}/0.jpeg, {TENCH}/0.png" in found.what
    assert not [f for f in warnings_of(replace(healthy, prepare=None)) if "only in their ending" in f.what]


def test_a_class_with_the_name_of_a_part_is_pointed_out(healthy: Experiment) -> None:
    data = Path(str(healthy.data))
    for part in ("train", "val"):
        move(data / part / TENCH, data / part / "test")
    found = [f.what for f in warnings_of(replace(healthy, classes=None)) if "name of a part" in f.what]
    assert [what.endswith("(test)") for what in found] == [True, True]


def test_the_doctor_follows_links_where_the_experiment_does(healthy: Experiment, tmp_path: Path) -> None:
    train = Path(str(healthy.data), "train")
    move(train / TENCH, tmp_path / "store")
    (train / TENCH).symlink_to(tmp_path / "store")
    assert any("a link to" in finding.what for finding in warnings_of(healthy))
    assert not any("a link to" in finding.what for finding in warnings_of(replace(healthy, links="follow")))
