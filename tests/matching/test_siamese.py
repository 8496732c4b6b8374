import json
from pathlib import Path

import pytest
import torch
from tests.matching.conftest import Load, assert_golden, part
from torch import Tensor

from dgs_lightning.matching.siamese import (
    COLOR,
    OPERATIONS,
    PUBLISHED,
    Draw,
    apply,
    draw_in_turn,
    draw_one,
    draw_operation,
)
from dgs_lightning.seeding import generator


def draw_of(values: dict[str, list[float]]) -> list[Draw]:
    """Draws that a batch shares, from the numbers of each operation."""
    return [Draw(name, tuple(torch.tensor([number]) for number in numbers)) for name, numbers in values.items()]


def draws_in_turn(operations: list[list[object]]) -> list[Draw]:
    """Draws, from lists of an operation and its numbers."""
    return [Draw(str(name), tuple(map(torch.tensor, numbers))) for name, *numbers in operations]


@pytest.mark.golden
@pytest.mark.parametrize("who", ["shared", "own"])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_operation_and_its_gradient_are_the_published_ones(operation: str, who: str, values: Load) -> None:
    given = values("dsa_ops")
    for tag in sorted({name.split("/")[0] for name in given}):
        expected = part(given, f"{tag}/{operation}/{who}/")
        images = given[f"{tag}/x"].requires_grad_()
        draws = tuple(expected[name] for name in ("draw0", "draw1") if name in expected)
        found = apply(images, [Draw(operation, draws)])
        assert_golden(found, expected["out"])
        gradient = torch.autograd.grad((found * given[f"{tag}/w"]).sum(), images)[0]
        assert_golden(gradient, expected["grad"])


@pytest.mark.golden
def test_both_sides_of_a_siamese_draw_are_the_published_ones(golden: Path, values: Load) -> None:
    given = values("dsa_siamese")
    for case in json.loads((golden / "matching" / "dsa_siamese.json").read_text()):
        draws = draw_of(case["draws"])
        for side in ("real", "syn"):
            assert_golden(apply(given[side], draws), given[f"case{case['case']}/{side}"])


@pytest.mark.golden
def test_the_augmentation_of_idc_is_the_published_one(golden: Path, values: Load) -> None:
    given = values("idc_augmentation")
    for case in json.loads((golden / "matching" / "idc_augmentation.json").read_text()):
        expected = given[f"case{case['case']}/out"]
        assert_golden(apply(given["x"], draws_in_turn(case["ops"])), expected)
        count = 1 if case["shared"] else len(given["x"])
        drawn = draw_in_turn(case["strategy"].split("_"), count, 8, generator(0))
        places = {"crop", "scale", "rotate"}
        assert [d.operation for d in drawn if d.operation not in places] == [
            name for name, *_ in case["ops"] if name not in places
        ]
        assert all(len(value) == count for draw in drawn for value in draw.values)


def test_one_entry_is_drawn_and_color_counts_as_one() -> None:
    source = generator("entries")
    found = [tuple(d.operation for d in draw_one(PUBLISHED, 1, 8, source)) for _ in range(600)]
    shares = {names: found.count(names) / len(found) for names in set(found)}
    assert shares.keys() == {COLOR, *[(name,) for name in PUBLISHED if name != "color"]}
    assert all(0.1 < share < 0.24 for share in shares.values())
    assert draw_one((), 1, 8, source) == []


@pytest.mark.parametrize(("name", "low", "high"), [("crop", -1, 1), ("cutout", 0, 9)])
def test_places_are_drawn_from_the_published_ranges(name: str, low: int, high: int) -> None:
    side = 8 if name == "crop" else 9  # hole of 5 px: the last row is not drawn
    numbers: Tensor = torch.cat(draw_operation(name, 1000, side, generator(0)).values)
    assert (int(numbers.min()), int(numbers.max())) == (low, high - (name == "cutout"))


def test_operations_keep_the_type_of_the_images() -> None:
    images = torch.rand(3, 1, 8, 8, dtype=torch.float64)
    for name in OPERATIONS:
        assert apply(images, [draw_operation(name, 3, 8, generator(0))]).dtype == torch.float64
