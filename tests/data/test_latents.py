from pathlib import Path

import pytest
import torch

from dgs_lightning.data.cards import hash_files
from dgs_lightning.data.latents import (
    CacheSettings,
    LatentCache,
    check_space,
    encoded_images,
    finish_cache,
    shard_paths,
    write_shard,
)
from dgs_lightning.data.records import ImageRecord
from dgs_lightning.errors import InputError

SETTINGS = CacheSettings("codec", "transform", (2, 3, 3), posterior=True, flips=2, dtype="float16")
LATENTS = torch.randn(7, 2, 2, 3, 3, generator=torch.Generator().manual_seed(0))
RECORDS = [ImageRecord(f"{'ab'[i % 2]}/{i}.png", "ab"[i % 2]) for i in (0, 2, 4, 6, 1, 3, 5)]


def write_shards(folder: Path, rows: tuple[list[int], ...], key: str = SETTINGS.key("images")) -> None:
    for chosen in rows:
        images = torch.tensor(chosen)
        write_shard(folder, key, images, LATENTS[images].half(), -LATENTS[images].half())


def test_what_is_read_is_what_was_written_whatever_the_shards(tmp_path: Path) -> None:
    write_shards(tmp_path, ([5, 0], [1, 2, 6], [3, 4]))
    finish_cache(tmp_path, SETTINGS, RECORDS, "images")
    cache = LatentCache(tmp_path)
    images, flipped = torch.tensor([6, 0, 3, 3]), torch.tensor([False, True, True, False])
    mean, logvar = cache.read(images, flipped)
    expected = LATENTS[images, flipped.long()].half().float()
    assert torch.equal(mean, expected)
    assert logvar is not None
    assert torch.equal(logvar, -expected)
    assert torch.equal(cache.read(images).mean, LATENTS[images, 0].half().float())


def test_classes_are_told_by_label(tmp_path: Path) -> None:
    write_shards(tmp_path, ([0, 1, 2, 3, 4, 5, 6],))
    finish_cache(tmp_path, SETTINGS, RECORDS, "images")
    cache = LatentCache(tmp_path)
    assert cache.labels == ("a", "b")
    assert cache.classes.tolist() == [0, 0, 0, 0, 1, 1, 1]


def test_a_cache_with_missing_latents_cannot_be_finished(tmp_path: Path) -> None:
    write_shards(tmp_path, ([0, 1, 2],))
    with pytest.raises(InputError, match="found 4 of 7 images without latents"):
        finish_cache(tmp_path, SETTINGS, RECORDS, "images")


def test_a_cache_that_lost_a_shard_is_refused(tmp_path: Path) -> None:
    write_shards(tmp_path, ([0, 1, 2, 3], [4, 5, 6]))
    finish_cache(tmp_path, SETTINGS, RECORDS, "images")
    shard_paths(tmp_path)[1].unlink()
    with pytest.raises(InputError, match="found 3 of 7 images without latents"):
        LatentCache(tmp_path)


def test_shards_with_another_key_are_refused(tmp_path: Path) -> None:
    write_shards(tmp_path, ([0, 1],))
    assert encoded_images(tmp_path, SETTINGS.key("images"), 7).tolist() == [0, 1]
    with pytest.raises(InputError, match="latents of other images, or made with another codec or transform"):
        encoded_images(tmp_path, SETTINGS.key("others"), 7)


def test_a_truncated_shard_is_refused(tmp_path: Path) -> None:
    write_shards(tmp_path, ([0, 1],))
    path = shard_paths(tmp_path)[0]
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match="found a broken file"):
        encoded_images(tmp_path, SETTINGS.key("images"), 7)


def test_the_size_is_known_beforehand(tmp_path: Path) -> None:
    write_shards(tmp_path, ([0, 1, 2, 3, 4, 5, 6],))
    header = 1000
    assert 0 <= shard_paths(tmp_path)[0].stat().st_size - SETTINGS.bytes_for(7) < header


def test_a_cache_that_does_not_fit_on_the_disk_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected 1000000000\.0 GB for the latent cache"):
        check_space(tmp_path, 10**18)


def test_latents_of_changed_images_are_told_apart(tmp_path: Path) -> None:
    image = tmp_path / "images" / "a" / "0.png"
    image.parent.mkdir(parents=True)
    image.write_bytes(b"before")
    records = [ImageRecord("a/0.png", "a")]
    images = hash_files(tmp_path / "images", records)
    write_shards(tmp_path / "cache", ([0],), SETTINGS.key(images))
    finish_cache(tmp_path / "cache", SETTINGS, records, images)
    cache = LatentCache(tmp_path / "cache")
    cache.check_images(tmp_path / "images")
    image.write_bytes(b"after")
    with pytest.raises(InputError, match="latents of other images than"):
        cache.check_images(tmp_path / "images")
