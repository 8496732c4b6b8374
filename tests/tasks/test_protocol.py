import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from dgs_lightning.tasks.protocol import (
    SCHEDULES,
    asked_epochs,
    channel_statistics,
    mixed_cross_entropy,
    published_epochs,
    published_sgd,
    soft_label_loss,
)


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
    epochs = partial(asked_epochs, steps=steps, batches=batches, batch_size=64, ipc=ipc, classes=10)
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
