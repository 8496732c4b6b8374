from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from dgs_lightning.__main__ import main
from dgs_lightning.data.classes import class_list
from dgs_lightning.doctor.accuracy import measure_accuracy
from dgs_lightning.doctor.finding import Finding
from dgs_lightning.doctor.images import open_trees
from dgs_lightning.experiment.settings import Experiment
from dgs_lightning.models.classifier import ClassifierConfig, save_classifier
from dgs_lightning.models.estimator import Accuracy, load_estimator

LABELS = class_list("imagenette")


def save_spot_finder(labels: tuple[str, ...], folder: Path) -> str:
    """Write a classifier that tells the classes by the place of a white spot in the first rows of an image."""
    config = ClassifierConfig("convnet1", labels, 16, 3, (0.0,) * 3, (1.0,) * 3, width=1)
    network = config.build()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        state = network.state_dict()
        state["layers.conv.0.weight"][0, :, 1, 1] = 1
        state["layers.norm.0.weight"][:] = 1
        state["classifier.weight"][:, : len(labels)] = torch.eye(len(labels))
    save_classifier(network, config, folder)
    return str(folder)


@pytest.fixture
def spots(healthy: Experiment, tmp_path: Path) -> Experiment:
    """Validation images with a white spot for each class, and an estimator that finds it."""
    for place, label in enumerate(LABELS):
        pixels = np.zeros((16, 16, 3), np.uint8)
        row, column = divmod(place, 8)
        pixels[2 * row : 2 * row + 2, 2 * column : 2 * column + 2] = 255
        for index in range(25):
            Image.fromarray(pixels).save(Path(str(healthy.data), "val", label, f"{index}.png"))
    return replace(healthy, estimator=save_spot_finder(LABELS, tmp_path / "estimator"))


def measured(experiment: Experiment) -> list[Finding]:
    return list(measure_accuracy(experiment, open_trees(experiment)[0]))


def test_the_accuracy_is_measured_on_twenty_images_of_a_class(spots: Experiment) -> None:
    [found] = measured(spots)
    assert found.level == "ok"
    assert "100.0% of 200 images recognised" in found.what


def test_a_wrong_order_of_classes_is_a_problem_for_estimator_and_teacher(spots: Experiment, tmp_path: Path) -> None:
    turned = save_spot_finder((*LABELS[1:], LABELS[0]), tmp_path / "turned")
    evaluate = {**spots.evaluate, "model": {"init_args": {"teacher": {"name": turned}}}}
    estimator, teacher = measured(replace(spots, evaluate=evaluate))
    assert estimator.level == "ok"
    assert teacher.level == "problem"
    for words in (f"teacher {turned}", "0.0% of 200 images", "more than 20.0% of these", "chance is 10.0%"):
        assert words in teacher.what
    assert "WordNet id" in teacher.remedy


def test_weights_that_are_not_here_are_named_and_not_fetched(
    spots: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    [found] = measured(replace(spots, estimator="torchvision:resnet50"))
    assert found.level == "warning"
    assert "not on this machine" in found.what
    assert not (tmp_path / "torch").exists()


def test_the_doctor_runs_a_network_only_when_asked(
    spots: Experiment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "spots.yaml"
    file.write_text(yaml.safe_dump(vars(replace(spots, methods=["random"], networks=[]))))
    said = []
    for option in ([], ["--measure"]):
        assert main(["doctor", str(file), *option]) == 0
        said.append("recognised" in capsys.readouterr().out)
    assert said == [False, True]


@pytest.mark.parametrize(
    ("images", "known", "right", "classes", "at_chance"),
    [
        (9_025, 9_000, 900, 10, True),  # one class of ten in its place
        (9_025, 9_000, 1_800, 10, True),  # two
        (9_025, 9_000, 1_801, 10, False),
        (9_025, 2_000, 900, 10, False),  # hard images, most of which are given other classes of ImageNet
        (9_025, 0, 0, 10, True),  # wrong weights
        (49, 49, 0, 10, False),  # too few to say
        (100, 100, 50, 2, True),
        (100, 100, 51, 2, False),
        (1_000, 1_000, 3, 1_000, False),
    ],
)
def test_at_chance_is_twice_the_share_of_a_class_and_half_at_most(
    images: int, known: int, right: int, classes: int, at_chance: bool
) -> None:
    assert (Accuracy(images, known, right, classes).why_at_chance("x", "y") is not None) == at_chance


def test_an_estimator_labels_one_picture(spots: Experiment) -> None:
    estimator = load_estimator(str(spots.estimator))
    with Image.open(Path(str(spots.data), "val", LABELS[3], "0.png")) as image:
        assert estimator.predict(image.convert("RGB")) == LABELS[3]
