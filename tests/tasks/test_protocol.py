import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models import resnet18

from dgs_lightning.tasks.protocol import (
    SCHEDULES,
    asked_epochs,
    channel_statistics,
    decay_groups,
    mixed_cross_entropy,
    published_epochs,
    published_sgd,
    soft_label_loss,
)
from dgs_lightning.tasks.size import DataSize


@pytest.mark.parametrize(
    ("ipc", "ten_classes", "hundred_classes"),
    [
        (1, 3000, 2000),
        (2, 2000, 1300),
        (10, 2000, 1300),
        (11, 1500, 1000),
        (20, 1500, 1000),
        (50, 1500, 1000),
        (51, 1000, 600),
        (200, 1000, 600),
        (201, 500, 300),
        (500, 500, 300),
        (902.5, 300, 200),
    ],
)
def test_exactly_100_classes_have_two_thirds_of_the_published_epochs(
    ipc: float, ten_classes: int, hundred_classes: int
) -> None:
    assert published_epochs(ipc, 100) == hundred_classes
    assert {published_epochs(ipc, classes) for classes in (2, 10, 99, 101, 1000)} == {ten_classes}


@pytest.mark.parametrize(
    ("steps", "ipc", "batches", "expected"),
    [
        (600, 143.8, 23, 3450),  # the digits: (1000 x 23) / (2000 x 2) = 5.75 times
        (1000, 500, 79, 9875),  # (500 x 79) / (2000 x 2) = 9.875 times
        (1000, 900, 141, 141 * math.ceil(10_000 / 141)),  # 10.6 times, but at most 10
        (600, 11, 2, 600),  # 0.75 times, but no shorter
    ],
)
def test_a_whole_training_set_has_the_published_ratio_of_steps_from_1_to_10(
    steps: int, ipc: float, batches: int, expected: int
) -> None:
    size = DataSize(images=round(10 * ipc), classes=10, side=8)
    epochs = partial(asked_epochs, steps=steps, batches=batches, batch_size=64, size=size)
    assert batches * epochs(steps_ipc=10) == expected
    assert epochs() == math.ceil(steps / batches)  # without steps_ipc, for any number


def test_more_than_a_hundred_classes_are_learned_faster_with_less_decay() -> None:
    assert published_sgd(10) == published_sgd(100) == (0.01, 5e-4)
    assert published_sgd(101) == published_sgd(1000) == (0.1, 1e-4)


def test_the_learning_rate_falls_to_a_fifth_at_two_thirds_and_five_sixths() -> None:
    factors = [SCHEDULES["steps"](epoch, 1500) for epoch in (0, 999, 1000, 1249, 1250, 1499)]
    assert factors == pytest.approx([1, 1, 0.2, 0.2, 0.04, 0.04])


def test_a_cosine_goes_from_one_through_a_half_towards_zero() -> None:
    factors = [SCHEDULES["cosine"](epoch, 300) for epoch in (0, 100, 150, 299)]
    assert factors == pytest.approx([1, 0.75, 0.5, 0.0], abs=1e-4)


def test_the_schedule_of_dm_falls_once_after_half_of_the_epochs() -> None:
    factors = [SCHEDULES["half"](epoch, 1000) for epoch in (0, 501, 502, 999)]
    assert factors == [1, 1, 0.1, 0.1]


def test_images_of_other_than_three_channels_are_normalised_by_the_average_channel() -> None:
    assert channel_statistics(3) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    mean, std = channel_statistics(1)
    assert (*mean, *std) == pytest.approx((0.449, 0.226))


def test_mixed_images_count_for_both_classes_by_their_shares() -> None:
    logits = torch.tensor([[0.0, math.log(3)]])  # probabilities 1/4 and 3/4
    loss = mixed_cross_entropy(logits, torch.tensor([1]), torch.tensor([0]), share=0.75, smoothing=0)
    assert loss.item() == pytest.approx(0.75 * math.log(4 / 3) + 0.25 * math.log(4))


def test_the_soft_label_loss_is_zero_for_equals_and_hinton_s_otherwise() -> None:
    student, teacher = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[0.0, 0.0], [1.0, -1.0]])
    assert soft_label_loss(teacher, teacher, 4.0).item() == pytest.approx(0)
    p, q = F.softmax(teacher / 4, dim=1), F.softmax(student / 4, dim=1)
    expected = 16 * (p * (p / q).log()).sum(dim=1).mean()
    torch.testing.assert_close(soft_label_loss(student, teacher, 4.0), expected)


@pytest.mark.golden
@pytest.mark.parametrize("temperature", [1, 4, 20])
def test_without_the_square_of_the_temperature_the_soft_label_loss_is_that_of_rded(
    temperature: int, generative: Callable[[str], dict[str, Tensor]]
) -> None:
    values = generative("rded.npz")
    student, teacher, loss, grad = (
        values[f"kd{temperature}_{part}"] for part in ("student", "teacher", "loss", "grad")
    )
    student.requires_grad_()
    ours = soft_label_loss(student, teacher, temperature, squared=False)
    ours.backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(ours, loss, rtol=1e-5, atol=0)
    torch.testing.assert_close(student.grad, grad, rtol=1e-4, atol=1e-8)
    torch.testing.assert_close(soft_label_loss(student, teacher, temperature), loss * temperature**2, rtol=1e-5, atol=0)


@pytest.mark.golden
@pytest.mark.parametrize(
    ("schedule", "name", "end"), [("half_cosine", "lr_rded_cos", 0.5), ("cosine", "lr_d4m_cos", 0)]
)
def test_the_learning_rate_follows_the_cosines_of_rded_and_d4m(
    schedule: str, name: str, end: float, generative: Callable[[str], dict[str, Tensor]]
) -> None:
    published = generative("rded.npz")[name].tolist()
    assert [SCHEDULES[schedule](epoch, 300) for epoch in range(301)] == pytest.approx(published, abs=1e-12)
    assert published[300] == pytest.approx(end)


@pytest.mark.golden
def test_the_weights_of_convolutions_and_linear_layers_alone_decay_in_rded(golden: Path) -> None:
    path = golden / "generative" / "rded.json"
    if not path.is_file():
        pytest.skip(f"no golden values {path}")
    published = json.loads(path.read_text())
    with torch.device("meta"):
        network = resnet18()
    for group in decay_groups(network, 0.01, "matrices"):
        kind = "decayed" if group["weight_decay"] == 0.01 else "undecayed"
        assert len(group["params"]) == published[f"resnet18_{kind}_tensors"]
        assert sum(parameter.numel() for parameter in group["params"]) == published[f"resnet18_{kind}_values"]
        assert group["weight_decay"] in (0, 0.01)
    [everything] = decay_groups(network, 0.01, "all")
    assert len(everything["params"]) == 21 + 41
