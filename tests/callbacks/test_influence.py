"""Influence guidance (IGD) and classifier guidance."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from dgs_lightning.callbacks.image_writer import ImageWriter
from dgs_lightning.callbacks.influence import ClassifierGuidance, InfluenceGuidance
from dgs_lightning.callbacks.surrogate_writer import SurrogateWriter
from dgs_lightning.data.cards import read_card
from dgs_lightning.data.folders import read_set
from dgs_lightning.data.records import ImageRecord
from dgs_lightning.datamodules.images import ImageDataModule
from dgs_lightning.datamodules.requests import RequestBatch, RequestDataModule
from dgs_lightning.errors import InputError
from dgs_lightning.models.classifier import ClassifierConfig, load_classifier
from dgs_lightning.models.surrogate import Surrogate, flat_parameters, save_surrogate
from dgs_lightning.tasks.classification import ClassificationTask
from dgs_lightning.tasks.generation import GenerationTask

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*LeafSpec.*:FutureWarning", "ignore:.*fork.*:DeprecationWarning", "ignore:.*num_workers.*"
)
LABELS = ("cat", "cow", "dog")
QUIET: dict[str, Any] = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary"), False)


@pytest.fixture(scope="module")
def surrogate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a surrogate, trained for two epochs on grey images of 4 pixels."""
    folder, rng = tmp_path_factory.mktemp("surrogate"), np.random.default_rng(0)
    for grey, label in zip((190, 128, 60), LABELS, strict=True):
        (folder / "images" / label).mkdir(parents=True)
        for number in range(5):
            pixels = rng.normal(grey, 25, (4, 4)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / "images" / label / f"{number}.png")
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=2,
        limit_val_batches=0,
        enable_checkpointing=False,
        default_root_dir=folder,
        callbacks=[SurrogateWriter(least_cosine=0.9999)],
        **QUIET,
    )
    images = str(folder / "images")
    trainer.fit(ClassificationTask("convnet1", width=4), ImageDataModule(images, images, batch_size=8))
    return folder / "influence"


def generate(
    output: Path,
    dit: Path,
    *callbacks: L.Callback,
    batch: int = 64,
    devices: int = 1,
    **trainer: Any,  # noqa: ANN401
) -> dict[str, Tensor]:
    """Latents by file name."""
    L.Trainer(
        accelerator="cpu",
        devices=devices,
        strategy="auto" if devices == 1 else "ddp",
        callbacks=[*callbacks, ImageWriter(str(output))],
        default_root_dir=output.parent,
        **QUIET,
        **trainer,
    ).predict(
        GenerationTask(str(dit), steps=8, keep_latents=True), RequestDataModule(images_per_class=4, batch_size=batch)
    )
    return {path.relative_to(output).as_posix(): load_file(path)["latent"] for path in output.glob("*/*.safetensors")}


def guidance(surrogate: Path, **settings: Any) -> InfluenceGuidance:  # noqa: ANN401
    return InfluenceGuidance(str(surrogate), **{"first": 6, "last": 3, "deviation_scale": 2000.0, **settings})


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def undisturbed(surrogate: Path, dit: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of IGD, and their latents."""
    output = tmp_path_factory.mktemp("undisturbed") / "set"
    generate(output, dit, guidance(surrogate))
    return output


def latents_of(folder: Path) -> dict[str, Tensor]:
    return {path.relative_to(folder).as_posix(): load_file(path)["latent"] for path in folder.glob("*/*.safetensors")}


def test_the_set_has_a_latent_beside_each_image_and_the_settings_on_its_card(undisturbed: Path) -> None:
    assert [record.file_name for record in read_set(undisturbed)] == [
        f"{c}/{i:05d}.png" for c in LABELS for i in range(4)
    ]
    assert sorted(latents_of(undisturbed)) == [f"{c}/{i:05d}.safetensors" for c in LABELS for i in range(4)]
    card = read_card(undisturbed)
    assert card["hashes"].keys() == {"images", "latents"}
    used = card["settings"]["model"]["guidance"]
    assert used.pop("surrogate")
    assert used == {"class": "InfluenceGuidance", "scale": 5.0, "deviation_scale": 2000.0, "first": 6, "last": 3}


@pytest.mark.parametrize("settings", [{"batch": 2}, {"batch": 1}, {"chunk": 3}])
def test_batch_size_and_chunk_change_the_order_of_sums_alone(
    settings: dict[str, int], undisturbed: Path, surrogate: Path, dit: Path, tmp_path: Path
) -> None:
    chunk = settings.pop("chunk", 1)
    made = generate(tmp_path / "set", dit, guidance(surrogate, chunk=chunk), **settings)
    for name, latent in latents_of(undisturbed).items():
        torch.testing.assert_close(made[name], latent, rtol=1e-4, atol=1e-4)


def generate_on_two(output: Path, dit: Path, surrogate: Path) -> None:
    """This process's share of the images."""
    generate(output, dit, guidance(surrogate), batch=2, devices=2)


def test_two_devices_share_the_classes_and_make_the_same_images(
    undisturbed: Path, surrogate: Path, dit: Path, tmp_path: Path, on_two_devices: Callable[..., None]
) -> None:
    on_two_devices(generate_on_two, tmp_path / "set", dit, surrogate)
    made = latents_of(tmp_path / "set")
    for name, latent in latents_of(undisturbed).items():
        torch.testing.assert_close(made[name], latent, rtol=1e-4, atol=1e-4)


def test_a_stopped_run_goes_on_with_the_latents_of_the_finished_images(
    undisturbed: Path, surrogate: Path, dit: Path, tmp_path: Path
) -> None:
    output = tmp_path / "set"
    generate(output, dit, guidance(surrogate), limit_predict_batches=2)
    assert len(latents_of(output)) == 6
    generate(output, dit, guidance(surrogate))
    assert content(output) == content(undisturbed)


@pytest.mark.parametrize("lost", ["cow/00002.png", "cow/00002.safetensors"])
def test_a_lost_file_in_the_middle_is_made_again(
    lost: str, undisturbed: Path, surrogate: Path, dit: Path, tmp_path: Path
) -> None:
    output = shutil.copytree(undisturbed, tmp_path / "set")
    (output / lost).unlink()
    generate(output, dit, guidance(surrogate))
    assert content(output) == content(undisturbed)


def test_an_image_is_moved_away_from_the_earlier_ones_of_its_class(
    undisturbed: Path, surrogate: Path, dit: Path, tmp_path: Path
) -> None:
    plain = generate(tmp_path / "plain", dit)
    away = generate(tmp_path / "away", dit, guidance(surrogate, scale=0.0, deviation_scale=10_000.0))

    def similarity(latents: dict[str, Tensor]) -> float:
        groups = [torch.stack([latents[f"{c}/{i:05d}.safetensors"].flatten() for i in range(4)]) for c in LABELS]
        cosines = [torch.nn.functional.normalize(group) @ torch.nn.functional.normalize(group).T for group in groups]
        return float(torch.stack([each[~torch.eye(4, dtype=torch.bool)].mean() for each in cosines]).mean())

    assert similarity(away) < similarity(plain) - 0.01
    moved = {name for name, latent in away.items() if not torch.equal(latent, plain[name])}
    assert moved == {f"{c}/{i:05d}.safetensors" for c in LABELS for i in range(1, 4)}  # there is none before the first
    assert not torch.equal(latents_of(undisturbed)["cat/00000.safetensors"], plain["cat/00000.safetensors"])


def test_two_images_of_a_class_in_one_batch_are_refused(surrogate: Path, dit: Path, tmp_path: Path) -> None:
    class Mixed(RequestDataModule):
        def in_rounds(self) -> None:
            pass

    task = GenerationTask(str(dit), steps=8, keep_latents=True)
    trainer = L.Trainer(accelerator="cpu", callbacks=[guidance(surrogate)], default_root_dir=tmp_path, **QUIET)
    with pytest.raises(
        InputError, match="batch 0: found several images of a class, expected at most one of each class"
    ):
        trainer.predict(task, Mixed(images_per_class=2))


def test_an_image_without_its_earlier_ones_is_refused(surrogate: Path, dit: Path, tmp_path: Path) -> None:
    task, callback = GenerationTask(str(dit), steps=8, keep_latents=True), guidance(surrogate)
    trainer = L.Trainer(accelerator="cpu", callbacks=[callback], default_root_dir=tmp_path, **QUIET)
    trainer.predict(task, RequestDataModule(images_per_class=1))
    with pytest.raises(InputError, match="images of IGD: found no latent of image 1 of cat"):
        callback.guidance_for(RequestBatch(0, [ImageRecord("cat/00002.png", "cat", index=2, seed=0)]))


@pytest.mark.parametrize(
    ("changes", "settings", "message"),
    [
        ({"labels": ("cat", "dog", "ant")}, {}, r"surrogate .*: found 1 unknown label \(cow\)"),
        ({"image_size": 8}, {}, "found a classifier of images of 8 px with 1 channels, expected one of the images"),
        ({}, {"last": 8, "first": 9}, "last: found 8, expected below 8, the number of steps"),
    ],
)
def test_a_surrogate_that_does_not_fit_is_refused(
    changes: dict[str, Any], settings: dict[str, int], message: str, surrogate: Path, dit: Path, tmp_path: Path
) -> None:
    network, config = load_classifier(surrogate)
    old = {**{name: getattr(config, name) for name in ClassifierConfig.__slots__}, **changes}
    other = ClassifierConfig(**old)
    if changes:
        network = other.build()
        flat = torch.zeros(1, len(flat_parameters(network)))
        save_surrogate(
            Surrogate(network, other, (0,), flat, {label: flat.clone() for label in other.labels}), tmp_path / "other"
        )
    source = tmp_path / "other" if changes else surrogate
    with pytest.raises(InputError, match=message):
        generate(tmp_path / "set", dit, guidance(source, **settings))


def test_a_surrogate_that_is_none_names_what_is_missing(surrogate: Path, dit: Path, tmp_path: Path) -> None:
    other = shutil.copytree(surrogate, tmp_path / "other")
    (other / "influence.safetensors").unlink()
    with pytest.raises(InputError, match=r"influence\.safetensors: found no such file"):
        generate(tmp_path / "set", dit, guidance(other))


def test_latents_that_are_not_kept_are_refused(surrogate: Path, dit: Path, tmp_path: Path) -> None:
    trainer = L.Trainer(accelerator="cpu", callbacks=[guidance(surrogate)], default_root_dir=tmp_path, **QUIET)
    with pytest.raises(InputError, match=r"model\.keep_latents: found False, expected true"):
        trainer.predict(GenerationTask(str(dit), steps=8), RequestDataModule(images_per_class=1))


def test_a_last_step_before_the_first_is_refused() -> None:
    with pytest.raises(InputError, match="last: found 46, expected at most 45"):
        InfluenceGuidance("surrogate", last=46)


def test_a_classifier_is_surer_of_images_that_it_guided(surrogate: Path, dit: Path, tmp_path: Path) -> None:
    network, config = load_classifier(surrogate)

    def probability(latents: dict[str, Tensor]) -> float:
        images = torch.stack([latents[f"{c}/{i:05d}.safetensors"] for c in LABELS for i in range(4)])
        mean, std = config.mean[0], config.std[0]
        log = network.requires_grad_(False)((images / 2 + 0.5 - mean) / std).log_softmax(1)
        return float(log[torch.arange(12), torch.arange(3).repeat_interleave(4)].mean())

    plain = generate(tmp_path / "plain", dit)
    guided = generate(tmp_path / "guided", dit, ClassifierGuidance(str(surrogate), scale=500.0))
    assert probability(guided) > probability(plain) + 0.02
