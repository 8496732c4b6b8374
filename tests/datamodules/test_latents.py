import math
from pathlib import Path
from typing import Any

import pytest
import torch

from dgs_lightning.data.latents import CacheSettings, LatentCache, finish_cache, write_shard
from dgs_lightning.data.records import ImageRecord
from dgs_lightning.datamodules.latents import LatentBatches, LatentDataModule, ResumableLoader
from dgs_lightning.errors import InputError

LABELS = ("cat", "dog", "eel")


def write_cache(folder: Path, images: int = 10, flips: int = 2, posterior: bool = True) -> LatentCache:
    """A cache whose means are image + 100 for the flipped ones, and whose standard deviation is one half."""
    settings = CacheSettings("pixels", "none", (1, 2, 2), posterior, flips, "float16")
    records = [ImageRecord(f"{LABELS[i % 3]}/{i:02d}.png", LABELS[i % 3]) for i in range(images)]
    records.sort(key=lambda record: record.file_name)
    numbers = torch.tensor([int(record.file_name[-6:-4]) for record in records])
    means = torch.stack([numbers, numbers + 100], 1)[:, :flips, None, None, None].expand(-1, -1, 1, 2, 2).half()
    logvars = torch.full_like(means, 2 * math.log(0.5)) if posterior else None
    shuffled = torch.randperm(images, generator=torch.Generator().manual_seed(0))
    for rows in (shuffled[:2], shuffled[2:]):
        write_shard(folder, settings.key("hash"), rows, means[rows], None if logvars is None else logvars[rows])
    finish_cache(folder, settings, records, "hash")
    return LatentCache(folder)


def test_a_batch_holds_the_latents_and_classes_of_its_images(tmp_path: Path) -> None:
    cache = write_cache(tmp_path)
    batches = LatentBatches(cache, 5, sample=False, flip=False)
    seen = [(int(z[0, 0, 0]), LABELS[c]) for n in range(2) for z, c in zip(*batches[n][:2], strict=True)]
    assert sorted(seen) == [(i, LABELS[i % 3]) for i in range(10)]


def test_every_epoch_has_an_order_of_its_own(tmp_path: Path) -> None:
    batches = LatentBatches(write_cache(tmp_path), 10, sample=False, flip=False)
    first, second = (batches[n].latents[:, 0, 0, 0] for n in range(2))
    assert not torch.equal(first, second)
    assert torch.equal(first.sort().values, second.sort().values)


def test_flips_and_samples_follow_the_posterior(tmp_path: Path) -> None:
    batches = LatentBatches(write_cache(tmp_path), 10)
    drawn = torch.cat([batches[n].latents for n in range(200)])
    flipped = drawn.mean((1, 2, 3)) > 50
    assert flipped.float().mean().item() == pytest.approx(0.5, abs=0.04)
    assert (drawn - drawn.mean((1, 2, 3), keepdim=True)).std().item() == pytest.approx(0.5 * 0.75**0.5, abs=0.02)


def test_two_devices_share_the_batches_of_one(tmp_path: Path) -> None:
    cache = write_cache(tmp_path)
    for number in range(4):
        whole = LatentBatches(cache, 4, seed=3)[number]
        shares = [LatentBatches(cache, 4, seed=3, rank=rank, devices=2)[number] for rank in range(2)]
        assert torch.equal(torch.cat([share.latents for share in shares]), whole.latents)
        assert torch.equal(torch.cat([share.classes for share in shares]), whole.classes)


def test_a_set_smaller_than_a_batch_is_repeated(tmp_path: Path) -> None:
    batches = LatentBatches(write_cache(tmp_path, images=3), 8, sample=False, flip=False)
    counts = torch.bincount(batches[0].latents[:, 0, 0, 0].long(), minlength=3)
    assert counts.tolist() in ([2, 3, 3], [3, 2, 3], [3, 3, 2])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_restored_loader_goes_on_with_the_next_batch(tmp_path: Path, workers: int) -> None:
    batches = LatentBatches(write_cache(tmp_path), 2)
    through = ResumableLoader(batches)
    expected = [batch for _ in range(2) for batch in through]
    stopped, restored = ResumableLoader(batches, workers), ResumableLoader(batches, workers)
    served = iter(stopped)
    for _ in range(3):
        next(served)
    restored.load_state_dict(stopped.state_dict())
    for batch, other in zip(restored, expected[3:], strict=False):
        assert batch.number == other.number
        assert torch.equal(batch.latents, other.latents)
    assert stopped.state_dict()["position"] == 3


def test_a_position_in_other_batches_is_refused(tmp_path: Path) -> None:
    cache = write_cache(tmp_path)
    state = ResumableLoader(LatentBatches(cache, 2)).state_dict()
    with pytest.raises(InputError, match="a checkpoint made with batch_size 2"):
        ResumableLoader(LatentBatches(cache, 4)).load_state_dict(state)


def test_the_datamodule_knows_classes_and_shape(tmp_path: Path) -> None:
    write_cache(tmp_path, posterior=False, flips=1)
    module = LatentDataModule(str(tmp_path), batch_size=5)
    module.setup("fit")
    assert module.labels == LABELS
    assert module.latent_shape == (1, 2, 2)
    assert [batch.number for batch in module.train_dataloader()] == [0, 1]


@pytest.mark.parametrize(
    ("settings", "sampled", "flipped"),
    [({}, True, True), ({"latents": "mean"}, False, True), ({"flip": "never"}, True, False)],
)
def test_the_settings_decide_what_is_drawn(
    tmp_path: Path, settings: dict[str, Any], sampled: bool, flipped: bool
) -> None:
    write_cache(tmp_path)
    module = LatentDataModule(str(tmp_path), batch_size=10, **settings)
    module.setup("fit")
    (batch,) = module.train_dataloader()
    assert (batch.latents != batch.latents.round()).any() == sampled
    assert (batch.latents > 50).any() == flipped


def test_a_cache_of_other_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "images" / "cat").mkdir(parents=True)
    (tmp_path / "images" / "cat" / "0.png").write_bytes(b"not looked at")
    write_cache(tmp_path / "cache")
    module = LatentDataModule(str(tmp_path / "cache"), images=str(tmp_path / "images"))
    with pytest.raises(InputError, match="latents of other images than"):
        module.setup("fit")


def test_classes_that_do_not_match_are_listed(tmp_path: Path) -> None:
    write_cache(tmp_path)
    with pytest.raises(InputError, match=r"1 missing label \(fox\); 1 unknown label \(eel\)"):
        LatentDataModule(str(tmp_path), labels=["cat", "dog", "fox"]).setup("fit")


def test_a_folder_without_a_finished_cache_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found no finished latent cache"):
        LatentDataModule(str(tmp_path)).setup("fit")
