import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import lightning as L
import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from dgs_lightning.__main__ import main
from dgs_lightning.callbacks.score_writer import ScoreWriter
from dgs_lightning.data.cards import read_card
from dgs_lightning.data.folders import read_set
from dgs_lightning.data.histograms import EVENTS
from dgs_lightning.data.records import ImageRecord, read_manifest, require_scores
from dgs_lightning.data.splits import folds_of
from dgs_lightning.datamodules.images import Folds, ImageDataModule
from dgs_lightning.errors import InputError
from dgs_lightning.experiment.plan import Plan
from dgs_lightning.experiment.settings import load_experiment
from dgs_lightning.models.classifier import ClassifierConfig, load_classifier, save_classifier
from dgs_lightning.models.estimator import load_estimator
from dgs_lightning.tasks.scoring import ScoringTask

WRITER = ["--trainer.callbacks=ScoreWriter"]
CONFIG = ClassifierConfig("convnet1", ("ant", "bee", "cow"), 4, 3, (0.5,) * 3, (0.25,) * 3, width=4)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for label in CONFIG.labels:
        (folder / label).mkdir()
        for index in range(5):
            pixels = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{index}.png")
    return folder


@pytest.fixture(scope="module")
def estimators(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Folders of three untrained classifiers, the last with its labels in another order."""
    root = tmp_path_factory.mktemp("estimators")
    for seed, labels in enumerate((CONFIG.labels, CONFIG.labels, CONFIG.labels[::-1])):
        torch.manual_seed(seed)
        config = replace(CONFIG, labels=labels, folds=3, fold=seed)
        network = config.build()
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
        save_classifier(network, config, root / str(seed))
    return [str(root / str(seed)) for seed in range(3)]


def score(task: ScoringTask, images: Path, output: Path, batch_size: int = 4, devices: int = 1) -> list[ImageRecord]:
    trainer = L.Trainer(
        accelerator="cpu",
        devices=devices,
        strategy="ddp" if devices > 1 else "auto",
        logger=False,
        enable_progress_bar=False,
        callbacks=[ScoreWriter(str(output))],
    )
    trainer.predict(task, ImageDataModule(predict=str(images), val_batch_size=batch_size))
    return read_manifest(output)


def probabilities(estimator: str, images: Path, record: ImageRecord) -> dict[str, float]:
    """What one classifier says of one image, written out."""
    network, config = load_classifier(Path(estimator))
    with Image.open(images / record.file_name) as image:
        pixels = torch.from_numpy(np.asarray(image, dtype=np.float32) / 255).permute(2, 0, 1)
    with torch.no_grad():
        logits = network((pixels[None] - 0.5) / 0.25)[0].double().numpy()
    values = np.exp(logits) / np.exp(logits).sum()
    return dict(zip(config.labels, values.tolist(), strict=True))


@pytest.mark.parametrize("which", [0, 2])
def test_difficulty_is_the_missing_confidence_in_the_true_class(
    images: Path, estimators: list[str], tmp_path: Path, which: int
) -> None:
    records = score(ScoringTask(estimators[which]), images, tmp_path)
    assert len(records) == 15
    for record in records:
        expected = probabilities(estimators[which], images, record)
        assert record.difficulty == pytest.approx(1 - expected[record.label], abs=1e-6)
        assert record.predicted == max(expected, key=lambda label: expected[label])
    assert len({record.difficulty for record in records}) == 15


@pytest.mark.parametrize(
    ("definition", "expected"),
    [
        ("loss", lambda p, y: -np.log(p[y]) / (-np.log(p[y]) + np.log(3))),
        ("margin", lambda p, y: (1 + max(v for k, v in p.items() if k != y) - p[y]) / 2),
        ("entropy", lambda p, _: -sum(v * np.log(v) for v in p.values()) / np.log(3)),
    ],
)
def test_other_definitions_are_settings_and_part_of_the_identity(
    images: Path,
    estimators: list[str],
    tmp_path: Path,
    definition: Literal["margin", "entropy", "loss"],
    expected: Callable[..., float],
) -> None:
    task = ScoringTask(estimators[0], definition=definition)
    for record in score(task, images, tmp_path):
        assert record.difficulty == pytest.approx(
            expected(probabilities(estimators[0], images, record), record.label), abs=1e-6
        )
        assert record.estimator == task.identity == f"{ScoringTask(estimators[0]).identity}:{definition}"


class Rank(ScoringTask):
    def difficulty(self, logits: Tensor, labels: Tensor) -> Tensor:
        likelier = logits > logits.gather(1, labels[:, None])
        return likelier.double().sum(dim=1) / (logits.shape[1] - 1)


def test_a_subclass_is_a_definition_of_ones_own_known_by_its_name(
    images: Path, estimators: list[str], tmp_path: Path
) -> None:
    for record in score(Rank(estimators[0]), images, tmp_path):
        p = probabilities(estimators[0], images, record)
        assert record.difficulty == sum(value > p[record.label] for value in p.values()) / 2
        assert record.estimator == f"{ScoringTask(estimators[0]).identity}:Rank"
    assert read_card(tmp_path)["scoring"]["definition"] == "Rank"


def test_several_estimators_give_their_mean_whatever_the_order_of_their_labels(
    images: Path, estimators: list[str], tmp_path: Path
) -> None:
    for record in score(ScoringTask(estimators), images, tmp_path):
        each = [probabilities(estimator, images, record) for estimator in estimators]
        assert record.difficulty == pytest.approx(np.mean([1 - p[record.label] for p in each]), abs=1e-6)
        mean = {label: sum(p[label] for p in each) for label in CONFIG.labels}
        assert record.predicted == max(mean, key=lambda label: mean[label])


def test_cross_fitted_images_are_scored_by_the_estimator_that_has_not_seen_them(
    images: Path, estimators: list[str], tmp_path: Path
) -> None:
    records = score(ScoringTask(estimators, cross_fit=3), images, tmp_path)
    for record, fold in zip(records, folds_of(records, 3), strict=True):
        expected = probabilities(estimators[fold], images, record)
        assert record.difficulty == pytest.approx(1 - expected[record.label], abs=1e-6)


def test_an_image_that_is_one_of_the_originals_is_scored_by_the_estimator_that_has_not_seen_it(
    images: Path, estimators: list[str], tmp_path: Path
) -> None:
    originals, others = read_set(images), tmp_path / "others"
    for number, record in enumerate(originals[::2]):
        (others / record.label).mkdir(parents=True, exist_ok=True)
        (others / record.label / f"taken{number}.png").write_bytes((images / record.file_name).read_bytes())
    Image.new("RGB", (4, 4), "red").save(others / "bee" / "new.png")
    fold = {(images / r.file_name).read_bytes(): k for r, k in zip(originals, folds_of(originals, 3), strict=True)}
    records = score(ScoringTask(estimators, cross_fit=3, originals=str(images)), others, tmp_path / "scores")
    assert len(records) == 9
    for record in records:
        own = fold.get((others / record.file_name).read_bytes())
        unseen = estimators if own is None else [estimators[own]]
        expected = [1 - probabilities(each, others, record)[record.label] for each in unseen]
        assert record.difficulty == pytest.approx(np.mean(expected), abs=1e-6)


def test_an_estimator_that_has_seen_the_images_may_not_score_them(estimators: list[str], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"left out fold 2 of 3, expected one that left out fold 0 of 3"):
        ScoringTask(estimators[::-1], cross_fit=3)
    save_classifier(CONFIG.build(), CONFIG, tmp_path)
    with pytest.raises(InputError, match="left out fold none, expected one that left out fold 2 of 3"):
        ScoringTask([*estimators[:2], str(tmp_path)], cross_fit=3)


def test_folds_are_those_that_training_left_out(images: Path) -> None:
    data = ImageDataModule(train=str(images), val=str(images), cross_fitting=Folds(3, 1))
    data.setup("fit")
    seen = {record.file_name for record in data.train_records}
    module = ImageDataModule(predict=str(images))
    module.setup("predict")
    folds = folds_of(module.predict_records, 3)
    scored = {record.file_name for record, k in zip(module.predict_records, folds, strict=True) if k == 1}
    assert seen | scored == {record.file_name for record in module.predict_records}
    assert not seen & scored


def test_identities_compare_members_whatever_their_order_or_cross_fitting(estimators: list[str]) -> None:
    together = ScoringTask(estimators)
    assert together.identity == ScoringTask(estimators, cross_fit=3).identity
    assert together.identity == ScoringTask(estimators[::-1]).identity
    assert together.identity != ScoringTask(estimators[:2]).identity
    assert together.identity.startswith("convnet1[3]@")


@pytest.mark.parametrize("batch_size", [1, 7, 100])
@pytest.mark.parametrize("cross_fit", [None, 3])
def test_scores_do_not_depend_on_the_batch_size(
    images: Path, estimators: list[str], tmp_path: Path, batch_size: int, cross_fit: int | None
) -> None:
    task = ScoringTask(estimators, cross_fit=cross_fit)
    expected = [r.difficulty for r in score(task, images, tmp_path / "4")]
    found = [r.difficulty for r in score(task, images, tmp_path / "other", batch_size)]
    assert found == pytest.approx(expected, abs=1e-6)


def score_on_two_devices(estimator: str, images: Path, output: Path) -> None:
    score(ScoringTask(estimator), images, output, devices=2)


def test_two_devices_give_the_same_bytes_as_one(
    images: Path, estimators: list[str], tmp_path: Path, on_two_devices: Callable[..., None]
) -> None:
    score(ScoringTask(estimators[0]), images, tmp_path / "one")
    on_two_devices(score_on_two_devices, estimators[0], images, tmp_path / "two")
    for name in ("metadata.jsonl", "dataset.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert sorted(p.name for p in (tmp_path / "two").iterdir()) == ["dataset.json", EVENTS, "metadata.jsonl"]


def refuse_on_two_devices(estimator: str, images: Path, output: Path) -> None:
    with pytest.raises(InputError, match=r"chance is 33\.3%"):
        score(ScoringTask(estimator), images, output, devices=2)


def test_two_devices_refuse_an_estimator_at_chance_alike(
    make_set: Callable[..., Path], tmp_path: Path, on_two_devices: Callable[..., None]
) -> None:
    many = make_set("many", {label: [f"{i}.png" for i in range(20)] for label in CONFIG.labels}, size=4)
    network = CONFIG.build()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    save_classifier(network, CONFIG, tmp_path / "constant")
    on_two_devices(refuse_on_two_devices, str(tmp_path / "constant"), many, tmp_path / "scores")


def test_labels_that_an_estimator_does_not_know_are_listed(images: Path, estimators: list[str], tmp_path: Path) -> None:
    (tmp_path / "images" / "emu").mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(tmp_path / "images" / "emu" / "1.png")
    with pytest.raises(InputError, match=r"convnet1@\w+: found 1 unknown label \(emu\)"):
        score(ScoringTask(estimators[0]), tmp_path / "images", tmp_path / "scores")


def test_an_estimator_that_diverged_is_an_input_error(images: Path, tmp_path: Path) -> None:
    network = CONFIG.build()
    with torch.no_grad():
        next(network.parameters()).fill_(torch.nan)
    save_classifier(network, CONFIG, tmp_path / "broken")
    with pytest.raises(InputError, match="finite"):
        score(ScoringTask(str(tmp_path / "broken")), images, tmp_path / "scores")


@pytest.mark.parametrize(
    ("count", "settings", "where"),
    [
        (2, {"cross_fit": 3}, "cross_fit"),
        (1, {"cross_fit": 1}, "cross_fit"),
        (2, {"weights": ["a"]}, "weights"),
        (1, {"originals": "folder"}, "cross_fit"),
    ],
)
def test_settings_that_do_not_belong_together_are_input_errors(
    estimators: list[str], count: int, settings: dict[str, Any], where: str
) -> None:
    with pytest.raises(InputError, match=where):
        ScoringTask(estimators[:count], **settings)


def test_the_shipped_settings_for_imagenet_score_with_weights_of_ones_own(tmp_path: Path) -> None:
    save_file(timm.create_model("test_vit").state_dict(), tmp_path / "weights.safetensors")
    for label in ("n01440764", "n02086240"):
        (tmp_path / "images" / label).mkdir(parents=True)
        Image.new("RGB", (20, 30)).save(tmp_path / "images" / label / "1.png")
    estimator = ["--model.estimator", "timm:test_vit", "--model.weights", str(tmp_path / "weights.safetensors")]
    data = ["--data.predict", str(tmp_path / "images"), "--data.loading.num_workers", "0"]
    assert main(["predict", "--config", "score/imagenet.yaml", *estimator, *data, *WRITER]) == 0
    assert require_scores(read_set(tmp_path / "images"), tmp_path).startswith("timm:test_vit@")


def test_the_shipped_settings_for_cross_fitting_score_out_of_fold(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for fold in range(5):
        config = replace(CONFIG, folds=5, fold=fold)
        save_classifier(config.build(), config, tmp_path / f"estimator/fold{fold}/weights")
    monkeypatch.chdir(tmp_path)
    data = ["--data.predict", str(images), "--trainer.accelerator", "cpu"]
    assert (
        main(["predict", "--config", "score/cross_fit.yaml", *data, *WRITER, "--trainer.callbacks.output=scores"]) == 0
    )
    assert require_scores(read_set(images, Path("scores")), images).startswith("convnet1[5]@")
    assert read_card(Path("scores"))["scoring"]["cross_fit"] == 5
    assert "note" not in read_card(Path("scores"))["scoring"]


def test_classes_that_a_named_network_lacks_stop_the_run_before_its_weights_are_fetched(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("dgs_lightning.tasks.scoring.load_estimator", lambda *_: pytest.fail("fetched"))
    monkeypatch.chdir(tmp_path)
    for settings in (["--set", f"original={images}"], ["--set", "estimator=timm:resnet10t"]):
        assert main(["run", "select_only", "--set", f"pool={images}", "--output", "run", *settings]) == 2
    told = capsys.readouterr().err
    assert "found 3 unknown labels" in told
    assert "estimator_weights" in told
    command = told.rpartition("train an estimator on them: ")[2].partition(". Then name it")[0]
    assert command.startswith(f"dgs run own_images --set data={images} ")
    experiment = load_experiment("own_images", [part for part in shlex.split(command)[3:] if part != "--set"])
    assert "estimator/fold0" in {stage.name for stage in Plan(experiment).everything()}


def test_difficulties_in_bfloat16_are_near_those_in_float32(
    images: Path, estimators: list[str], tmp_path: Path
) -> None:
    found = {}
    for precision in ("32-true", "bf16-true"):
        trainer = L.Trainer(
            accelerator="cpu",
            devices=1,
            precision=precision,
            logger=False,
            enable_progress_bar=False,
            callbacks=[ScoreWriter(str(tmp_path / precision))],
        )
        task = ScoringTask(estimators[0])
        trainer.predict(task, ImageDataModule(predict=str(images), val_batch_size=4))
        found[precision] = np.array([record.difficulty for record in read_manifest(tmp_path / precision)])
    apart = np.abs(found["bf16-true"] - found["32-true"])
    assert 0 < apart.max() < 0.02
    keys = {read_card(tmp_path / precision)["scoring"]["key"] for precision in found}
    assert len(keys) == 2  # scores of one precision are never taken for those of the other


@pytest.mark.parametrize("name", ["own", "timm:test_vit"])
def test_inputs_are_float32_while_another_thread_computes_in_bfloat16(
    name: str, estimators: list[str], tmp_path: Path
) -> None:
    if name == "own":
        estimator = load_estimator(estimators[0])
    else:
        weights = tmp_path / "weights.safetensors"
        save_file(timm.create_model("test_vit").state_dict(), weights)
        estimator = load_estimator(name, str(weights))
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8))
    expected = estimator.preprocess(picture)
    torch.set_default_dtype(torch.bfloat16)  # as Lightning does, for all threads
    try:
        found = estimator.preprocess(picture)
    finally:
        torch.set_default_dtype(torch.float32)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)
