import struct
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dgs_lightning.data.folders import scan_images
from dgs_lightning.data.images import ImageSet, is_grey, load_image
from dgs_lightning.errors import InputError

MakeSet = Callable[..., Path]
RED = (255, 0, 0)


def pixel(path: Path, channels: int = 3) -> Any:  # noqa: ANN401
    return load_image(path, channels).getpixel((0, 0))


@pytest.mark.parametrize(
    ("mode", "colour", "suffix", "expected"),
    [
        ("RGB", (10, 20, 30), "png", (10, 20, 30)),
        ("L", 77, "png", (77, 77, 77)),
        ("1", 1, "png", (255, 255, 255)),
        ("P", 0, "gif", (0, 0, 0)),
        ("RGBA", (255, 0, 0, 255), "png", RED),
        ("RGBA", (255, 0, 0, 0), "png", (255, 255, 255)),
        ("RGBA", (0, 0, 0, 51), "png", (204, 204, 204)),
        ("LA", (0, 0), "png", (255, 255, 255)),
        ("CMYK", (0, 255, 255, 0), "tif", RED),
        ("I;16", 65535, "png", (255, 255, 255)),
        ("I;16", 257 * 100, "png", (100, 100, 100)),
        ("I;16", 128, "png", (0, 0, 0)),
        ("I;16", 129, "png", (1, 1, 1)),
    ],
)
def test_every_kind_of_image_becomes_8_bit_rgb(
    tmp_path: Path, mode: str, colour: int | tuple[int, ...], suffix: str, expected: tuple[int, ...]
) -> None:
    path = tmp_path / f"image.{suffix}"
    Image.new(mode, (1, 1), colour).save(path)
    image = load_image(path)
    assert (image.mode, image.size, image.getpixel((0, 0))) == ("RGB", (1, 1), expected)


def test_a_cmyk_jpeg_keeps_its_colours(tmp_path: Path) -> None:
    Image.new("RGB", (16, 16), RED).convert("CMYK").save(tmp_path / "image.jpg", quality=95)
    found = pixel(tmp_path / "image.jpg")
    assert np.abs(np.subtract(found, RED)).max() < 10


def test_a_transparent_palette_colour_is_white(tmp_path: Path) -> None:
    image = Image.new("P", (1, 1), 3)
    image.putpalette([0] * 768)
    image.save(tmp_path / "image.png", transparency=3)
    assert pixel(tmp_path / "image.png") == (255, 255, 255)


def test_one_channel_is_asked_for_or_three(tmp_path: Path) -> None:
    Image.new("RGB", (1, 1), (255, 255, 255)).save(tmp_path / "image.png")
    assert load_image(tmp_path / "image.png", 1).mode == "L"
    assert pixel(tmp_path / "image.png", 1) == 255


def test_grey_comes_through_rgb_and_back_unchanged(tmp_path: Path) -> None:
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    Image.fromarray(ramp).save(tmp_path / "ramp.png")
    assert np.array_equal(np.asarray(load_image(tmp_path / "ramp.png").convert("L")), ramp)


def test_an_image_is_turned_as_its_exif_data_say(tmp_path: Path) -> None:
    image = Image.new("RGB", (2, 1))
    image.putpixel((0, 0), RED)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to show
    image.save(tmp_path / "image.png", exif=exif)
    loaded = load_image(tmp_path / "image.png")
    assert (loaded.size, loaded.getpixel((0, 0))) == ((1, 2), RED)


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tif"])
def test_the_first_frame_of_an_animation_counts(tmp_path: Path, suffix: str) -> None:
    red, blue = Image.new("RGB", (4, 4), RED), Image.new("RGB", (4, 4), (0, 0, 255))
    path = tmp_path / f"image.{suffix}"
    red.save(path, save_all=True, append_images=[blue], lossless=True)
    assert pixel(path) == RED


@pytest.mark.parametrize("kind", ["empty", "text", "half", "missing", "folder", "float", "header"])
def test_a_file_that_is_no_readable_image_is_named(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "image.png"
    if kind == "float":
        path = tmp_path / "image.tif"
        Image.new("F", (1, 1), 0.5).save(path)
    elif kind == "folder":
        path.mkdir()
    elif kind != "missing":
        Image.effect_noise((64, 64), 50).save(path)
        whole = path.read_bytes()
        broken = whole[:8] + b"\xff" * 8 + whole[16:]
        path.write_bytes({"empty": b"", "text": b"no image", "half": whole[: len(whole) // 2], "header": broken}[kind])
    with pytest.raises(InputError, match=path.name):
        load_image(path)


def test_an_image_is_grey_when_no_pixel_has_a_colour() -> None:
    image = Image.new("RGB", (3, 3), (9, 9, 9))
    assert is_grey(image)
    image.putpixel((2, 2), (9, 9, 10))
    assert not is_grey(image)


def test_a_set_yields_pictures_with_the_positions_of_their_labels(make_set: MakeSet) -> None:
    folder = make_set("tree", {"cat": ["1.png"], "dog": ["1.png", "2.png"]})
    images = ImageSet(folder, scan_images(folder), ("dog", "cat"), lambda image: image.size, channels=1)
    assert [images[i] for i in range(len(images))] == [((8, 8), 1), ((8, 8), 0), ((8, 8), 0)]


def with_a_bit_flipped(data: bytes, place: int) -> bytes:
    changed = bytearray(data)
    changed[place // 8] ^= 1 << place % 8
    return bytes(changed)


def test_an_image_with_any_bit_flipped_is_an_image_or_an_input_error(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    Image.effect_noise((4, 4), 50).save(path)
    whole = path.read_bytes()
    for place in range(8 * len(whole)):
        path.write_bytes(with_a_bit_flipped(whole, place))
        with suppress(InputError):
            load_image(path)


def test_a_text_that_grows_when_it_is_unpacked_is_an_input_error(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    Image.new("L", (4, 4)).save(path)
    content = b"zTXt" + b"key\0\0" + zlib.compress(bytes(2**26))
    chunk = struct.pack(">I", len(content) - 4) + content + struct.pack(">I", zlib.crc32(content))
    path.write_bytes(path.read_bytes()[:33] + chunk + path.read_bytes()[33:])
    with pytest.raises(InputError, match="no readable image"):
        load_image(path)
