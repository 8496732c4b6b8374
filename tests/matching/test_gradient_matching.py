import json
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from tests.matching.conftest import Load, Values, assert_golden, network_of, part, project_name
from tests.matching.recorded import RecordedData, RecordedDraws, fit
from tests.matching.test_siamese import draws_in_turn
from torch import Tensor, nn

from dgs_lightning.data.augmentation import CutMixDraw
from dgs_lightning.tasks.draws import box_around
from dgs_lightning.tasks.gradient_matching import GradientMatchingTask, Metric
from dgs_lightning.tasks.learned_images import ImageSettings
from dgs_lightning.tasks.matching_network import NetworkSettings, NetworkState
from dgs_lightning.tasks.protocol import Normalisation

PLAIN = Normalisation((0.0,) * 3, (1.0,) * 3)


class RecordedTask(GradientMatchingTask):
    """The task with recorded networks; it keeps the images after each step on them, and its losses."""

    recorded: Values
    prefix = "net/"

    def new_network(self, number: int) -> nn.Module:
        return network_of(self.recorded, self.side, self.prefix.format(number))

    def on_train_start(self) -> None:
        self.steps: list[Tensor] = []

    def take_step(self, gradient: Tensor, counted: bool = True) -> None:
        super().take_step(gradient, counted)
        self.steps.append(self.images.detach().clone())


# ---- DC ----------------------------------------------------------------------------------------------------------


class DrawsOfDC(RecordedDraws):
    def real(self, label: str, size: int, count: int, step: int) -> Tensor:
        return self.values["batches"].flatten(0, 1)[step, int(label)] - self.first[int(label)]

    def in_passes(self, name: str, size: int, count: int, number: int, whole: bool = True) -> Tensor:
        iteration, outer = divmod(int(name.removeprefix("stored ")), self.values["batches"].shape[1])
        epoch, batch = divmod(number, -(-size // count))
        return self.values["shuffles"][iteration, outer, epoch][batch * count :][:count]


@pytest.mark.golden
def test_steps_of_dc_are_the_published_ones(values: Load, tmp_path: Path) -> None:
    given = values("dc_steps")
    iterations, outer = given["batches"].shape[:2]
    inner = given["shuffles"].shape[2]
    learned = ImageSettings(given["init"].shape[1], None, float(given["lr"]), float(given["momentum"]), "free")
    network = NetworkSettings(outer, inner, batch_size=int(given["batch_train"]), lr=float(given["lr_net"]))
    task = RecordedTask("dc", training=network, network="convnet2", images=learned, normalisation=PLAIN)
    task.recorded, task.prefix, task.draws = given, "net{}/", DrawsOfDC(given, {})
    trace = fit(task, RecordedData(given, 9), iterations * outer, tmp_path)
    for found, expected in zip(trace.images, given["images"], strict=True):
        assert_golden(found, expected)
    batches = inner * -(-len(task.images) // int(given["batch_train"]))
    an_iteration = [*([True, *[False] * batches] * (outer - 1)), True]  # whether a loss is that of images
    losses = given["losses"][torch.tensor(an_iteration * iterations)]
    assert_golden(torch.tensor(trace.losses) * len(task.labels), losses)
    state = task._state.network.state_dict()
    for name, expected in part(given, "trained_last/").items():
        bias = name.startswith("conv") and name.endswith("bias")
        assert_golden(state[project_name(name)], expected, torch.ones(()) if bias else None)


# ---- IDC ---------------------------------------------------------------------------------------------------------


class DrawsOfIDC(RecordedDraws):
    """Draws of the recorded events, in their order."""

    def __init__(self, values: Values, events: list[dict[str, Any]]) -> None:
        super().__init__(values, {})
        self.matched = [event for event in events if event["event"] == "match"]
        self.trained = [event for event in events if event["event"] == "train"]

    def _match(self, label: str, step: int) -> dict[str, Any]:
        event = self.matched[step * len(self.first) + int(label)]
        assert event["class"] == int(label)
        return event

    def in_passes(self, name: str, size: int, count: int, number: int, whole: bool = True) -> Tensor:
        if name == "network":
            return torch.tensor(self.trained[number]["batch"])
        return torch.tensor(self._match(name, number)["real"]) - self.first[int(name)]

    def augmentation(self, strategy: Any, side: int, *names: int | str, count: int = 1) -> Any:  # noqa: ANN401
        name, number = str(names[0]), int(names[1])
        event = self.trained[number] if name == "network" else self._match(name, number)
        return draws_in_turn(event["ops"])

    def cutmix(self, share: float, count: int, side: int, *names: int | str) -> CutMixDraw | None:
        event = self.trained[int(names[1])]
        if event["mix_draw"] >= share:
            return None
        row, column = event["cutmix"]["centre"]
        box = box_around(row, column, event["cutmix"]["lambda"], side)
        return CutMixDraw(torch.tensor(event["cutmix"]["partners"]), box)


def idc(given: Values, recorded: dict[str, Any], **settings: Any) -> RecordedTask:  # noqa: ANN401
    """The task of a golden file of IDC."""
    ipc = int(given["ipc"])
    lr = float(given["lr_img"]) * 10 / ipc
    learned = ImageSettings(ipc, "first", lr, float(given["mom_img"]), factor=int(given["factor"]))
    numbers = Normalisation(tuple(given["mean"].tolist()), tuple(given["std"].tolist()))
    lr_net, momentum, decay = (float(given[key]) for key in ("lr_net", "mom_net", "wd_net"))
    training = NetworkSettings(lr=lr_net, momentum=momentum, weight_decay=decay, **settings)
    own: dict[str, Any] = {"network": "convnet2", "images": learned, "normalisation": numbers}
    task = RecordedTask("idc", None, recorded["metric"], training, **own)
    task.recorded, task.draws = given, DrawsOfIDC(given, recorded["events"])
    return task


IDC = ["idc_steps_plain_l1", "idc_steps_plain_mse", "idc_steps_factor2", "idc_steps_factor3", "idc_steps_full"]


@pytest.mark.golden
@pytest.mark.parametrize("name", IDC)
def test_steps_of_idc_are_the_published_ones(name: str, values: Load, golden: Path, tmp_path: Path) -> None:
    given, recorded = values(name), json.loads((golden / "matching" / f"{name}.json").read_text())
    recorded = {"metric": "mse", **recorded}
    batches = [len(event["batch"]) for event in recorded["events"] if event["event"] == "train"]
    steps = len(given["images"]) // len(torch.unique(given["labels"]))
    each = len(batches) // steps
    task = idc(given, recorded, seen=sum(batches[:each]), batch_size=max(batches, default=1), cutmix=0.5)
    states: list[Values] = []

    original = task._train_on_real

    def train(step: int) -> None:
        original(step)
        states.append({key: value.clone() for key, value in task._state.network.state_dict().items()})

    task._train_on_real = train  # type: ignore[method-assign]
    trace = fit(task, RecordedData(given, steps), steps, tmp_path)
    assert_golden(trace.images[0], given["init"])
    for found, expected in zip(task.steps, given["images"], strict=True):
        assert_golden(found, expected)
    for number, state in enumerate(states):
        for neutral, expected in part(given, f"net_after{number}/").items():
            bias = neutral.startswith("conv") and neutral.endswith("bias")
            assert_golden(state[project_name(neutral)], expected, torch.ones(()) if bias else None)


# ---- one class ---------------------------------------------------------------------------------------------------


@pytest.mark.golden
@pytest.mark.parametrize(
    ("published", "algorithm", "metric"),
    [
        ("dc/ours", "dc", "rowwise"),
        ("dc/mse", "dc", "mse"),
        ("dc/cos", "dc", "cosine"),
        ("idc/mse", "idc", "mse"),
        ("idc/l1", "idc", "l1"),
        ("idc/l1_mean", "idc", "l1_mean"),
        ("idc/cos", "idc", "rowwise"),
        ("idc/feat", "idc", "features"),
    ],
)
def test_the_distance_of_a_class_and_its_gradient_are_the_published_ones(
    published: str,
    algorithm: Literal["dc", "idc"],
    metric: Metric,
    values: Load,
) -> None:
    given = values("gradient_matching")
    task = GradientMatchingTask(algorithm, metric=metric, network="convnet2", images=ImageSettings(lr=1.0))
    network = network_of(given, 8)
    task.state = NetworkState(network, torch.optim.SGD(network.parameters()))
    synthetic = given["syn"].requires_grad_()
    loss = task._distance(given["real"], synthetic, int(given["class"]))
    assert_golden(loss.detach(), given[f"{published}/loss"])
    assert_golden(torch.autograd.grad(loss, synthetic)[0], given[f"{published}/grad_syn"])
