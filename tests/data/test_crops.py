"""Crops and stitched pictures against the values of RDED's release."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from dgs_lightning.commands.crops import to_pixels
from dgs_lightning.data.crops import cut, draw_squares, pad, places, stitch_patches
from dgs_lightning.selection.difficulty import confidence_difficulty
from dgs_lightning.tasks.protocol import CHANNEL_MEAN, CHANNEL_STD

Golden = Callable[[str], dict[str, Tensor]]


@pytest.mark.golden
def test_crops_are_resized_and_padded_as_in_the_release(generative: Golden) -> None:
    values = generative("rded.npz")
    found = cut(values["crop_image"], values["crop_boxes"], values["crop_patches"].shape[-1])
    torch.testing.assert_close(found, values["crop_patches"], rtol=1e-5, atol=1e-6)
    assert torch.equal(pad(values["pad_in"], *values["pad_out"].shape[-2:]), values["pad_out"])


@pytest.mark.golden
@pytest.mark.parametrize("case", "abcd")
def test_the_easiest_crops_become_the_published_pictures(case: str, generative: Golden) -> None:
    values = {name[2:]: value for name, value in generative("rded.npz").items() if name.startswith(f"{case}_")}
    crops, size, factor, ipc = values["crops"], *(int(values[name]) for name in ("size", "factor", "ipc"))
    images, each = crops.shape[:2]
    seen = pad(crops.flatten(0, 1), size, size).flatten(1)
    logits = seen @ values["teacher_w"].T + values["teacher_b"]
    expected = values["logits"].transpose(0, 1).flatten(0, 1)
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))
    difficulty = confidence_difficulty(logits, values["label"].expand(images * each)).reshape(images, each).numpy()
    best = difficulty.argmin(axis=1)
    assert best.tolist() == values["best_crop"].tolist()
    order = np.argsort(difficulty.min(axis=1), kind="stable")[: ipc * factor**2]
    assert order.tolist() == values["order"].tolist()
    selected = crops[torch.arange(len(crops)), torch.from_numpy(best)][torch.from_numpy(order)]
    assert torch.equal(selected, values["selected"])
    pictures = [stitch_patches([selected[rank] for rank in ranks], factor, size) for ranks in places(ipc, factor)]
    assert torch.equal(torch.stack(pictures), values["stitched"])
    mean, std = (torch.tensor(numbers)[:, None, None] for numbers in (CHANNEL_MEAN, CHANNEL_STD))
    pixels = to_pixels(selected * std + mean)
    bytes_ = [stitch_patches([pixels[rank] for rank in ranks], factor, size) for ranks in places(ipc, factor)]
    assert torch.equal(torch.stack(bytes_).permute(0, 2, 3, 1), values["stitched_uint8"])


@pytest.mark.parametrize(("height", "width"), [(40, 52), (100, 100), (8, 8)])
def test_squares_lie_in_the_image_and_cover_the_shares_asked_for(height: int, width: int) -> None:
    boxes = draw_squares(4000, height, width, (0.08, 1.0), torch.Generator().manual_seed(0))
    top, left, tall, wide = boxes.double().unbind(dim=1)
    assert torch.equal(tall, wide)
    assert top.min() == left.min() == 0
    assert (top + tall).max() == height
    assert (left + wide).max() == width
    shares = tall * wide / (height * width)
    assert shares.min() > 0.05
    largest = min(height, width) ** 2 / (height * width)
    assert shares.mean().item() == pytest.approx((0.08 + largest) / 2, abs=0.03)


def test_a_square_that_never_fits_is_the_largest_in_the_centre() -> None:
    boxes = draw_squares(3, 4, 100, (0.9, 1.0), torch.Generator().manual_seed(0))
    assert boxes.tolist() == [[0, 48, 4, 4]] * 3


def test_the_easiest_patches_are_at_the_top_left_of_all_pictures() -> None:
    assert places(3, 2) == [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]]
    assert places(2, 1) == [[0], [1]]
