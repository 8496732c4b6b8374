from pathlib import Path

import numpy as np
import pytest
from page import draw_curves, draw_growth, page
from PIL import Image
from topics import TOPICS, Curves, Growth, Measured, Topic, figure, number, overhead

from dgs_lightning.reporting.style import new_figure

CURVES = Curves("ms", "own", "reference", 1000)
TOPIC = Topic(
    "Weaving",
    "selection.py",
    {"own, s": lambda figures: number(figures["own"]), "ratio": lambda figures: number(figures["ratio"])},
    {"wool": "--yarn wool"},
    "",
    Growth("--thread-count", (10, 1000), "--yarn silk", CURVES),
)
SMALL, LARGE = {"own": 0.25, "reference": 2.0, "ratio": 8.0}, {"own": 0.5, "reference": 617.0, "ratio": 1234.5}
MEASURED = Measured(TOPIC, {"wool": SMALL}, {10: SMALL, 1000: LARGE}, {"cores": "2", "torch": "9.8"})


@pytest.mark.parametrize(
    ("value", "text"), [(0.00094317, "0.000943"), (8.0, "8"), (1234.5, "1,230"), (462.4, "462"), (0.1 + 0.2, "0.3")]
)
def test_numbers_have_three_digits_that_count(value: float, text: str) -> None:
    assert number(value) == text


def test_lightnings_overhead_is_what_a_step_takes_longer_than_in_a_bare_loop() -> None:
    assert overhead({"ms_per_step": 12.5, "lightning_overhead": 0.25}) == "25.0 %, 2.50 ms"  # 10 ms without it


def test_the_page_shows_machine_cases_and_growth() -> None:
    text = page([MEASURED], short=False)
    assert "\n*Measured on: cores 2, torch 9.8.*\n" in text
    assert "\n| Weaving | own, s | ratio |\n| --- | ---: | ---: |\n| wool (`--yarn wool`) | 0.25 | 8 |\n" in text
    assert "| thread count (`--yarn silk`) | own, s | ratio |\n| --- | ---: | ---: |\n| 10 | 0.25 | 8 |\n" in text
    assert "\n| 1,000 | 0.5 | 1,230 |\n" in text
    assert "![Weaving over thread count](images/growth.png)" in text


def test_a_section_opens_with_what_its_program_says_of_itself() -> None:
    text = page([MEASURED], short=False)
    assert "## Weaving\n\nTime and memory of difficulty-guided sampling" in text
    assert "\n    python benchmarks/selection.py [" in text


def test_a_topic_that_was_never_measured_says_so_and_is_not_drawn(tmp_path: Path) -> None:
    assert page([Measured(TOPIC, {})], short=False).endswith("\nNot measured yet.\n")
    draw_growth([MEASURED, Measured(TOPIC, {})], tmp_path / "growth.png")
    with Image.open(tmp_path / "growth.png") as drawn:
        assert drawn.width == 416  # of one part


def test_a_figure_that_was_not_measured_is_a_dash() -> None:
    assert [figure("own", 1000)(figures) for figures in (SMALL, {})] == ["250", "-"]


def test_the_short_form_says_that_it_is_one() -> None:
    assert ["short form" in page([MEASURED], short) for short in (True, False)] == [True, False]


def test_curves_go_through_what_was_measured() -> None:
    axes = new_figure(3, 3).subplots()
    draw_curves(axes, CURVES, MEASURED.growth)
    own, reference = (np.asarray(line.get_data()).tolist() for line in axes.get_lines())
    assert own == [[10, 1000], [250, 500]]
    assert reference == [[10, 1000], [2000, 617000]]
    low, high = axes.get_ylim()
    assert low < 250 < 617000 < high
    assert any(low < tick < high for tick in axes.get_yticks())


def test_the_figure_has_a_part_for_each_topic_that_grows(tmp_path: Path) -> None:
    widths = []
    for parts in ([MEASURED], [MEASURED, Measured(TOPICS[-1], {}), MEASURED]):
        draw_growth(parts, tmp_path / "images" / "growth.png")
        with Image.open(tmp_path / "images" / "growth.png") as drawn:
            widths.append(drawn.width)
    assert widths == [416, 832]
