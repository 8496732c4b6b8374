import math

import pytest
import torch

from dgs_lightning.selection.difficulty import (
    DIFFICULTIES,
    confidence_difficulty,
    ensemble_difficulty,
    entropy_difficulty,
    loss_difficulty,
    margin_difficulty,
)

HALF = torch.tensor([[math.log(2), 0.0, 0.0]])  # probabilities 1/2, 1/4, 1/4
FIRST = torch.tensor([0])


def test_confidence_difficulty_is_one_minus_the_probability_of_the_true_class() -> None:
    torch.testing.assert_close(confidence_difficulty(HALF.repeat(2, 1), torch.tensor([0, 1])).tolist(), [0.5, 0.75])


def test_margin_difficulty_is_a_half_on_the_decision_boundary() -> None:
    tie = torch.tensor([[3.0, 3.0, -50.0]])
    assert margin_difficulty(tie, FIRST).item() == pytest.approx(0.5)
    assert margin_difficulty(HALF, FIRST).item() == pytest.approx((1 + 0.25 - 0.5) / 2)


def test_entropy_difficulty_counts_bits_of_the_most_there_can_be() -> None:
    assert entropy_difficulty(HALF, FIRST).item() == pytest.approx(1.5 / math.log2(3))


def test_loss_difficulty_of_guessing_is_a_half() -> None:
    assert loss_difficulty(torch.zeros(1, 7), FIRST).item() == pytest.approx(0.5)


@pytest.mark.parametrize("name", DIFFICULTIES)
def test_difficulties_stay_in_the_unit_interval_and_rise_with_wrongness(name: str) -> None:
    logits = torch.tensor([[100.0, 0.0], [2.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    values = DIFFICULTIES[name](logits, torch.zeros(4, dtype=torch.long)).tolist()
    assert values == sorted(values)
    assert values[0] == pytest.approx(0, abs=1e-6)
    assert DIFFICULTIES[name](torch.tensor([[-1000.0, 1000.0]]), FIRST).item() <= 1


def test_easy_images_keep_their_order_below_the_rounding_of_floats() -> None:
    easy = confidence_difficulty(torch.tensor([[50.0, 0.0], [60.0, 0.0]]), torch.tensor([0, 0]))
    torch.testing.assert_close(easy.tolist(), [math.exp(-50), math.exp(-60)], rtol=1e-6, atol=0.0)


def test_an_ensemble_is_the_mean_of_its_members() -> None:
    assert ensemble_difficulty([torch.tensor([0.0, 0.5]), torch.tensor([1.0, 0.0])]).tolist() == [0.5, 0.25]
    with pytest.raises(ValueError, match="at least one estimator"):
        ensemble_difficulty([])


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (torch.zeros(2, 3), torch.zeros(3, dtype=torch.long), "need logits"),
        (torch.zeros(2, 1), torch.zeros(2, dtype=torch.long), "two classes"),
        (torch.tensor([[math.nan, 0.0]]), FIRST, "finite"),
    ],
)
def test_logits_that_mean_nothing_are_refused(logits: torch.Tensor, labels: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        confidence_difficulty(logits, labels)
