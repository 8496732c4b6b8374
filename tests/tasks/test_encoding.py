import hashlib
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from dgs_lightning.callbacks.latent_writer import LatentWriter
from dgs_lightning.data.latents import LatentCache, shard_paths
from dgs_lightning.data.unfinished import Unfinished
from dgs_lightning.datamodules.images import ImageDataModule
from dgs_lightning.errors import InputError
from dgs_lightning.models.codec import build_codec
from dgs_lightning.tasks.encoding import Encoded, EncodingTask


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eleven 8 x 8 colour images of two classes."""
    folder = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for number in range(11):
        path = folder / "ab"[number % 2] / f"{number:02d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
    return folder


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vae")
    torch.manual_seed(0)
    model: Any = diffusers.AutoencoderKL
    blocks = {"down_block_types": ["DownEncoderBlock2D"] * 2, "up_block_types": ["UpDecoderBlock2D"] * 2}
    model(**blocks, block_out_channels=[8, 8], norm_num_groups=4, scaling_factor=0.5).save_pretrained(folder)
    return folder


def encode(
    task: EncodingTask,
    images: Path,
    output: Path,
    *extra: pl.Callback,
    image_size: int | None = None,
    devices: int = 1,
    strategy: str = "auto",
    precision: Any = "32-true",  # noqa: ANN401
) -> LatentCache:
    runner = pl.Trainer(
        callbacks=[LatentWriter(str(output), shard_images=3), *extra],
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        default_root_dir=output,
        devices=devices,
        strategy=strategy,
        precision=precision,
    )
    runner.predict(task, ImageDataModule(predict=str(images), image_size=image_size, val_batch_size=2))
    return LatentCache(output)


def pixels_of(cache: LatentCache, images: Path) -> Tensor:
    """The images of a cache, in its order, in [-1, 1]."""
    arrays = [np.asarray(Image.open(images / record.file_name)) for record in cache.records]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float() / 127.5 - 1


def read_all(cache: LatentCache, flipped: bool = False) -> Tensor:
    return cache.read(torch.arange(len(cache)), torch.full((len(cache),), flipped)).mean


def test_pixels_are_cached_as_they_are_and_mirrored(images: Path, tmp_path: Path) -> None:
    cache = encode(EncodingTask(dtype="float32"), images, tmp_path)
    expected = pixels_of(cache, images)
    torch.testing.assert_close(read_all(cache), expected)
    torch.testing.assert_close(read_all(cache, flipped=True), expected.flip(-1))
    assert [cache.labels[c] for c in cache.classes] == [record.label for record in cache.records]


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
def test_latents_in_bfloat16_are_nearly_those_in_float32(
    precision: str, images: Path, vae: Path, tmp_path: Path
) -> None:
    exact = read_all(encode(EncodingTask(str(vae)), images, tmp_path / "exact"))
    found = read_all(encode(EncodingTask(str(vae)), images, tmp_path / "bf16", precision=precision))
    assert 0 < (found - exact).norm() / exact.norm() < 0.05


def test_the_posterior_of_a_vae_is_cached(images: Path, vae: Path, tmp_path: Path) -> None:
    cache = encode(EncodingTask(str(vae), flips=False), images, tmp_path)
    expected = build_codec(str(vae)).encode(pixels_of(cache, images))
    mean, logvar = cache.read(torch.arange(11))
    assert logvar is not None
    assert expected.logvar is not None
    torch.testing.assert_close(mean, expected.mean, rtol=2e-3, atol=2e-3)
    torch.testing.assert_close(logvar, expected.logvar, rtol=2e-3, atol=2e-3)
    assert cache.settings.shape == (4, 4, 4)


def test_the_form_of_latents_is_found_before_the_trainer_has_moved_the_weights(images: Path, vae: Path) -> None:
    task = EncodingTask(str(vae))
    task._device = torch.device("meta")  # Lightning names the GPU before the weights are there
    data = ImageDataModule(predict=str(images))
    data.setup("predict")
    assert task.cache_settings(data).shape == (4, 4, 4)


class Kill(pl.Callback):
    def on_predict_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: object) -> None:
        if args[2] == 3:
            os.kill(os.getpid(), signal.SIGKILL)


class Count(EncodingTask):
    encoded = 0

    def encode(self, images: Tensor, positions: Tensor) -> Encoded:
        self.encoded += 1
        return super().encode(images, positions)


def test_a_killed_run_goes_on_where_it_stopped(
    images: Path, tmp_path: Path, in_a_process: Callable[..., int | None]
) -> None:
    assert in_a_process(encode, EncodingTask(), images, tmp_path, Kill()) == -signal.SIGKILL
    assert len(shard_paths(tmp_path)) == 2  # of two batches of two images each
    with pytest.raises(InputError, match="no finished latent cache"):
        LatentCache(tmp_path)
    task = Count()
    cache = encode(task, images, tmp_path)
    assert task.encoded == 2  # the two batches left
    torch.testing.assert_close(read_all(cache), pixels_of(cache, images), rtol=1e-3, atol=1e-3)


def test_a_finished_cache_is_left_alone(images: Path, tmp_path: Path) -> None:
    encode(EncodingTask(), images, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in shard_paths(tmp_path)}
    encode(EncodingTask(), images, tmp_path)
    assert {path: path.stat().st_mtime_ns for path in shard_paths(tmp_path)} == before


def encode_on_two_devices(images: Path, output: Path) -> None:
    encode(EncodingTask(), images, output, devices=2, strategy="ddp")


def test_two_devices_write_the_cache_of_one(images: Path, tmp_path: Path, on_two_devices: Callable[..., None]) -> None:
    on_two_devices(encode_on_two_devices, images, tmp_path / "2")
    one, two = encode(EncodingTask(), images, tmp_path / "1"), LatentCache(tmp_path / "2")
    assert one.key == two.key
    assert torch.equal(read_all(one), read_all(two))


@pytest.mark.parametrize("change", ["image", "transform", "codec", "form"])
def test_a_cache_of_something_else_is_refused(images: Path, vae: Path, tmp_path: Path, change: str) -> None:
    copy = tmp_path / "images"
    for path in images.rglob("*.png"):
        (copy / path.parent.name).mkdir(parents=True, exist_ok=True)
        (copy / path.parent.name / path.name).write_bytes(path.read_bytes())
    encode(EncodingTask(), copy, tmp_path / "cache")
    if change == "image":
        Image.new("RGB", (8, 8)).save(copy / "a" / "00.png")
    settings: dict[str, dict[str, Any]] = {"codec": {"codec": str(vae)}, "form": {"flips": False}}
    task = EncodingTask(**settings.get(change, {}))
    with pytest.raises(InputError, match="latents of other images, or made with another codec or transform"):
        encode(task, copy, tmp_path / "cache", image_size=4 if change == "transform" else None)


def test_an_image_that_cannot_be_read_is_named(images: Path, tmp_path: Path) -> None:
    broken = tmp_path / "images" / "a" / "broken.png"
    broken.parent.mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(broken.with_name("0.png"))
    broken.write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"broken\.png: found no readable image"):
        encode(EncodingTask(), tmp_path / "images", tmp_path / "cache")


def shards_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_cache_is_resumed_whenever_it_is_killed(
    images: Path, tmp_path: Path, killed_at_changes: Callable[..., list[int]]
) -> None:
    encode(EncodingTask(), images, tmp_path / "0")
    kills = killed_at_changes(
        lambda number: tmp_path / f"{number}", lambda number: encode(EncodingTask(), images, tmp_path / f"{number}")
    )
    assert len(kills) > 6
    for number in kills:
        assert shards_of(tmp_path / f"{number}") == shards_of(tmp_path / "0")


def test_an_altered_shard_is_made_again_when_a_cache_is_resumed(
    images: Path, tmp_path: Path, in_a_process: Callable[..., int | None]
) -> None:
    encode(EncodingTask(), images, tmp_path / "whole")
    assert in_a_process(encode, EncodingTask(), images, tmp_path / "cache", Kill()) == -signal.SIGKILL
    shard = shard_paths(tmp_path / "cache")[0]
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1  # of a latent
    shard.write_bytes(data)
    encode(EncodingTask(), images, tmp_path / "cache")
    assert shards_of(tmp_path / "cache") == shards_of(tmp_path / "whole")


def test_a_broken_shard_of_a_finished_cache_is_made_again(images: Path, tmp_path: Path) -> None:
    encode(EncodingTask(), images, tmp_path)
    whole = shards_of(tmp_path)
    shard_paths(tmp_path)[1].write_bytes(b"")
    encode(EncodingTask(), images, tmp_path)
    assert shards_of(tmp_path) == whole


def test_what_a_killed_writer_left_of_a_shard_is_removed(images: Path, tmp_path: Path) -> None:
    encode(EncodingTask(), images, tmp_path / "whole")
    Unfinished(tmp_path / "cache", "latents").begin(LatentCache(tmp_path / "whole").key)
    (tmp_path / "cache" / ".tmpAb3dE6").write_bytes(b"of safetensors")
    (tmp_path / "cache" / ".0123456789abcdef.partial").mkdir()
    (tmp_path / "cache" / ".0123456789abcdef.partial" / "file").write_bytes(b"ours")
    encode(EncodingTask(), images, tmp_path / "cache")
    assert shards_of(tmp_path / "cache") == shards_of(tmp_path / "whole")


def test_a_cache_that_lost_its_card_is_completed_where_a_run_vouches_for_it(images: Path, tmp_path: Path) -> None:
    encode(EncodingTask(), images, tmp_path)
    whole = shards_of(tmp_path)
    (tmp_path / "latents.json").unlink()
    Unfinished(tmp_path, "latents").adopt({name: hashlib.sha256(data).hexdigest() for name, data in whole.items()})
    task = Count()
    encode(task, images, tmp_path)
    assert task.encoded == 0
    assert shards_of(tmp_path) == whole
