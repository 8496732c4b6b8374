"""No task leaves a tensor on the CPU that the GPU computes with: each runs on a GPU that is not there."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from safetensors.torch import save_file
from tests.fake_gpu import GPU, FakeGPU, fake_gpu
from torch import Tensor

from dgs_lightning.callbacks.guidance import CenterGuidance, DifficultyAwareGuidance, GuidanceCallback
from dgs_lightning.data.augmentation import Augmentation
from dgs_lightning.datamodules.images import ImageDataModule, Loading
from dgs_lightning.datamodules.latents import LatentDataModule
from dgs_lightning.datamodules.real_images import RealImageDataModule
from dgs_lightning.datamodules.requests import RequestDataModule
from dgs_lightning.diffusion.sampler import Sampler
from dgs_lightning.examples import SILENT, write_classifier, write_dit, write_images, write_latents, write_scores
from dgs_lightning.matching.siamese import PUBLISHED
from dgs_lightning.tasks.classification import ClassificationTask
from dgs_lightning.tasks.diffusion import DiffusionTask, ModelSize
from dgs_lightning.tasks.distribution_matching import DistributionMatchingTask
from dgs_lightning.tasks.encoding import EncodingTask
from dgs_lightning.tasks.generation import GenerationTask, Measured
from dgs_lightning.tasks.gradient_matching import GradientMatchingTask
from dgs_lightning.tasks.inversion import InversionTask
from dgs_lightning.tasks.learned_images import ImageSettings
from dgs_lightning.tasks.matching_network import NetworkSettings
from dgs_lightning.tasks.minimax import CriteriaSettings, MinimaxTask
from dgs_lightning.tasks.protocol import OptimizerSettings, TeacherSettings
from dgs_lightning.tasks.refinement import Refinement, RefinementTask
from dgs_lightning.tasks.scoring import ScoringTask

pytestmark = pytest.mark.filterwarnings("ignore")  # of torch and Lightning, on what is no real GPU


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Small models and data, by kind."""
    folder = tmp_path_factory.mktemp("made")
    writers = {
        "images": write_images,
        "dit": write_dit,
        "classifier": write_classifier,
        "latents": write_latents,
        "scores": write_scores,
    }
    return {name: write(str(folder / name)) for name, write in writers.items()}


@pytest.fixture
def gpu(made: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with fake_gpu(monkeypatch):
        yield


def trainer(*callbacks: pl.Callback, **settings: object) -> pl.Trainer:
    quiet: dict[str, Any] = {name: value for name, value in SILENT.items() if name != "accelerator"} | settings
    return pl.Trainer(strategy=FakeGPU(), callbacks=list(callbacks), inference_mode=False, log_every_n_steps=1, **quiet)


def fit_dit(task: DiffusionTask, made: dict[str, str]) -> None:
    trainer(max_steps=2).fit(task, LatentDataModule(made["latents"], batch_size=4))


def zeros(loss: Tensor, inputs: Any, **_: Any) -> tuple[Tensor, ...]:  # noqa: ANN401
    """Gradients in place of those of autograd, which asks for a driver."""
    return tuple(torch.zeros_like(each) for each in ([inputs] if isinstance(inputs, Tensor) else inputs))


@pytest.mark.parametrize("variational", [True, False])
def test_a_dit_is_trained_on_one_device(made: dict[str, str], gpu: None, variational: bool) -> None:
    task = DiffusionTask(size=ModelSize(hidden_size=16, depth=1, num_heads=2), variational=variational)
    fit_dit(task, made)
    assert {tensor.device for tensor in task.ema.averages.values()} == {task.last_loss.device} == {GPU}


def test_minimax_and_its_memories_are_on_one_device(made: dict[str, str], gpu: None) -> None:
    task = MinimaxTask(CriteriaSettings(memory_size=3), dit=made["dit"])
    fit_dit(task, made)
    memories = (task.minimax.real, task.minimax.generated)
    assert {tensor.device for memory in memories for tensor in memory.state_dict().values()} == {GPU}


@pytest.mark.parametrize("algorithm", ["dm", "dc", "idc"])
def test_images_are_learned_on_one_device(
    made: dict[str, str], gpu: None, algorithm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.autograd, "grad", zeros)
    settings: dict[str, Any] = {"network": "convnet1", "width": 4, "augmentation": PUBLISHED}
    if algorithm == "dm":
        task: Any = DistributionMatchingTask(images=ImageSettings(2), **settings)
    elif algorithm == "dc":
        training = NetworkSettings(rounds=2, epochs=1, batch_size=2)
        task = GradientMatchingTask("dc", training=training, images=ImageSettings(2), **settings)
    else:
        training = NetworkSettings(rounds=2, seen=4, batch_size=2, cutmix=1)
        learned = ImageSettings(1, lr=1e-4, factor=2)
        task = GradientMatchingTask("idc", training=training, images=learned, **settings)
    trainer(max_steps=6).fit(task, RealImageDataModule(made["images"]))
    assert task.images.device == task.pixels().device == GPU


@pytest.mark.parametrize(
    ("sampler", "guidance"),
    [
        ("ancestral", None),
        ("ancestral", "centres"),
        ("ancestral", "difficulty"),
        ("ancestral", "own"),
        ("ddim", "centres"),
        ("dpm++", "centres"),
    ],
)
def test_images_are_generated_on_one_device(
    made: dict[str, str], request: pytest.FixtureRequest, tmp_path: Path, sampler: Sampler, guidance: str | None
) -> None:
    class Own(GuidanceCallback):
        def __call__(self, state: Any) -> Tensor:  # noqa: ANN401
            return torch.as_tensor(state.latent * 0.1)

    save_file({"cat": torch.zeros(2, 1, 4, 4), "dog": torch.ones(1, 1, 4, 4)}, tmp_path / "centers.safetensors")
    guidances = {
        "centres": CenterGuidance(str(tmp_path / "centers.safetensors"), stop_timestep=-1),
        "difficulty": DifficultyAwareGuidance(
            latents=made["latents"], scores=made["scores"], ipc=1, stop_timestep=-1, store=str(tmp_path)
        ),
        "own": Own(),
    }
    request.getfixturevalue("gpu")
    task, data = GenerationTask(made["dit"], steps=3, sampler=sampler), RequestDataModule(images_per_class=1)
    images = trainer(*([guidances[guidance]] if guidance else [])).predict(task, data)
    assert [batch.dtype for batch in images or [] if isinstance(batch, Tensor)] == [torch.uint8]


def test_latents_are_refined_on_one_device(made: dict[str, str], gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.autograd, "grad", zeros)
    task = RefinementTask(made["dit"], Refinement(steps=2), steps=2)
    (refined,) = trainer().predict(task, RequestDataModule(images_per_class=1)) or []
    assert isinstance(refined, Measured)
    assert refined.images.dtype == torch.uint8


def test_images_are_encoded_on_one_device(made: dict[str, str], gpu: None) -> None:
    assert trainer().predict(EncodingTask("pixels"), ImageDataModule(predict=made["images"]))


def test_images_are_inverted_on_one_device(made: dict[str, str], gpu: None) -> None:
    task = InversionTask(made["dit"], index=1, steps=2)
    assert trainer().predict(task, ImageDataModule(predict=made["images"]))


@pytest.mark.parametrize("definition", ["confidence", "margin", "entropy", "loss"])
def test_images_are_scored_on_one_device(made: dict[str, str], gpu: None, definition: Any) -> None:  # noqa: ANN401
    task = ScoringTask([made["classifier"]] * 2, definition=definition)
    assert trainer().predict(task, ImageDataModule(predict=made["images"]))


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("with_teacher", [True, False])
def test_a_classifier_is_trained_and_tested_on_one_device(
    made: dict[str, str], gpu: None, in_memory: bool, with_teacher: bool
) -> None:
    task = ClassificationTask(
        "convnet1",
        width=4,
        optimizer=OptimizerSettings("adamw"),
        augmentation=Augmentation(),
        teacher=TeacherSettings(made["classifier"]) if with_teacher else None,
    )
    data = ImageDataModule(train=made["images"], val=made["images"], loading=Loading(in_memory=in_memory))
    runner = trainer(max_epochs=2)
    runner.fit(task, data)
    assert {parameter.device for parameter in task.network.parameters()} == {GPU}


def test_a_schedule_that_stays_on_the_cpu_is_found(
    made: dict[str, str], gpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test of these tests: one tensor that is not moved."""
    monkeypatch.setattr(Tensor, "to", _unless_schedule(Tensor.to))
    with pytest.raises(AssertionError, match="an index of another device"):
        fit_dit(DiffusionTask(size=ModelSize(hidden_size=16, depth=1, num_heads=2)), made)


def test_a_memory_that_stays_on_the_cpu_is_found(
    made: dict[str, str], gpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dgs_lightning.diffusion.memory.Memory.to", lambda memory, device: None)
    with pytest.raises((AssertionError, RuntimeError), match="device"):
        fit_dit(MinimaxTask(CriteriaSettings(memory_size=3), dit=made["dit"]), made)


def _unless_schedule(move: Any) -> Any:  # noqa: ANN401
    return lambda tensor, *args, **kwargs: tensor if tensor.shape == (1000,) else move(tensor, *args, **kwargs)
