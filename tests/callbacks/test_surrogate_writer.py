"""The surrogate of influence guidance: its training, its checkpoints, and the gradients of real images."""

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from tests.conftest import MakeSet
from torch import Tensor
from torch.nn.utils import vector_to_parameters

from dgs_lightning.callbacks.surrogate_writer import SurrogateWriter
from dgs_lightning.data.augmentation import normalise
from dgs_lightning.datamodules.images import ImageDataModule
from dgs_lightning.errors import InputError
from dgs_lightning.examples import SILENT
from dgs_lightning.models.surrogate import load_surrogate
from dgs_lightning.tasks.classification import ClassificationTask
from dgs_lightning.tasks.encoding import EncodingTask

pytestmark = pytest.mark.filterwarnings("ignore:.*num_workers.*")
COUNTS = {"cat": 3, "dog": 7}  # images


@pytest.fixture
def images(make_set: MakeSet) -> Path:
    return make_set("images", {label: [f"{i}.png" for i in range(count)] for label, count in COUNTS.items()}, size=4)


def train(folder: Path, real: Path, network: str = "convnet1", epochs: int = 3, **writer: Any) -> Path:  # noqa: ANN401
    """Folder of the surrogate."""
    trainer = L.Trainer(
        max_epochs=epochs,
        limit_val_batches=0,
        default_root_dir=folder,
        callbacks=[SurrogateWriter(**writer)],
        **SILENT,
    )
    data = ImageDataModule(str(real), str(real), batch_size=4)
    trainer.fit(ClassificationTask(network, width=4, seed=1), data)
    return folder / "influence"


def gradient_by_hand(folder: Path, images: Path, checkpoint: int, label: str, most: int) -> Tensor:
    """Gradient of the mean cross-entropy of the first images of a class, in one batch."""
    surrogate = load_surrogate(folder)
    data = ImageDataModule(predict=str(images))
    data.setup("predict")
    chosen = [place for place, record in enumerate(data.predict_records) if record.label == label][:most]
    pixels = torch.cat([batch for batch, *_ in data.predict_dataloader()])[chosen]
    network, config = surrogate.network.requires_grad_(True), surrogate.config
    vector_to_parameters(surrogate.checkpoints[checkpoint], network.parameters())
    logits = network(normalise(pixels, config.mean, config.std))
    F.cross_entropy(logits, torch.full((len(chosen),), config.labels.index(label))).backward()  # type: ignore[no-untyped-call]
    return torch.cat([parameter.grad.flatten() for parameter in network.parameters() if parameter.grad is not None])


def test_the_parameters_before_the_training_and_after_each_epoch_are_kept(images: Path, tmp_path: Path) -> None:
    folder = train(tmp_path / "run", images, least_cosine=1.0)
    kept = [load_file(path)["parameters"] for path in sorted((tmp_path / "run" / "epochs").iterdir())]
    assert [path.name for path in sorted((tmp_path / "run" / "epochs").iterdir())] == [
        f"{epoch:05d}.safetensors" for epoch in range(4)
    ]
    surrogate = load_surrogate(folder)
    assert surrogate.epochs == (0, 1, 2, 3)  # at 1, each is a new one
    assert torch.equal(surrogate.checkpoints, torch.stack(kept))
    assert torch.equal(kept[-1], torch.cat([p.flatten() for p in surrogate.network.parameters()]))
    assert load_surrogate(train(tmp_path / "other", images, least_cosine=-1.0)).epochs == (0,)


def test_a_gradient_is_that_of_the_first_images_of_a_class_however_few_there_are(images: Path, tmp_path: Path) -> None:
    folder = train(tmp_path / "run", images, epochs=1, images=5, batch_size=2, least_cosine=1.0)
    surrogate = load_surrogate(folder)
    for label in COUNTS:
        for checkpoint in (0, 1):
            expected = gradient_by_hand(folder, images, checkpoint, label, most=5)
            torch.testing.assert_close(surrogate.gradients[label][checkpoint], expected, rtol=1e-4, atol=1e-6)


def test_a_training_again_writes_the_same_bytes(images: Path, tmp_path: Path) -> None:
    first, again = (train(tmp_path / name, images) for name in ("first", "again"))
    for path in first.iterdir():
        assert path.read_bytes() == (again / path.name).read_bytes()


def test_a_network_with_batch_norm_is_refused_before_it_is_trained(images: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="network: found torchvision:resnet18, which has statistics"):
        train(tmp_path / "run", images, "torchvision:resnet18")
    assert not (tmp_path / "run" / "epochs").exists()


def test_tensors_of_another_network_are_refused(images: Path, tmp_path: Path) -> None:
    folder = train(tmp_path / "run", images, epochs=1)
    other = train(tmp_path / "other", images, "convnet2", epochs=1)
    (folder / "influence.safetensors").write_bytes((other / "influence.safetensors").read_bytes())
    with pytest.raises(InputError, match="tensors of other shapes"):
        load_surrogate(folder)
    (folder / "influence.safetensors").write_bytes(b"no tensors")
    with pytest.raises(InputError, match=r"influence\.safetensors: found a broken file"):
        load_surrogate(folder)


def test_other_tasks_are_refused() -> None:
    with pytest.raises(InputError, match="SurrogateWriter: found EncodingTask, expected ClassificationTask"):
        SurrogateWriter().setup(L.Trainer(accelerator="cpu", logger=False), EncodingTask("pixels"), "fit")
