from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from threadpoolctl import threadpool_info  # type: ignore[import-untyped]

from dgs_lightning.data.cards import hash_file
from dgs_lightning.data.latents import CacheSettings, LatentCache, finish_cache, write_shard
from dgs_lightning.data.records import ImageRecord, write_manifest
from dgs_lightning.distil.centers import Centers, class_centers, hash_centers, read_centers, read_description
from dgs_lightning.errors import InputError
from dgs_lightning.selection.clustering import Points, kmeans_centers

CLASSES = ("cat", "cow", "dog")
DIFFICULTIES = [0.05] * 6 + [0.55] * 3 + [0.95]  # of the ten images of each class


@pytest.fixture(scope="module")
def latents(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Cache of ten images a class, at 4 x 4 pixels of one channel."""
    folder = tmp_path_factory.mktemp("latents")
    settings = CacheSettings("pixels", "none", (1, 4, 4), posterior=False, flips=1, dtype="float32")
    records = [ImageRecord(f"{label}/{i}.png", label) for label in CLASSES for i in range(10)]
    pixels = torch.randn(30, 1, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    write_shard(folder, settings.key("images"), torch.arange(30), pixels, None)
    finish_cache(folder, settings, records, "images")
    return str(folder)


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_scores(tmp_path_factory.mktemp("scores"), DIFFICULTIES))


def write_scores(folder: Path, difficulties: list[float]) -> Path:
    names = [(f"{label}/{i}.png", label, difficulties[i]) for label in CLASSES for i in range(10)]
    write_manifest(folder, [ImageRecord(n, label, difficulty=d, estimator="judge") for n, label, d in names])
    return folder


def cows(latents: str) -> Points:
    points: Points = LatentCache(Path(latents)).read(torch.arange(10, 20)).mean.flatten(1).numpy()
    return points


def test_modes_are_the_k_means_centres_of_each_class(latents: str) -> None:
    centers = Centers(latents=latents, ipc=3, seed=5).compute()
    assert {label: tuple(found.shape) for label, found in centers.items()} == dict.fromkeys(CLASSES, (3, 1, 4, 4))
    expected = torch.from_numpy(kmeans_centers(cows(latents), 3, 5)).float()
    assert torch.equal(centers["cow"].flatten(1), expected)


def test_each_difficulty_interval_has_its_share_of_the_centres(latents: str) -> None:
    points = cows(latents)
    found = class_centers(points, 5, difficulties=np.array(DIFFICULTIES))
    # Of 10 images, 6, 3 and 1 in three intervals: 3, 1.5 and 0.5 of 5 centres, ties to the lower interval.
    np.testing.assert_allclose(found[:3], kmeans_centers(points[:6], 3), rtol=1e-6)
    np.testing.assert_allclose(found[3:], kmeans_centers(points[6:9], 2), rtol=1e-6)


def test_an_interval_with_as_many_images_as_centres_uses_the_images(latents: str, scores: str) -> None:
    found = Centers(latents=latents, scores=scores).compute()
    np.testing.assert_array_equal(found["cow"].flatten(1), cows(latents))


@pytest.mark.parametrize("threads", [1, 3])
def test_classes_in_threads_have_the_centres_of_one_thread(
    latents: str, scores: str, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    limits = [library["num_threads"] for library in threadpool_info()]
    found = Centers(latents=latents, scores=scores, ipc=5).compute()
    assert [library["num_threads"] for library in threadpool_info()] == limits
    assert list(found) == list(CLASSES)
    expected = class_centers(cows(latents), 5, difficulties=np.array(DIFFICULTIES))
    assert torch.equal(found["cow"].flatten(1), torch.from_numpy(expected).float())


def test_smoothing_changes_the_centres() -> None:
    random = np.random.default_rng(0)
    points, difficulties = random.normal(size=(40, 3)), random.random(40) ** 3
    raw = class_centers(points, 5, difficulties=difficulties)
    smoothed = class_centers(points, 5, difficulties=difficulties, smoothing="paper")
    assert raw.shape == smoothed.shape == (5, 3)
    assert not np.allclose(raw, smoothed)


@pytest.mark.parametrize("labels", [["dog"], "folder"])
def test_centres_are_those_of_the_labels(latents: str, tmp_path: Path, labels: list[str] | str) -> None:
    if labels == "folder":
        (tmp_path / "dog").mkdir()
        (tmp_path / "dog" / "1.png").touch()
        labels = str(tmp_path)
    assert Centers(latents=latents, ipc=2, labels=labels).compute().keys() == {"dog"}


def test_an_equal_request_finds_its_centres_and_another_one_replaces_them(
    latents: str, scores: str, tmp_path: Path
) -> None:
    path, other = tmp_path / "centers.safetensors", write_scores(tmp_path, DIFFICULTIES[::-1])
    request = Centers(latents=latents, scores=scores, ipc=2)
    request.write(path)
    written = path.stat().st_mtime_ns
    replace(request).write(path)
    assert path.stat().st_mtime_ns == written
    for changed in (
        {"ipc": 3},
        {"seed": 1},
        {"intervals": 2},
        {"smoothing": "paper"},
        {"labels": ["cat"]},
        {"scores": str(other)},
        {"scores": None},
    ):
        before = read_description(path)
        replace(request, **changed).write(path)
        assert read_description(path) != before
        expected = replace(request, **changed).compute()
        assert hash_centers(load_file(path)) == hash_centers(expected)


@pytest.mark.parametrize("fault", ["truncated", "other tensors", "text"])
def test_a_file_of_something_else_is_never_replaced(latents: str, tmp_path: Path, fault: str) -> None:
    path = tmp_path / "centers.safetensors"
    if fault == "text":
        path.write_text("mine")
    else:
        save_file({"weight": torch.zeros(4)}, path)
        path.write_bytes(path.read_bytes()[: -3 if fault == "truncated" else None])
    before = path.read_bytes()
    found = "other tensors" if fault == "other tensors" else "a broken file"
    with pytest.raises(InputError, match=rf"centers.safetensors: found {found}.*[Cc]hoose another output"):
        Centers(latents=latents).write(path)
    assert path.read_bytes() == before


def test_images_without_scores_are_refused(latents: str, tmp_path: Path) -> None:
    write_manifest(tmp_path, [ImageRecord("cat/0.png", "cat", difficulty=0.5, estimator="judge")])
    with pytest.raises(InputError, match="9 of 10 images without difficulty"):
        Centers(latents=latents, scores=str(tmp_path)).compute()


def test_a_class_without_latents_is_named(latents: str) -> None:
    with pytest.raises(InputError, match=r"found 2 missing labels \(emu, fox\)"):
        Centers(latents=latents, labels=["cat", "emu", "fox"]).describe()


@pytest.mark.parametrize("setting", ["ipc", "intervals"])
def test_a_number_below_one_is_refused(setting: str) -> None:
    with pytest.raises(InputError, match=f"{setting}: found 0, expected at least 1"):
        Centers(latents="latents", **{setting: 0})  # type: ignore[arg-type]


def test_the_hash_is_that_of_the_centres_and_not_of_their_file(latents: str, tmp_path: Path) -> None:
    path = tmp_path / "centers.safetensors"
    Centers(latents=latents, ipc=2).write(path)
    save_file(load_file(path), tmp_path / "plain.safetensors")
    hashes = [hash_centers(read_centers(file, CLASSES, (1, 4, 4))) for file in (path, tmp_path / "plain.safetensors")]
    assert hashes[0] == hashes[1] == hash_file(tmp_path / "plain.safetensors")  # which version 0.1.0 recorded
    assert hash_centers(read_centers(path, CLASSES[:2], (1, 4, 4))) != hashes[0]
