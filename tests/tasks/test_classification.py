import copy
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.loggers import CSVLogger
from PIL import Image
from safetensors.torch import save_file

from dgs_lightning.callbacks.checkpointing import EpochCheckpoint
from dgs_lightning.callbacks.published_length import PublishedLength
from dgs_lightning.callbacks.result_writer import ResultWriter
from dgs_lightning.commands.cli import check
from dgs_lightning.commands.prepare import prepare
from dgs_lightning.commands.select import select
from dgs_lightning.configs import ROOT, find_config, load_yaml
from dgs_lightning.data.augmentation import Augmentation, normalise
from dgs_lightning.data.folders import read_set
from dgs_lightning.data.images import load_image
from dgs_lightning.data.splits import folds_of
from dgs_lightning.datamodules.images import Folds, ImageDataModule
from dgs_lightning.errors import InputError
from dgs_lightning.models.classifier import ClassifierConfig, load_classifier
from dgs_lightning.models.estimator import Teacher, load_estimator
from dgs_lightning.models.registry import build_network
from dgs_lightning.tasks.classification import ClassificationTask
from dgs_lightning.tasks.protocol import Normalisation, OptimizerSettings, TeacherSettings, channel_statistics


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled digits: 1,438 for training, 359 for validation."""
    folder = tmp_path_factory.mktemp("digits")
    prepare("digits", str(folder))
    return folder


def trainer(root: Path, callbacks: Sequence[Callback] = (), **settings: Any) -> L.Trainer:  # noqa: ANN401
    defaults = {
        "logger": False,
        "enable_checkpointing": any(isinstance(callback, EpochCheckpoint) for callback in callbacks),
        "enable_progress_bar": False,
    }
    return L.Trainer(
        **{"devices": 1, **defaults, **settings},
        accelerator="cpu",
        default_root_dir=root,
        callbacks=list(callbacks),
        enable_model_summary=False,
    )


def task(**settings: Any) -> ClassificationTask:  # noqa: ANN401
    defaults = {"network": "convnet2", "width": 16, "augmentation": Augmentation(flip=False)}
    return ClassificationTask(**{**defaults, **settings})


def images(digits: Path, **settings: Any) -> ImageDataModule:  # noqa: ANN401
    return ImageDataModule(**{"train": f"{digits}/train", "val": f"{digits}/val", **settings})


def fit(
    digits: Path,
    root: Path,
    epochs: int,
    callbacks: Sequence[Callback] = (),
    ckpt_path: Path | None = None,
    save_weights: bool = False,
    **settings: Any,  # noqa: ANN401
) -> dict[str, Any]:
    run = trainer(root, [PublishedLength(epochs), ResultWriter(save_weights), *callbacks], max_epochs=-1)
    run.fit(task(**settings), images(digits), ckpt_path=ckpt_path)
    result: dict[str, Any] = json.loads((root / "result.json").read_text())
    return result


class Killed(Exception):
    """Stands for a kill."""


class Kill(Callback):
    """Ends a run when as many epochs are complete."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.current_epoch == self.epochs:
            raise Killed

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        raise Killed


QUICK: dict[str, Any] = {
    "optimizer": OptimizerSettings("adamw", lr=0.01, schedule="cosine"),
    "augmentation": Augmentation(crop_scale=(0.9, 1.0), flip=False, cutmix=0),
}


def evaluate(digits: Path, root: Path, devices: int) -> None:
    """One evaluation of an untrained network on the digits and on the easier half of them."""
    run = trainer(root, devices=devices, strategy="ddp" if devices > 1 else "auto")
    model = task()
    run.validate(model, images(digits, val=[f"{digits}/val", f"{digits}/half"], val_batch_size=50), verbose=False)
    if run.is_global_zero:
        root.mkdir(parents=True, exist_ok=True)
        found = {name: accuracy.item() for name, accuracy in model.by_subset.items()}
        (root / "found.json").write_text(json.dumps(found))


def test_two_devices_count_the_answers_on_a_subset_as_one_does(
    digits: Path, tmp_path: Path, on_two_devices: Callable[..., None]
) -> None:
    select(output=f"{digits}/half", pool=f"{digits}/val", method="first", share=0.5)
    evaluate(digits, tmp_path / "one", 1)
    on_two_devices(evaluate, digits, tmp_path / "two", 2)
    one, two = (json.loads((tmp_path / name / "found.json").read_text()) for name in ("one", "two"))
    assert one == two
    assert 0 < one["half"] < 1


def test_a_small_network_learns_the_digits_and_leaves_its_account(digits: Path, tmp_path: Path) -> None:
    result = fit(digits, tmp_path, 6, **QUICK)
    assert result["accuracy_best"] > 0.9
    assert result["accuracy_best"] == max(evaluation["accuracy"] for evaluation in result["history"])
    assert result["accuracy_last"] == result["history"][-1]["accuracy"]
    assert result["top5_last"] > result["accuracy_last"]
    assert (result["network"], result["seed"], result["epochs"], result["images"]) == ("convnet2", 0, 6, 1438)
    assert list(result["accuracy_per_class"]) == [str(digit) for digit in range(10)]


def test_a_network_learns_the_digits_in_mixed_precision(digits: Path, tmp_path: Path) -> None:
    run = trainer(tmp_path, [ResultWriter()], max_epochs=6, precision="bf16-mixed")
    run.fit(task(**QUICK), images(digits))
    assert json.loads((tmp_path / "result.json").read_text())["accuracy_last"] > 0.9


def test_a_repeat_depends_on_its_seed_alone(digits: Path, tmp_path: Path) -> None:
    fit(digits, tmp_path / "first", 2, seed=3)
    torch.rand(7)  # the global generator is elsewhere
    fit(digits, tmp_path / "second", 2, seed=3)
    other = fit(digits, tmp_path / "other", 2, seed=4)
    first = (tmp_path / "first" / "result.json").read_bytes()
    assert first == (tmp_path / "second" / "result.json").read_bytes()
    assert json.loads(first)["history"] != other["history"]


def test_weights_are_drawn_on_a_cpu_whatever_the_default_device(digits: Path, tmp_path: Path) -> None:
    run, first, second = trainer(tmp_path, max_epochs=0), task(), task()
    run.fit(first, images(digits))
    second.trainer = run
    with torch.device("meta"):  # as Lightning sets that of a GPU while it calls this
        second.configure_model()
    assert all(torch.equal(*pair) for pair in zip(first.network.parameters(), second.network.parameters(), strict=True))


@pytest.mark.parametrize("epochs_before", [2, 4])
def test_a_killed_run_resumes_to_the_same_result(digits: Path, tmp_path: Path, epochs_before: int) -> None:
    fit(digits, tmp_path / "whole", 4, save_weights=True)
    with pytest.raises(Killed):
        fit(digits, tmp_path / "killed", 4, [EpochCheckpoint(minutes=0), Kill(epochs_before)])
    callbacks = [EpochCheckpoint(minutes=0)]
    fit(digits, tmp_path / "killed", 4, callbacks, EpochCheckpoint.find(tmp_path / "killed"), save_weights=True)
    for name in ("result.json", "weights/model.safetensors", "weights/config.json"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes()
    assert not (tmp_path / "killed" / "checkpoints" / "last.ckpt").exists()


def test_a_killed_run_of_a_number_of_steps_resumes_to_the_same_result(digits: Path, tmp_path: Path) -> None:
    def train(root: Path, *callbacks: Callback, ckpt_path: Path | None = None) -> bytes:
        run = trainer(root, [ResultWriter(), *callbacks], max_steps=60, max_epochs=-1)  # 23 steps an epoch
        run.fit(task(), images(digits), ckpt_path=ckpt_path)
        return (root / "result.json").read_bytes()

    whole = train(tmp_path / "whole")
    with pytest.raises(Killed):
        train(tmp_path / "killed", EpochCheckpoint(minutes=0), Kill(2))
    checkpoint = EpochCheckpoint.find(tmp_path / "killed")
    assert train(tmp_path / "killed", EpochCheckpoint(minutes=0), ckpt_path=checkpoint) == whole


def test_the_trainer_decides_how_long_to_train_and_when_to_evaluate(digits: Path, tmp_path: Path) -> None:
    run = trainer(tmp_path, max_epochs=5, check_val_every_n_epoch=2, limit_train_batches=1, limit_val_batches=1)
    run.fit(task(), images(digits))
    assert (run.current_epoch, run.check_val_every_n_epoch) == (5, 2)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"augmentation": {"crop_scale": (0.8, 0.5)}}, "crop_scale"),
        ({"augmentation": {"cutmix": -1.0}}, "augmentation.cutmix: found -1"),
        ({"optimizer": {"lr": float("nan")}}, "optimizer.lr: found nan"),
        ({"optimizer": {"name": "adam"}}, "optimizer.name: found adam, expected one of sgd, adamw"),
        ({"label_smoothing": 1.0}, "label_smoothing"),
        ({"label_smoothing": 0.1, "teacher": {"name": "timm:resnet18"}}, "label_smoothing: found 0.1 beside a teacher"),
        ({"teacher": {"name": "timm:resnet18", "temperature": 0.0}}, "teacher.temperature: found 0.0"),
        ({"normalisation": {"mean": [0.5], "std": [0.0]}}, r"normalisation.std: found \[0.0\]"),
    ],
)
def test_settings_out_of_range_are_refused_by_name(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        task(**settings)


def test_statistics_of_other_channels_are_refused(digits: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"normalisation\.mean: found 3 numbers, expected one for each"):
        fit(digits, tmp_path, 1, normalisation=Normalisation((0.5, 0.5, 0.5), (0.2,)))


def test_dropout_depends_on_the_seed_alone(digits: Path, tmp_path: Path) -> None:
    for root in (tmp_path / "first", tmp_path / "second"):
        torch.rand(7)  # the global generator is elsewhere
        data = images(digits, image_size=32, channels=3, batch_size=512)
        run = trainer(root, [ResultWriter(save_weights=True)], max_epochs=1, limit_val_batches=1)
        run.fit(task(network="torchvision:squeezenet1_1"), data)
    first, second = (tmp_path / name / "weights" / "model.safetensors" for name in ("first", "second"))
    assert first.read_bytes() == second.read_bytes()


def test_a_checkpoint_of_other_settings_is_refused(digits: Path, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        fit(digits, tmp_path, 3, [EpochCheckpoint(minutes=0), Kill(1)], seed=1, augmentation=Augmentation(cutmix=0.5))
    with pytest.raises(
        InputError, match=r"one made with seed: 1, augmentation\.flip: True, augmentation\.cutmix: 0\.5,"
    ):
        fit(digits, tmp_path, 3, [EpochCheckpoint(minutes=0)], EpochCheckpoint.find(tmp_path), seed=2)


def test_a_checkpoint_of_version_0_1_0_is_refused_with_what_to_do(digits: Path, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        fit(digits, tmp_path, 2, [EpochCheckpoint(minutes=0), Kill(1)])
    path = tmp_path / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["hyper_parameters"] = {"network": "convnet2", "epochs": 2, "optimizer": "sgd", "crop_scale": (0.5, 1.0)}
    torch.save(checkpoint, path)
    with pytest.raises(InputError, match=r"one of version 0\.1\.0.*Start in a new folder"):
        fit(digits, tmp_path, 2, [EpochCheckpoint(minutes=0)], EpochCheckpoint.find(tmp_path))


def test_a_checkpoint_holds_plain_settings_from_which_the_task_is_made_again(digits: Path, tmp_path: Path) -> None:
    settings = {"teacher": None, "normalisation": Normalisation((0.3,), (0.4,)), **QUICK}
    with pytest.raises(Killed):
        fit(digits, tmp_path, 2, [EpochCheckpoint(minutes=0), Kill(1)], **settings)
    saved = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["hyper_parameters"]
    shown = {"name": "adamw", "lr": 0.01, "weight_decay": None, "schedule": "cosine", "decayed": "all"}
    assert saved["optimizer"] == shown
    again = ClassificationTask(**saved)
    assert (again.optimizer, again.augmentation) == (QUICK["optimizer"], QUICK["augmentation"])
    assert (again.teacher, again.normalisation) == (None, settings["normalisation"])


@pytest.mark.parametrize("length", [{"max_epochs": 6}, {"max_steps": 11}, {"max_epochs": 8, "max_steps": 12}], ids=str)
def test_the_learning_rate_falls_in_steps_over_the_trainers_length(
    length: dict[str, Any], digits: Path, tmp_path: Path
) -> None:
    logger = CSVLogger(tmp_path)
    run = trainer(tmp_path, logger=logger, log_every_n_steps=1, limit_train_batches=2, **length)
    run.fit(task(), images(digits))
    rows = (Path(logger.log_dir) / "metrics.csv").read_text().splitlines()
    column = rows[0].split(",").index("train/lr")
    rates = [float(row.split(",")[column]) for row in rows[1:] if row.split(",")[column]]
    assert rates == pytest.approx([0.01] * 4 + [0.002, 0.0004])


def test_a_learning_rate_that_changes_needs_a_last_epoch(digits: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"optimizer\.schedule: found 'cosine' in a training without end"):
        trainer(tmp_path, max_epochs=-1).fit(task(**QUICK), images(digits))
    run = trainer(tmp_path, max_epochs=-1, max_time={"seconds": 1}, limit_val_batches=1)
    run.fit(task(network="convnet1", optimizer=OptimizerSettings(schedule="constant")), images(digits))
    assert run.current_epoch > 0


def test_a_loss_that_is_no_number_stops_the_run_with_a_remedy(digits: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"Lower optimizer\.lr"):
        fit(digits, tmp_path, 2, optimizer=OptimizerSettings(lr=1e20))
    assert not (tmp_path / "result.json").exists()


def test_the_saved_network_is_the_one_that_was_evaluated_last(digits: Path, tmp_path: Path) -> None:
    result = fit(digits, tmp_path, 3, save_weights=True)
    weights = tmp_path / "weights" / "model.safetensors"
    (answer,) = trainer(tmp_path).test(task(pretrained=str(weights)), images(digits), verbose=False)
    assert answer["test/accuracy"] == pytest.approx(result["accuracy_last"])
    assert load_classifier(tmp_path / "weights")[1].labels == tuple(map(str, range(10)))


def test_a_student_learns_from_soft_labels(digits: Path, tmp_path: Path) -> None:
    fit(digits, tmp_path / "teacher", 4, save_weights=True, **QUICK)
    student = task(teacher=TeacherSettings(f"{tmp_path}/teacher/weights", temperature=2.0), **QUICK)
    trainer(tmp_path / "student", max_epochs=4).fit(student, images(digits))
    assert student.evaluation["accuracy"] > 0.8
    assert not any("teacher" in name for name in student.state_dict())


def test_a_student_of_the_protocol_of_rded_decays_matrices_alone_at_half_a_cosine(digits: Path, tmp_path: Path) -> None:
    fit(digits, tmp_path / "teacher", 2, save_weights=True, **QUICK)
    rded = load_yaml(find_config("classify/rded_digits"))
    published = load_yaml(find_config("classify/rded"))["model"]["init_args"]
    assert rded["model"]["init_args"]["augmentation"] == {"flip": False}
    student = task(
        teacher=TeacherSettings(f"{tmp_path}/teacher/weights", temperature=20.0, squared=False),
        optimizer=OptimizerSettings(**published["optimizer"]),
        augmentation=Augmentation(**{**published["augmentation"], "flip": False}),
    )
    run = trainer(tmp_path / "student", max_epochs=2)
    run.fit(student, images(digits, batch_size="by_ipc"))
    assert [group["weight_decay"] for group in run.optimizers[0].param_groups] == [0.01, 0]
    assert run.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.001 / 2)  # after the last epoch
    assert run.global_step == 2 * 15  # 1,438 images in batches of 100
    with pytest.raises(InputError, match=r"augmentation\.patches: found 9, expected at most 8, the side of the images"):
        trainer(tmp_path).fit(task(augmentation=Augmentation(patches=9)), images(digits))


def test_a_teacher_answers_in_the_students_classes_and_normalisation(digits: Path, tmp_path: Path) -> None:
    fit(digits, tmp_path, 1, save_weights=True)
    network, config = load_classifier(tmp_path / "weights")
    pictures = torch.rand(2, 1, 8, 8)
    student = ClassifierConfig("convnet2", ("7", "3"), 8, 1, mean=(0.2,), std=(0.3,))
    answer = Teacher(f"{tmp_path}/weights", None, student)((pictures - 0.2) / 0.3)
    torch.testing.assert_close(answer, network((pictures - config.mean[0]) / config.std[0])[:, [7, 3]])
    with pytest.raises(InputError, match=r"1 missing label \(cat\)"):
        Teacher(f"{tmp_path}/weights", None, ClassifierConfig("convnet2", ("7", "cat"), 8, 1, (0.2,), (0.3,)))
    with pytest.raises(InputError, match="8 px"):
        Teacher(f"{tmp_path}/weights", None, ClassifierConfig("convnet2", ("7", "3"), 16, 1, (0.2,), (0.3,)))


def test_an_imagenet_classifier_teaches_the_columns_of_its_wordnet_ids(tmp_path: Path) -> None:
    network = build_network("timm:test_resnet", 1000, 32)
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    student = ClassifierConfig("convnet2", ("n01443537", "n01440764"), 32, 3, *channel_statistics(3))
    pictures = torch.rand(2, 3, 32, 32)
    answer = Teacher("timm:test_resnet", f"{tmp_path}/weights.safetensors", student)(pictures)
    half = (0.5, 0.5, 0.5)  # this network's mean and standard deviation
    in_unit = normalise(pictures * torch.tensor(student.std)[:, None, None], [-m for m in student.mean], [1] * 3)
    expected = network.eval()(normalise(in_unit, half, half))[:, [1, 0]]  # goldfish, tench
    torch.testing.assert_close(answer, expected)


def test_tensorboard_shows_the_confusion_matrix(digits: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = trainer(tmp_path, [ResultWriter()], logger=True, log_every_n_steps=1, max_epochs=1)
    run.fit(task(), images(digits))
    assert run.logger is not None
    assert run.logger.log_dir is not None
    events = EventAccumulator(run.logger.log_dir).Reload()
    assert events.Tags()["images"] == ["val/confusion"]
    assert {"val/accuracy", "val/top5", "train/loss", "train/lr"} <= set(events.Tags()["scalars"])


@pytest.mark.parametrize("config", sorted(ROOT.glob("classify/*.yaml")), ids=lambda path: path.stem)
def test_shipped_configs_have_settings_that_the_command_line_takes(config: Path) -> None:
    below = ["--config", "classify/published.yaml"] if config.stem == "no_augmentation" else []  # it lies over others
    check("fit", [*below, "--config", str(config), "--data.train", "DISTILLED", "--data.val", "VAL"])


@pytest.mark.parametrize(
    ("setting", "place"),
    [
        ("lr=0.1", "model.optimizer.lr"),
        ("optimizer=adamw", "model.optimizer.{name, lr, weight_decay, schedule, decayed}"),
        ("flip=false", "model.augmentation.flip"),
        ("teacher=torchvision:resnet18", "model.teacher.{name, weights, temperature, squared}"),
        ("teacher_weights=file", "model.teacher.weights"),
        ("epochs=3", "trainer.max_epochs, or epochs of the callback PublishedLength"),
        ("save_weights=true", "save_weights of the callback ResultWriter"),
    ],
)
def test_a_setting_of_version_0_1_0_is_refused_with_its_new_place(setting: str, place: str) -> None:
    with pytest.raises(InputError) as refused:
        check("fit", ["--config", "classify/digits.yaml", f"--model.{setting}"])
    assert f"model.{setting.split('=')[0]}: found" in str(refused.value)
    assert f"expected {place}." in str(refused.value)


def fit_shipped(config: str, digits: Path, root: Path, **data: Any) -> Any:  # noqa: ANN401
    """Last evaluation of a classifier trained by a shipped config."""
    settings = load_yaml(find_config(f"classify/{config}"))
    length, writer = (callback["init_args"] for callback in settings["trainer"]["callbacks"][:2])
    model = ClassificationTask(**settings["model"]["init_args"])
    trainer(root, [PublishedLength(**length), ResultWriter(**writer)], max_epochs=-1).fit(
        model, images(digits, **settings["data"]["init_args"], **data)
    )
    return model.evaluation


def held_out_difficulties(digits: Path, root: Path, folds: int) -> dict[str, list[float]]:
    """1 - p(true) of each training digit, by label, from the estimator that has not seen it."""
    records = read_set(digits / "train")
    difficulties: dict[str, list[float]] = {}
    for fold in range(folds):
        fit_shipped("estimator_digits", digits, root / str(fold), cross_fitting=Folds(folds, fold))
        estimator = load_estimator(f"{root}/{fold}/weights")
        held = [record for record, own in zip(records, folds_of(records, folds), strict=True) if own == fold]
        pictures = [estimator.preprocess(load_image(digits / "train" / record.file_name)) for record in held]
        with torch.inference_mode():
            probabilities = estimator(torch.stack(pictures)).softmax(dim=1)
        for record, row in zip(held, probabilities.tolist(), strict=True):
            difficulties.setdefault(record.label, []).append(1 - row[estimator.labels.index(record.label)])
    return difficulties


@pytest.mark.slow
def test_the_digits_estimator_spreads_difficulty_over_half_the_intervals_of_most_classes(
    digits: Path, tmp_path: Path
) -> None:
    difficulties = held_out_difficulties(digits, tmp_path, folds=5)
    filled = [np.count_nonzero(np.histogram(values, bins=10, range=(0, 1))[0]) for values in difficulties.values()]
    assert len(filled) == 10
    assert sum(count >= 5 for count in filled) >= 8


@pytest.mark.slow
def test_the_digits_judge_is_nearly_always_right(digits: Path, tmp_path: Path) -> None:
    assert fit_shipped("judge_digits", digits, tmp_path)["accuracy"] >= 0.98


def test_in_a_balanced_training_a_class_is_not_named_for_its_number_of_images(tmp_path: Path) -> None:
    sizes, grey = {"cat": 6, "dog": 30, "owl": 4}, Image.new("L", (4, 4), 128)  # all images are alike
    for label, size in sizes.items():
        (tmp_path / label).mkdir()
        for index in range(size):
            grey.save(tmp_path / label / f"{index}.png")
    for balanced, expected in ((False, [0.15, 0.75, 0.1]), (True, [1 / 3, 1 / 3, 1 / 3])):
        model = ClassificationTask(
            "convnet1", 4, optimizer=OptimizerSettings("adamw", lr=0.05, schedule="cosine"), balanced=balanced
        )
        run = trainer(tmp_path / "run", max_epochs=150, num_sanity_val_steps=0, limit_val_batches=0)
        run.fit(model, ImageDataModule(str(tmp_path), str(tmp_path), batch_size=40))
        alike = normalise(torch.full((1, 1, 4, 4), 128 / 255), model.config.mean, model.config.std)
        likely = model.network.eval()(alike).softmax(dim=1)[0]
        assert likely.tolist() == pytest.approx(expected, abs=0.05)


def test_a_checkpoint_of_a_version_with_fewer_settings_is_resumed_where_these_have_their_defaults() -> None:
    taught: dict[str, Any] = {"network": "convnet2", "teacher": TeacherSettings("judge")}
    begun = copy.deepcopy({"hyper_parameters": dict(ClassificationTask(**taught).hparams), "state_dict": {}})
    settings = begun["hyper_parameters"]
    del settings["balanced"], settings["augmentation"]["patches"], settings["teacher"]["squared"]
    ClassificationTask(**taught).on_load_checkpoint(begun)
    with pytest.raises(InputError, match=r"one made with augmentation\.patches: 1"):
        ClassificationTask(**taught, augmentation=Augmentation(patches=2)).on_load_checkpoint(begun)


def test_the_schedule_of_dm_loses_its_momentum_after_half_of_the_epochs(digits: Path, tmp_path: Path) -> None:
    """A first step after the change is that of a new optimiser: the learning rate times the gradient."""
    norms: list[float] = []

    class Momentum(Callback):
        def on_train_batch_start(self, trainer: L.Trainer, *_: object) -> None:
            states = trainer.optimizers[0].state.values()
            norms.append(sum(float(state["momentum_buffer"].norm()) for state in states))

    settings = {
        "augmentation": Augmentation(siamese=("crop",), cutmix=0),
        "optimizer": OptimizerSettings(schedule="half"),
    }
    run = trainer(tmp_path, [Momentum()], max_epochs=6, limit_train_batches=1, limit_val_batches=1)
    run.fit(task(**settings), images(digits))
    assert [norm > 0 for norm in norms] == [False, True, True, True, True, False]


def test_operations_of_dsa_take_the_place_of_the_other_augmentation() -> None:
    batch = torch.rand(4, 1, 8, 8)
    plain = Augmentation(siamese=())(batch, [0.5], [0.25], torch.Generator())
    torch.testing.assert_close(plain, (batch - 0.5) / 0.25)
    shifted = Augmentation(siamese=("crop",))(batch, [0.5], [0.25], torch.Generator().manual_seed(0))
    assert all(pixel in plain[k] for k in range(4) for pixel in shifted[k, 0, 1:7, 1:7].flatten())
    with pytest.raises(InputError, match=r"siamese: found 'shear', expected one of color, crop, cutout, flip"):
        Augmentation(siamese=("shear",))
