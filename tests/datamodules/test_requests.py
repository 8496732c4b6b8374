from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from dgs_lightning.data.records import ImageRecord
from dgs_lightning.datamodules.requests import RequestBatch, RequestDataModule
from dgs_lightning.errors import InputError
from dgs_lightning.seeding import image_seed


def module(rank: int = 0, devices: int = 1, **settings: Any) -> RequestDataModule:  # noqa: ANN401
    """Datamodule beside a model that knows four classes, on one of several devices."""
    requests = RequestDataModule(**settings)
    model = SimpleNamespace(
        labels=("n02096294", "n02093754", "cat", "dog"), largest_batch=lambda: 8, latent_shape=(1, 1, 1)
    )
    strategy = SimpleNamespace(root_device="cpu", reduce=lambda size, reduce_op: min(size, torch.tensor(6)))
    requests.trainer = SimpleNamespace(  # type: ignore[assignment]
        lightning_module=model, global_rank=rank, world_size=devices, strategy=strategy
    )
    return requests


def names(batch: RequestBatch) -> list[str]:
    return [record.file_name for record in batch.records]


def test_images_are_requested_class_by_class_within_each_index() -> None:
    batches = module(labels=["dog", "cat"], images_per_class=3, batch_size=4, seed=5).batches()
    assert [names(batch) for batch in batches] == [
        ["dog/00000.png", "cat/00000.png", "dog/00001.png", "cat/00001.png"],
        ["dog/00002.png", "cat/00002.png"],
    ]
    assert batches[1].records[1] == ImageRecord("cat/00002.png", "cat", "cat", 2, image_seed(5, "cat", 2))
    assert [batch.number for batch in batches] == [0, 1]


def test_all_labels_of_the_model_are_the_default() -> None:
    assert module().labels == ("n02096294", "n02093754", "cat", "dog")
    assert module().requests()[0].class_name == "Australian terrier"


def test_labels_may_be_those_of_a_folder(tmp_path: Path) -> None:
    for label in ("dog", "cat"):
        (tmp_path / label).mkdir()
        (tmp_path / label / "1.png").touch()
    assert module(labels=str(tmp_path)).labels == ("cat", "dog")


def test_a_class_that_the_model_does_not_know_is_named() -> None:
    with pytest.raises(InputError, match=r"found 8 that the model does not know \(n02086240"):
        module(labels="imagewoof").labels  # noqa: B018


def test_no_label_at_all_is_refused() -> None:
    with pytest.raises(InputError, match="labels: found none, expected labels among its 4"):
        module(labels=[]).labels  # noqa: B018


def test_a_model_whose_label_leaves_the_folder_is_refused() -> None:
    requests = module()
    requests.trainer.lightning_module.labels = ("cat", "../elsewhere")  # type: ignore[union-attr]
    with pytest.raises(InputError, match=r"labels of the model: found label '\.\./elsewhere'"):
        requests.requests()


def test_devices_share_the_same_batches_and_none_is_served_twice() -> None:
    alone = [names(batch) for batch in module(images_per_class=5, batch_size=3).predict_dataloader()]
    shares = [module(rank, 3, images_per_class=5, batch_size=3).predict_dataloader() for rank in range(3)]
    assert sorted(names(batch) for share in shares for batch in share) == sorted(alone)
    assert [len(share) for share in shares] == [3, 2, 2]


def test_a_batch_is_left_out_when_all_its_images_are_finished() -> None:
    requests = module(labels=["cat", "dog"], images_per_class=4, batch_size=2)
    requests.leave_out(lambda: {"cat/00000.png", "dog/00000.png", "cat/00001.png"})
    assert [batch.number for batch in requests.predict_dataloader()] == [1, 2, 3]


@pytest.fixture
def centers(tmp_path: Path) -> Path:
    """Two centres of cats and one of dogs."""
    values = {"cat": torch.tensor([[[[1.0]]], [[[2.0]]]]), "dog": torch.tensor([[[[3.0]]]])}
    save_file(values, tmp_path / "centers.safetensors")
    return tmp_path / "centers.safetensors"


@pytest.mark.parametrize("by", ["setting", "method"])
def test_there_is_an_image_for_each_centre(centers: Path, by: str) -> None:
    setting = str(centers) if by == "setting" else None
    requests = module(labels=["cat", "dog"], images_per_class=9, batch_size=3, centers=setting)
    requests.setup("predict")
    if by == "method":
        requests.use_centers(centers)
    (batch,) = requests.batches()
    assert names(batch) == ["cat/00000.png", "dog/00000.png", "cat/00001.png"]
    assert batch.centers is not None
    assert batch.centers.flatten().tolist() == [1, 3, 2]


def test_a_second_file_of_centres_is_refused(centers: Path) -> None:
    requests = module(labels=["cat", "dog"], centers=str(centers))
    requests.setup("predict")
    with pytest.raises(InputError, match=r"data.centers: found .*centers.safetensors, and other.safetensors from"):
        requests.use_centers(Path("other.safetensors"))


def test_an_automatic_batch_keeps_the_size_of_an_earlier_run() -> None:
    requests, fixed = module(batch_size="auto"), module(batch_size=3)
    for data in (requests, fixed):
        data.keep_batch_size(None)
        data.keep_batch_size(5)
    assert (requests.settled_batch_size(), fixed.settled_batch_size()) == (5, 3)


def test_an_automatic_batch_fits_on_every_device() -> None:
    assert [len(batch.records) for batch in module(batch_size="auto", images_per_class=3).batches()] == [6, 6]


@pytest.mark.parametrize("setting", ["images_per_class", "batch_size"])
def test_a_number_below_one_is_refused(setting: str) -> None:
    with pytest.raises(InputError, match=f"{setting}: found 0, expected .*at least 1"):
        module(**{setting: 0})


def test_in_rounds_a_batch_has_one_image_of_some_classes_and_a_class_stays_on_its_device() -> None:
    def shares(devices: int, size: int) -> list[list[list[str]]]:
        each = []
        for rank in range(devices):
            requests = module(rank, devices, labels=["dog", "cat", "n02096294"], images_per_class=2, batch_size=size)
            requests.in_rounds()
            each.append([names(batch) for batch in requests.predict_dataloader()])
        return each

    first, second = ([f"{label}/0000{index}.png" for label in ("dog", "cat", "n02096294")] for index in (0, 1))
    assert shares(1, 64) == [[first, second]]
    assert shares(1, 2) == [[first[:2], first[2:], second[:2], second[2:]]]
    assert shares(2, 2) == [[first[:2], second[:2]], [first[2:], second[2:]]]
