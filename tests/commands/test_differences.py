from pathlib import Path

import pytest
import yaml

from dgs_lightning.commands.differences import differences_from_paper, note_on
from dgs_lightning.data.classes import class_list
from dgs_lightning.data.records import ImageRecord, write_manifest
from dgs_lightning.experiment.plan import Plan
from dgs_lightning.experiment.settings import load_experiment
from dgs_lightning.files import write_json
from dgs_lightning.reporting.folder import RunFolder, read_run


def planned(folder: Path, name: str, *changes: str) -> RunFolder:
    """A run as it is on disk when its first training has ended, without the images and models."""
    small = [f"data={folder / 'data'}", "ipc=10", "networks=[resnet_ap10]", "draws=1", "repeats=3"]
    experiment = load_experiment(name, [*small, *changes], str(folder / "run"))
    output, finished = Path(str(experiment.output)), False
    for stage in Plan(experiment).everything():
        path = output / "stages" / f"{stage.name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(stage.settings(output)))
        if stage.name.startswith("evaluation/") and not finished:
            write_json(output / stage.name / "result.json", {"accuracy_last": 0.5, "accuracy_best": 0.5})
            finished = True
    (output / "experiment.yaml").write_text(yaml.safe_dump(vars(experiment)))
    return read_run(output)


@pytest.mark.parametrize("name", ["imagewoof", "imagenette", "table3_imageidc", "table4", "table5", "table6", "table7"])
def test_a_shipped_experiment_does_not_differ_from_the_paper_and_rows_vary_on_purpose(
    tmp_path: Path, name: str
) -> None:
    assert differences_from_paper(planned(tmp_path, name)) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["estimator=timm:resnet10t"], "difficulty estimator: timm:resnet10t instead of torchvision:resnet50"),
        (["dit=null"], "DiT: one trained from scratch instead of facebook/DiT-XL-2-256"),
        (["guided=minimax"], "model that is guided: minimax instead of dit"),
        (["repeats=2"], "trainings of a row: 2 instead of 3"),
        (["select.smoothing=released"], "smoothing: released instead of paper"),
        (["select.smoothing_forks={extremes: zero}"], "extremes in the smoothing: zero instead of the default"),
        (["dag.scale=0.2"], "scale of DAG: 0.2 instead of 0.1"),
        (["mgd3.stop_timestep=30"], "stop_timestep of MGD3: 30 instead of 25"),
        (["dag.intervals=4"], "intervals of the difficulties in DAG: 4 instead of 10"),
        (["generate.model.init_args.guidance_scale=2.5"], "scale of classifier-free guidance: 2.5 instead of 4"),
        (
            ["finetune.model.init_args.optimizer.learning_rate=0.01"],
            "learning rate of the fine-tuning: 0.01 instead of 0.001",
        ),
        (["finetune.trainer.max_epochs=2"], "max_epochs of the fine-tuning: 2 instead of 8"),
        (["evaluate.model.init_args.augmentation.cutmix=0"], "CutMix: 0 instead of 1"),
        (
            ["evaluate.model.init_args.optimizer.lr=0.05"],
            "learning rate of the classifier: 0.05 instead of the default",
        ),
        (
            ["evaluate.trainer.max_epochs=200"],
            "length of a classifier's training: 200 epochs instead of epochs that follow from the IPC",
        ),
        (["evaluate.data.init_args.image_size=64"], "side of the images that the classifier sees: 64 instead of 224"),
        (["generate.trainer.precision=16-mixed"], "precision of 'generate': 16-mixed instead of "),
        (["latents.model.init_args.flips=false"], "latents.model.flips: off instead of on"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_setting_that_is_not_the_papers_is_named_in_words(tmp_path: Path, changes: list[str], words: str) -> None:
    [found] = differences_from_paper(
        planned(tmp_path, "imagewoof", "methods=[dgs_ori, minimax_dgs, mgd3, dag]", *changes)
    )
    assert found.startswith(words)


def test_devices_speed_places_and_local_copies_are_no_difference(tmp_path: Path) -> None:
    changes = ["trainer={devices: 2, strategy: ddp, accelerator: cpu}", "jobs=4", "threads=2", "seed=7"]
    changes += ["dit=copies/DiT-XL-2-256", "codec=copies/sd-vae-ft-ema", "evaluate.data.init_args.val_batch_size=32"]
    changes += ["generate.data.init_args.batch_size=8", "score.data.init_args.val_batch_size=32"]
    changes += ["finetune.trainer.callbacks=[LearningRateMonitor]", "evaluate.data.init_args.loading.num_workers=4"]
    assert differences_from_paper(planned(tmp_path, "imagewoof", *changes)) == []


def test_what_a_row_of_ones_own_changes_is_said_by_its_name_alone(tmp_path: Path) -> None:
    rows = ["methods=[plain, dag_own]", "variants.plain={method: dgs_ori, select: {smoothing: none}}"]
    rows += ["variants.dag_own={method: dag, dag: {scale: 0.5, smoothing: paper}}"]
    assert differences_from_paper(planned(tmp_path, "imagewoof", *rows)) == []


def test_settings_of_a_method_that_the_paper_does_not_have_are_no_difference(tmp_path: Path) -> None:
    assert differences_from_paper(planned(tmp_path, "imagewoof", "methods=[igd]", "options.igd.scale=10")) == []


def test_fastais_edition_is_told_by_its_numbers_of_images(tmp_path: Path) -> None:
    run, labels = planned(tmp_path, "imagewoof"), class_list("imagewoof")
    (run.folder / "scores" / "original").mkdir(parents=True)
    train = [ImageRecord(f"{labels[i % 10]}/{i}.png", labels[i % 10], difficulty=0.5) for i in range(9_025)]
    write_manifest(run.folder / "scores" / "original", train)
    for i in range(3_929):
        path = tmp_path / "data" / "val" / labels[i % 10] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    [found] = differences_from_paper(read_run(run.folder))
    assert found == (
        "imagewoof as fastai split it (9,025 training and 3,929 validation images) instead of ImageNet's own images, "
        "with 50 for validation of each class"
    )


def test_the_most_important_come_first_and_those_beyond_ten_are_counted(tmp_path: Path) -> None:
    run = planned(tmp_path, "imagewoof128", "methods=[dgs_ori, minimax_dgs]")
    found = differences_from_paper(run)
    assert found[0].startswith("DiT: one trained from scratch")
    assert found[1].startswith("difficulty estimator: timm:tf_efficientnet_lite0")
    assert note_on(run, found) == f"the set-up of imagewoof128 is not the paper's ({'; '.join(found)})"
    assert note_on(run, [*"abcdefghijkl"]).endswith("(a; b; c; d; e; f; g; h; i; j; and 2 more)")
    assert note_on(run, []) == ""


def test_models_that_no_stage_uses_are_no_difference(tmp_path: Path) -> None:
    said = " ".join(differences_from_paper(planned(tmp_path, "imagewoof64", "methods=[dgs_ori]")))
    assert "estimator" in said
    assert "DiT" not in said
    assert "autoencoder" not in said


def test_nothing_is_compared_on_other_data_before_a_training_or_with_version_0_1_0(tmp_path: Path) -> None:
    run = planned(tmp_path, "imagewoof", "methods=[random]")
    assert differences_from_paper(RunFolder(run.folder, {**run.settings, "classes": None, "data": "digits"})) == []
    [old] = run.folder.glob("evaluation/*/*/*/result.json")
    stage = run.folder / "stages" / f"{old.parent.relative_to(run.folder)}.yaml"
    settings = yaml.safe_load(stage.read_text())
    settings["model"]["init_args"] |= {"epochs": None, "steps": None}
    stage.write_text(yaml.safe_dump(settings))
    assert differences_from_paper(run) == ["settings of version 0.1.0, which are not compared"]
    old.unlink()
    assert differences_from_paper(read_run(run.folder)) == []
