import struct
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from dgs_lightning.commands.prepare import prepare
from dgs_lightning.data.cards import read_card
from dgs_lightning.data.folders import scan_images
from dgs_lightning.data.images import ImageSet, is_grey, load_image
from dgs_lightning.datamodules.images import ImageDataModule
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


def write_16_bit_colours(path: Path, pixels: Any) -> None:  # noqa: ANN401
    """A PNG that Pillow itself does not write: pixels (H, W, 3) with 16 bits a channel."""
    height, width, _ = pixels.shape
    lines = b"".join(b"\0" + line.tobytes() for line in pixels.astype(">u2"))
    parts = {
        b"IHDR": struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0),
        b"IDAT": zlib.compress(lines),
        b"IEND": b"",
    }
    chunks = (struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in parts.items())
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))


def write_signed(path: Path, pixels: Any) -> None:  # noqa: ANN401
    """A TIFF of signed 16-bit values, as scanners write it."""
    directory = ImageFileDirectory_v2()
    directory[339] = 2  # SampleFormat: signed
    Image.fromarray(pixels.astype("<i2").view(np.uint16)).save(path, tiffinfo=directory)


def test_values_become_black_and_white_as_the_range_says(tmp_path: Path) -> None:
    values = np.array([[0, 2048], [4095, 60000]])
    Image.fromarray(values.astype(np.uint16)).save(tmp_path / "deep.png")
    write_signed(tmp_path / "signed.tif", values.clip(0, 4095) - 1024)
    Image.fromarray(values.clip(0, 4095).astype(np.float32) / 4095).save(tmp_path / "float.tif")
    ranges: dict[str, tuple[float, float]] = {"deep.png": (0, 4095), "signed.tif": (-1024, 3071), "float.tif": (0, 1)}
    for name, value_range in ranges.items():
        image = load_image(tmp_path / name, 1, value_range)
        assert np.asarray(image).tolist() == [[0, 128], [255, 255]], name


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("signed.tif", r"values from -1,024 to 3,000 .*value_range='\[-1024, 3000\]'"),
        ("long.tif", r"values from 0 to 70,000 .*value_range='\[0, 70000\]'"),
        ("float.tif", r"values from 0 to 0\.5 .*value_range='\[0, 0\.5\]'"),
    ],
)
def test_values_that_16_bits_cannot_hold_are_refused_with_a_range(tmp_path: Path, name: str, says: str) -> None:
    write_signed(tmp_path / "signed.tif", np.array([[-1024, 3000]]))
    Image.fromarray(np.array([[0, 70_000]], dtype=np.int32)).save(tmp_path / "long.tif")
    Image.fromarray(np.array([[0, 0.5]], dtype=np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(InputError, match=says):
        load_image(tmp_path / name)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_no_numbers_are_refused(tmp_path: Path, value: float) -> None:
    for label in ("cat", "dog"):
        (tmp_path / "set" / label).mkdir(parents=True)
        for name in "ab":
            pixels = np.array([[0, value]] * 2, dtype=np.float32)
            Image.fromarray(pixels).save(tmp_path / "set" / label / f"{name}.tif")
    for value_range in (None, (0, 1)):
        with pytest.raises(InputError, match="values that are no numbers"):
            prepare(str(tmp_path / "set"), str(tmp_path / "out"), image_size=2, value_range=value_range)


def test_what_a_download_left_in_place_of_an_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    (tmp_path / "b.jpg").write_text("<!doctype html><title>Not found</title>")
    for name, says in (("a.jpg", "a git-LFS pointer"), ("b.jpg", "a web page")):
        with pytest.raises(InputError, match=says):
            load_image(tmp_path / name)


@pytest.mark.parametrize("kind", ["10 bits", "12 bits", "signed", "colour"])
def test_a_set_with_values_of_fewer_bits_is_refused_where_it_is_read_or_prepared(tmp_path: Path, kind: str) -> None:
    highest = {"10 bits": 1000, "signed": 3000}.get(kind, 4000)
    for label in ("cat", "dog"):
        (tmp_path / "set" / label).mkdir(parents=True)
        for number in range(4):
            pixels = np.linspace(0, highest - number, 48).round().reshape(4, 4, 3)
            path = tmp_path / "set" / label / f"{number}.tif"
            if kind == "colour":
                write_16_bit_colours(path.with_suffix(".png"), pixels)
            elif kind == "signed":
                write_signed(path, pixels[..., 0] - 1024)
            else:
                Image.fromarray(pixels[..., 2].astype(np.uint16)).save(path)
    says = {
        "10 bits": r"from \d+ to 1,000 .*value_range='\[0, 1023\]'",
        "12 bits": r"from \d+ to 4,000 .*value_range='\[0, 4095\]'",
        "signed": r"from -1,024 to [\d,]+ .*value_range='\[-1024, \d+\]'",
        "colour": r"to 3,855 .*save them with 8",
    }[kind]
    with pytest.raises(InputError, match=says):
        prepare(str(tmp_path / "set"), str(tmp_path / "out"), val_fraction=0.25)
    with pytest.raises(InputError, match=says):
        ImageDataModule(predict=str(tmp_path / "set")).setup("predict")
    if kind == "12 bits":
        prepare(str(tmp_path / "set"), str(tmp_path / "out"), val_fraction=0.25, value_range=(0, 4095))
        written = [np.asarray(Image.open(file)).max() for file in (tmp_path / "out").rglob("*.png")]
        assert min(written) == 249
        assert read_card(tmp_path / "out" / "train")["settings"]["value_range"] == [0, 4095]
        prepare(str(tmp_path / "set"), str(tmp_path / "out"), val_fraction=0.25, value_range=(0, 4095))
        dark = tmp_path / "dark"
        prepare(str(tmp_path / "set"), str(dark), val_fraction=0.25, value_range=(0, 65535))
        assert np.asarray(Image.open(next(dark.rglob("*.png")))).max() == 16
