"""What the answers of a classifier tell about the order of the classes of a set."""

from math import factorial

import pytest

from dgs_lightning.data.order import Order

LABELS = "abcdefghij"


def answers(images: int, shift: int, right: float = 1.0) -> list[tuple[str, str]]:
    """Of each label so many images, of which a share is given the label ``shift`` further, and the others ``a``."""
    seen = LABELS[shift:] + LABELS[:shift]
    return [
        (label, other if number < right * images else "a")
        for label, other in zip(LABELS, seen, strict=True)
        for number in range(images)
    ]


def test_a_wrong_order_is_proved_by_many_images_that_fit_another_one() -> None:
    order = Order.of(answers(10, shift=3, right=0.8))
    assert order.is_wrong
    assert order.seen == dict(zip(LABELS, "defghijabc", strict=True))
    assert order.recognised == pytest.approx(0.02)
    assert order.best == pytest.approx(0.82)


def test_few_images_prove_nothing() -> None:
    order = Order.of(answers(1, shift=3))
    assert (order.recognised, order.best) == (0, 1)
    assert order.chance == pytest.approx(factorial(10) * 0.1**10)  # of ten images, all ten at random
    assert not order.is_wrong


@pytest.mark.parametrize("found", [answers(50, shift=0), answers(50, shift=0, right=0), answers(50, 3, right=0.2), []])
def test_no_order_is_called_wrong_without_another_that_is_right(found: list[tuple[str, str]]) -> None:
    assert not Order.of(found).is_wrong


def test_two_exchanged_classes_are_named() -> None:
    exchanged = {"c": "h", "h": "c"}
    order = Order.of([(label, exchanged.get(label, label)) for label, _ in answers(20, shift=0)])
    assert order.exchanged == ("c", "h")
    assert not order.is_wrong  # as a whole: the others are right
    assert order.recognised == pytest.approx(0.8)
