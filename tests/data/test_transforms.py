import numpy as np
import pytest
import torch
from PIL import Image

from dgs_lightning.data.transforms import CROPS, CropToBytes, adm_center_crop, resize_and_crop, to_bytes, to_unit


def noise(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("crop", CROPS)
@pytest.mark.parametrize(("width", "height"), [(1, 1), (7, 5), (16, 16), (33, 64), (200, 40), (1, 300)])
def test_any_image_becomes_a_square_of_the_size(crop: str, width: int, height: int) -> None:
    assert CROPS[crop](noise(width, height), 16).size == (16, 16)


@pytest.mark.parametrize("crop", CROPS)
def test_a_square_of_the_size_stays_as_it_is(crop: str) -> None:
    image = noise(16, 16)
    assert np.array_equal(np.asarray(CROPS[crop](image, 16)), np.asarray(image))


@pytest.mark.parametrize("crop", CROPS)
def test_the_middle_is_kept(crop: str) -> None:
    image = noise(30, 10)
    assert np.array_equal(np.asarray(CROPS[crop](image, 10)), np.asarray(image.crop((10, 0, 20, 10))))


def test_the_adm_crop_averages_boxes_before_it_resizes() -> None:
    image = noise(32, 32)
    boxes = np.asarray(image, dtype=np.float64).reshape(16, 2, 16, 2, 3).mean(axis=(1, 3))
    assert np.abs(np.asarray(adm_center_crop(image, 16)) - boxes).max() <= 1
    assert np.abs(np.asarray(resize_and_crop(image, 16)) - boxes).max() > 5


def test_pixels_are_channels_first_as_bytes_or_in_the_unit_interval() -> None:
    image = Image.new("RGB", (3, 2), (0, 51, 255))
    assert to_bytes(image).shape == (3, 2, 3)
    assert to_bytes(image)[:, 0, 0].tolist() == [0, 51, 255]
    assert torch.equal(to_unit(image)[:, 0, 0], torch.tensor([0.0, 0.2, 1.0]))
    assert to_bytes(image.convert("L")).shape == (1, 2, 3)
    assert CropToBytes(2, "adm")(image).shape == (3, 2, 2)
