import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from dgs_lightning.reporting.pictures import (
    ScoredImage,
    class_samples,
    difficulty_grid,
    original_against_distilled,
    spread,
)


def grey(value: int) -> Image.Image:
    return Image.fromarray(np.full((8, 8), value, np.uint8))


def shown(figure: Figure) -> list[int]:
    """Grey value of each image, in reading order."""
    images = sorted(figure.axes[0].images, key=lambda image: (image.get_extent()[3], image.get_extent()[0]))
    return [int(np.asarray(image.get_array()).flat[0]) for image in images]


def scored(*values: int) -> list[ScoredImage]:
    return [ScoredImage(grey(value), value / 100) for value in values]


def test_a_grid_runs_from_easy_to_hard_with_the_difficulty_under_each_image() -> None:
    figure = difficulty_grid(scored(50, 10, 90, 30), "cats", columns=3)
    assert shown(figure) == [10, 30, 50, 90]
    assert [text.get_text() for text in figure.axes[0].texts] == ["cats", "0.10", "0.30", "0.50", "0.90"]


def test_fig_5_puts_a_classs_distilled_images_under_its_originals() -> None:
    pair = (scored(*range(1, 41)), scored(70, 60))
    figure = original_against_distilled({"cat": pair}, columns=4)
    assert shown(figure) == [1, 14, 27, 40, 60, 70]
    assert [text.get_text() for text in figure.axes[0].texts][:2] == ["cat", "original"]


def test_fig_6_has_a_row_of_images_for_each_class() -> None:
    figure = class_samples({"cat": [grey(1), grey(2), grey(3)], "dog": [grey(9)]}, "samples", columns=2)
    assert shown(figure) == [1, 2, 9]


@pytest.mark.parametrize(("count", "taken"), [(1, [0]), (2, [0, 9]), (4, [0, 3, 6, 9]), (99, list(range(10)))])
def test_spread_takes_evenly_spaced_items_with_both_ends(count: int, taken: list[int]) -> None:
    assert spread(range(10), count) == taken
