import json
from pathlib import Path

import pytest
import torch
from tests.matching.conftest import Load, Values, assert_golden, network_of, part, project_name
from tests.matching.recorded import RecordedData, RecordedDraws, fit
from tests.matching.test_siamese import draw_of
from torch import Tensor, nn

from dgs_lightning.tasks.distribution_matching import DistributionMatchingTask
from dgs_lightning.tasks.learned_images import ImageSettings
from dgs_lightning.tasks.protocol import Normalisation

PLAIN = Normalisation((0.0,) * 3, (1.0,) * 3)  # the golden images are normalised


class RecordedBatches(RecordedDraws):
    def real(self, label: str, size: int, count: int, step: int) -> Tensor:
        return self.values["batches"][step, int(label)] - self.first[int(label)]


class RecordedTask(DistributionMatchingTask):
    """The task with recorded draws and networks."""

    def __init__(self, values: Values, draws: RecordedDraws, ipc: int) -> None:
        learned = ImageSettings(ipc, lr=float(values["lr"]), momentum=float(values["momentum"]), range="free")
        super().__init__("convnet2", images=learned, normalisation=PLAIN)
        self.values, self.draws = values, draws

    def new_network(self, number: int) -> nn.Module:
        return network_of(self.values, self.side, f"net{number}/")


@pytest.mark.golden
@pytest.mark.parametrize("name", ["dm_steps_plain", "dm_steps_plain_lr10", "dm_steps_dsa"])
def test_steps_are_the_published_ones(name: str, values: Load, golden: Path, tmp_path: Path) -> None:
    given, recorded = values(name), golden / "matching" / f"{name}.json"
    events = json.loads(recorded.read_text()) if recorded.is_file() else []
    operations = {(str(event["class"]), event["step"]): draw_of(event["draws"]) for event in events}
    task = RecordedTask(given, RecordedBatches(given, operations), given["init"].shape[1])
    steps = len(given["losses"])
    trace = fit(task, RecordedData(given, steps), steps, tmp_path)
    for found, expected in zip(trace.images, given["images"], strict=True):
        assert_golden(found, expected)
    assert_golden(torch.tensor(trace.losses) * len(task.labels), given["losses"])


class OneStep(DistributionMatchingTask):
    """Keeps the gradient of one step."""

    start: Tensor
    fixed: nn.Module
    gradient: Tensor

    def _start(self, number: int) -> Tensor:
        return self.start[self.rows(number)]

    def new_network(self, number: int) -> nn.Module:
        return self.fixed

    def take_step(self, gradient: Tensor, counted: bool = True) -> None:
        self.gradient = gradient


@pytest.mark.golden
@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_the_gradient_of_all_classes_is_the_published_one(norm: str, values: Load, tmp_path: Path) -> None:
    given = values("dm_objective_rgb8")
    classes, count, *_ = given["real"].shape
    data = RecordedData(
        {"data": given["real"].flatten(0, 1), "labels": torch.arange(classes).repeat_interleave(count)}, 1
    )
    network, prefix = network_of(given, 8), ""
    if norm == "batch":
        network.layers["norm"] = nn.ModuleList(nn.BatchNorm2d(8) for _ in range(2))
        weights = {project_name(name): value for name, value in part(given, "bn/").items()}
        network.load_state_dict(weights, strict=False)
        prefix = "bn_"
    task = OneStep("convnet2", images=ImageSettings(int(given["ipc"])), augmentation=(), normalisation=PLAIN)
    task.start, task.fixed = given["syn"], network
    trace = fit(task, data, 1, tmp_path, limit_train_batches=1, max_epochs=1)
    assert_golden(task.gradient, given[f"{prefix}grad_syn"])
    assert_golden(torch.tensor(trace.losses[0]) * classes, given[f"{prefix}loss"])
