import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from dgs_lightning.data.cards import write_card
from dgs_lightning.data.images import ImageSet
from dgs_lightning.data.splits import folds_of
from dgs_lightning.datamodules.batches import batch_size_by_ipc, check_shareable, shuffled_batches
from dgs_lightning.datamodules.images import Folds, ImageDataModule, Loading
from dgs_lightning.errors import InputError


def write_tree(folder: Path, counts: dict[str, int], size: int = 6, mode: str = "RGB") -> Path:
    rng = np.random.default_rng(0)
    for label, count in counts.items():
        (folder / label).mkdir(parents=True)
        for index in range(count):
            pixels = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
            Image.fromarray(pixels).convert(mode).save(folder / label / f"{index}.png")
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_tree(tmp_path / "train", {"cat": 7, "dog": 4})
    write_tree(tmp_path / "val", {"cat": 3, "dog": 2})
    return tmp_path


def fit(data: Path, **settings: Any) -> ImageDataModule:  # noqa: ANN401
    module = ImageDataModule(train=str(data / "train"), val=str(data / "val"), **settings)
    module.setup("fit")
    return module


def together(batches: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    images, labels = zip(*batches, strict=True)
    return torch.cat(images), torch.cat(labels)


def test_batches_hold_the_pixels_in_the_unit_interval_and_positions_of_labels(data: Path) -> None:
    module = fit(data, val_batch_size=3)
    assert (module.labels, module.image_size, module.channels) == (("cat", "dog"), 6, 3)
    batches = list(module.val_dataloader())
    assert [len(images) for images, _ in batches] == [3, 2]
    images, labels = together(batches)
    assert labels.tolist() == [0, 0, 0, 1, 1]
    assert images.dtype == torch.float32
    with Image.open(data / "val" / "dog" / "1.png") as image:
        expected = np.asarray(image, dtype=np.float32).transpose(2, 0, 1) / 255
    assert np.allclose(images[4].numpy(), expected, atol=1e-7)


@pytest.mark.parametrize("devices", [2, 3, 4, 5])
def test_each_of_several_devices_has_images_to_validate(
    data: Path, devices: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, shares = fit(data, val_batch_size=512), []
    for rank in range(devices):
        monkeypatch.setattr("dgs_lightning.datamodules.images.place_of", lambda _, rank=rank: (rank, devices))
        shares.append([len(images) for images, _ in module.val_dataloader()])
    assert all(shares)
    assert sum(map(sum, shares)) == 5


def test_an_epoch_has_every_training_image_once_in_an_order_of_seed_and_epoch(data: Path) -> None:
    orders = {
        (seed, epoch): torch.cat(shuffled_batches(11, 4, seed, epoch)).tolist() for seed in (0, 1) for epoch in (0, 1)
    }
    assert all(sorted(order) == list(range(11)) for order in orders.values())
    assert len({tuple(order) for order in orders.values()}) == 4
    assert [len(batch) for batch in shuffled_batches(11, 4, 0, 0)] == [4, 4, 3]
    images, labels = together(list(fit(data, batch_size=4).train_dataloader()))
    assert sorted(labels.tolist()) == [0] * 7 + [1] * 4
    assert len({image.numpy().tobytes() for image in images}) == 11


def test_devices_share_each_batch() -> None:
    alone = shuffled_batches(11, 4, 0, 0)
    first, second = (shuffled_batches(11, 4, 0, 0, rank, 2) for rank in range(2))
    assert [len(batch) for batch in first] == [len(batch) for batch in second] == [2, 2, 2]
    for whole, left, right in zip(alone, first, second, strict=True):
        assert set(whole.tolist()) <= {*left.tolist(), *right.tolist()}


def test_every_device_has_an_image_however_few_there_are() -> None:
    shares = [shuffled_batches(1, 4, 0, 0, rank, 4) for rank in range(4)]
    assert [batch.tolist() for share in shares for batch in share] == [[0]] * 4


def test_a_batch_that_devices_cannot_share_equally_is_refused() -> None:
    check_shareable(64, 4)
    with pytest.raises(InputError, match="batch_size: found 64, expected a multiple of the 3 devices"):
        check_shareable(64, 3)


@pytest.mark.parametrize("workers", [0, 2])
def test_images_that_are_not_kept_in_memory_come_in_the_same_batches(data: Path, workers: int) -> None:
    kept = list(fit(data, batch_size=4, loading=Loading(in_memory=True)).train_dataloader())
    streamed = list(fit(data, batch_size=4, loading=Loading(False, workers)).train_dataloader())
    for (images, labels), (other_images, other_labels) in zip(kept, streamed, strict=True):
        assert torch.equal(images, other_images)
        assert torch.equal(labels, other_labels)


def test_training_leaves_its_fold_out_and_all_folds_together_are_the_set(data: Path) -> None:
    whole = fit(data).train_records
    folds = folds_of(whole, 3)
    for fold in range(3):
        left_out = [record for record, k in zip(whole, folds, strict=True) if k == fold]
        module = fit(data, cross_fitting=Folds(3, fold))
        assert module.train_records == [record for record in whole if record not in left_out]
        assert module.train_images == len(whole) - len(left_out)
        assert {record.label for record in left_out} == {"cat", "dog"}


def test_size_and_channels_are_read_from_the_images_or_from_a_prepared_sets_card(tmp_path: Path) -> None:
    write_tree(tmp_path / "train", {"a": 2, "b": 2}, size=5, mode="L")
    write_tree(tmp_path / "val", {"a": 1, "b": 1}, size=9)
    module = fit(tmp_path)
    assert (module.image_size, module.channels) == (5, 1)
    assert next(iter(module.val_dataloader()))[0].shape == (2, 1, 5, 5)
    write_card(tmp_path / "train", {"settings": {"image_size": 4, "channels": 3}})
    module = fit(tmp_path)
    assert next(iter(module.train_dataloader()))[0].shape == (4, 3, 4, 4)
    assert module.transform_name == "4 px, 3 channels, plain centre crop"
    module = fit(tmp_path, image_size=8, channels=1, crop="adm")
    assert next(iter(module.train_dataloader()))[0].shape == (4, 1, 8, 8)


def test_a_list_gives_the_order_of_labels(data: Path) -> None:
    module = fit(data, labels=["dog", "cat"])
    _, labels = together(list(module.val_dataloader()))
    assert labels.tolist() == [1, 1, 1, 0, 0]


def test_classes_must_be_the_same_in_both_sets(data: Path) -> None:
    write_tree(data / "val", {"emu": 1})
    with pytest.raises(InputError, match="emu"):
        fit(data)


def test_validation_needs_no_training_set_and_testing_uses_the_same_images(data: Path) -> None:
    module = ImageDataModule(val=str(data / "val"))
    module.setup("validate")
    assert sum(len(images) for images, _ in module.val_dataloader()) == 5
    module.setup("test")
    assert sum(len(images) for images, _ in module.test_dataloader()) == 5


def test_each_validation_batch_knows_which_of_its_images_are_in_which_subset(data: Path) -> None:
    for name, files in {"few": ["cat/0.png", "dog/1.png"], "cats": ["cat/0.png", "cat/1.png", "cat/2.png"]}.items():
        for file in files:
            (data / name / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(data / "val" / file, data / name / file)
    module = ImageDataModule(val=[str(data / name) for name in ("val", "few", "cats")], val_batch_size=3)
    module.setup("validate")
    assert module.subsets == ("few", "cats")
    assert [len(images) for images, _ in module.val_dataloader()] == [3, 2]  # cat cat cat, dog dog
    assert [module.members(batch).int().tolist() for batch in (0, 1)] == [
        [[1, 0, 0], [1, 1, 1]],
        [[0, 1], [0, 0]],
    ]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["cat/0.png", "cat/9.png"], r"1 images that .*val lacks, such as 'cat/9\.png'"),
        ([f"cat/{k}.png" for k in range(3)] + ["dog/0.png", "dog/1.png"], "all 5 images of .*val, expected a part"),
    ],
)
def test_a_subset_of_the_validation_images_is_a_part_of_them(data: Path, files: list[str], message: str) -> None:
    for file in files:
        (data / "part" / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(data / "val" / "cat" / "0.png", data / "part" / file)
    module = ImageDataModule(val=[str(data / "val"), str(data / "part")])
    with pytest.raises(InputError, match=message):
        module.setup("validate")


def test_subsets_have_names_that_differ() -> None:
    with pytest.raises(InputError, match=r"data\.val: found subsets named easy, easy"):
        ImageDataModule(val=["val", "a/easy", "b/easy"])


def test_prediction_serves_records_in_order_in_fixed_batches(data: Path) -> None:
    module = ImageDataModule(predict=str(data / "train"), val_batch_size=4)
    module.setup("predict")
    assert module.predict_folder == data / "train"
    batches = list(module.predict_dataloader())
    assert [positions.tolist() for _, positions, _ in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]
    assert [module.labels[label] for label in batches[1][2]] == [r.label for r in module.predict_records[4:8]]
    module.leave_out([1])
    assert [positions.tolist() for _, positions, _ in module.predict_dataloader()] == [[0, 1, 2, 3], [8, 9, 10]]


@pytest.mark.parametrize("stage", ["fit", "validate", "predict"])
def test_a_set_that_is_not_named_is_an_input_error(stage: str) -> None:
    with pytest.raises(InputError, match="Set data"):
        ImageDataModule().setup(stage)


@pytest.mark.parametrize(("in_memory", "workers"), [(True, 0), (False, 0), (False, 2)])
def test_an_unreadable_image_is_named(data: Path, in_memory: bool, workers: int) -> None:
    (data / "train" / "dog" / "2.png").write_text("no image")
    with pytest.raises(InputError, match=r"dog/2\.png"):
        list(fit(data, loading=Loading(in_memory, workers)).train_dataloader())


@pytest.mark.parametrize(
    "settings",
    [
        {"image_size": 0},
        {"channels": 2},
        {"batch_size": 0},
        {"val_batch_size": -1},
        {"cross_fitting": {"folds": 1, "fold": 0}},
        {"cross_fitting": {"folds": 3}},
        {"cross_fitting": {"fold": 0}},
        {"cross_fitting": {"folds": 3, "fold": 3}},
        {"loading": {"num_workers": -1}},
    ],
)
def test_settings_out_of_range_are_input_errors(settings: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(settings))):
        ImageDataModule(**settings)


@pytest.mark.parametrize(
    ("ipc", "classes", "size"),
    [
        (1, 10, 10),  # published: 10, 50 and 100 for 1, 10 and 50 images a class
        (10, 10, 50),
        (50, 10, 100),
        (1, 100, 20),  # published: twice as many for 100 and 1,000 classes
        (10, 1000, 100),
        (50, 100, 200),
        (2, 10, 20),  # never more than the images of the set
        (5, 10, 50),
        (11, 10, 100),
        (900, 10, 100),
        (1, 2, 2),
    ],
)
def test_the_batch_by_ipc_is_the_published_one_or_that_of_the_next_published_ipc(
    ipc: int, classes: int, size: int
) -> None:
    assert batch_size_by_ipc(ipc * classes, classes) == size


def test_a_set_is_served_in_batches_of_the_size_that_its_ipc_asks_for(data: Path) -> None:
    module = fit(data, batch_size="by_ipc")
    assert [len(images) for images, _ in module.train_dataloader()] == [11]  # 50, but no more than there are


def test_the_next_batch_is_decoded_while_one_is_used(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded, second = set[int](), threading.Event()
    original = ImageSet.__getitem__

    def watched(self: ImageSet, index: int) -> tuple[Any, int]:
        found = original(self, index)
        decoded.add(index)
        if decoded >= {3, 4, 5}:
            second.set()
        return found

    monkeypatch.setattr(ImageSet, "__getitem__", watched)
    module = ImageDataModule(predict=str(data / "train"), val_batch_size=3)
    module.setup("predict")
    batches = iter(module.predict_dataloader())
    assert next(batches)[1].tolist() == [0, 1, 2]
    assert second.wait(timeout=60)  # although nobody asked for it
    assert decoded == set(range(6))  # and no more than it
    assert [positions.tolist() for _, positions, _ in batches] == [[3, 4, 5], [6, 7, 8], [9, 10]]


def test_batches_decoded_ahead_are_those_of_worker_processes(data: Path) -> None:
    served = []
    for workers in (0, 1):
        module = ImageDataModule(
            predict=str(data / "train"), val_batch_size=4, loading=Loading(in_memory=False, num_workers=workers)
        )
        module.setup("predict")
        served.append(list(module.predict_dataloader()))
    assert [len(batches) for batches in served] == [3, 3]
    for own, other in zip(*served, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(own, other, strict=True))


def test_an_unreadable_file_is_named_when_its_batch_is_due(data: Path) -> None:
    module = ImageDataModule(predict=str(data / "train"), val_batch_size=4, image_size=6, channels=3)
    module.setup("predict")
    (data / "train" / "cat" / "5.png").write_bytes(b"no image")
    batches = iter(module.predict_dataloader())
    assert len(next(batches)[0]) == 4
    with pytest.raises(InputError, match=r"cat/5.png"):
        next(batches)
