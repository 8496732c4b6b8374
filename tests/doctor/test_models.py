import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import constants

from dgs_lightning.data.classes import class_list
from dgs_lightning.doctor.finding import Finding
from dgs_lightning.doctor.images import open_trees
from dgs_lightning.doctor.models import check_labels_of_models, check_weights
from dgs_lightning.experiment.plan import Plan
from dgs_lightning.experiment.settings import Experiment, load_experiment
from dgs_lightning.experiment.stage import Stage
from dgs_lightning.experiment.work import resolved
from dgs_lightning.models.dit.formats import export_diffusers, save_dit
from dgs_lightning.models.dit.network import DiT, DiTConfig, initialise


def stages_of(experiment: Experiment) -> list[Stage]:
    return resolved(Plan(experiment).everything(), experiment)


def weights(experiment: Experiment) -> list[Finding]:
    return list(check_weights(experiment, stages_of(experiment)))


def labels(experiment: Experiment) -> list[Finding]:
    return list(check_labels_of_models(experiment, stages_of(experiment), open_trees(experiment)[0]))


def tiny_dit(labels: Sequence[str]) -> DiT:
    config = DiTConfig(
        input_size=16, num_classes=len(labels), in_channels=3, hidden_size=16, depth=2, num_heads=2, patch_size=4
    )
    model = DiT(config, labels)
    initialise(model, 0)
    return model


def test_an_experiment_that_trains_all_its_models_needs_no_weights(healthy: Experiment) -> None:
    assert weights(healthy) == []
    assert labels(healthy) == []


def test_a_path_without_a_model_is_a_problem(healthy: Experiment, tmp_path: Path) -> None:
    [found] = weights(replace(healthy, dit=str(tmp_path / "nothing")))
    assert found.level == "problem"
    assert "nothing" in found.what
    [found] = weights(replace(healthy, codec=str(tmp_path / "data")))
    assert found.level == "problem"
    assert "no weights in" in found.what


def test_a_hub_model_that_is_not_here_comes_with_how_to_get_it(
    healthy: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = replace(healthy, dit="someone/a-dit-that-nobody-has")
    [found] = weights(experiment)
    assert found.level == "warning"
    assert "hf download someone/a-dit-that-nobody-has" in found.remedy
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    [found] = weights(experiment)
    assert found.level == "problem"


def test_the_licence_of_the_published_dit_is_named(healthy: Experiment) -> None:
    [found] = weights(replace(healthy, dit="facebook/DiT-XL-2-256"))
    assert "CC BY-NC 4.0" in found.what


def test_a_model_that_no_stage_uses_is_not_asked_for(healthy: Experiment) -> None:
    assert weights(replace(healthy, methods=["random"], dit="someone/a-dit-that-nobody-has")) == []


def test_an_estimator_is_a_known_network_a_folder_or_a_problem(
    healthy: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    [found] = weights(replace(healthy, estimator="torchvision:resnet50"))
    assert found.level == "warning"
    assert "resnet50-0676ba61.pth" in found.remedy  # IMAGENET1K_V1, as the paper
    cached = tmp_path / "torch" / "hub" / "checkpoints" / "resnet50-0676ba61.pth"
    cached.parent.mkdir(parents=True)
    cached.write_bytes(b"weights")
    assert weights(replace(healthy, estimator="torchvision:resnet50"))[0].level == "ok"
    for wrong in ("torchvision:resnet5000", "timm:resnet5000", "resnet50"):
        [found] = weights(replace(healthy, estimator=wrong))
        assert found.level == "problem"
        assert wrong in found.what


def test_local_weights_of_an_estimator_are_looked_for(healthy: Experiment, tmp_path: Path) -> None:
    file = tmp_path / "estimator.safetensors"
    score = {"model": {"init_args": {"weights": str(file)}}}
    experiment = replace(healthy, estimator="timm:resnet10t", score=score)
    assert weights(experiment)[0].level == "problem"
    [found] = weights(replace(experiment, estimator_weights="missing/weights.pth"))  # has the form of a hub id
    assert found.level == "problem"
    assert "missing/weights.pth" in found.what
    file.write_bytes(b"weights")
    assert weights(experiment)[0].level == "ok"


def test_a_dit_that_knows_the_classes_is_fine_in_either_form(healthy: Experiment, tmp_path: Path) -> None:
    model = tiny_dit(class_list("imagenette"))
    save_dit(model, tmp_path / "own")
    export_diffusers(model, tmp_path / "diffusers")
    for name in ("own", "diffusers"):
        experiment = replace(healthy, dit=str(tmp_path / name))
        assert [finding.level for finding in weights(experiment) + labels(experiment)] == ["ok", "ok"]


def test_classes_that_the_dit_does_not_know_are_a_problem_unless_fine_tuning_adds_them(
    healthy: Experiment, tmp_path: Path
) -> None:
    save_dit(tiny_dit(class_list("imagewoof")), tmp_path / "woof")
    experiment = replace(healthy, dit=str(tmp_path / "woof"))
    [found] = labels(experiment)
    assert found.level == "problem"
    assert "10 unknown labels" in found.what
    assert "label_table=replace and leave out" in found.remedy
    replacing = {"model": {"init_args": {"label_table": "replace"}}}
    assert labels(replace(experiment, finetune=replacing, methods=["minimax_dgs"]))[0].level == "ok"
    assert labels(replace(experiment, finetune=replacing))[0].level == "problem"


def test_a_dit_of_all_of_imagenet_knows_each_of_its_subsets(healthy: Experiment) -> None:
    [found] = labels(replace(healthy, dit="facebook/DiT-XL-2-256"))
    assert found.level == "ok"


def test_readable_names_are_given_the_labels_that_a_model_knows(healthy: Experiment) -> None:
    for split in ("train", "val"):
        Path(str(healthy.data), split, "n01440764").rename(Path(str(healthy.data), split, "Tench"))
    [found] = labels(replace(healthy, classes=None, estimator="torchvision:resnet50"))
    assert found.level == "problem"
    assert "Tench -> n01440764" in found.remedy


def test_an_estimator_must_know_every_class(healthy: Experiment, tmp_path: Path) -> None:
    assert labels(replace(healthy, estimator="torchvision:resnet50"))[0].level == "ok"
    (tmp_path / "own").mkdir()
    config = {"format": "dgs-lightning/classifier", "labels": class_list("imagenette")[1:]}
    (tmp_path / "own" / "config.json").write_text(json.dumps(config))
    [found] = labels(replace(healthy, estimator=str(tmp_path / "own")))
    assert found.level == "problem"
    assert "1 unknown label (n01440764)" in found.what
    assert "leave 'estimator' out" in found.remedy


def test_an_estimator_of_other_classes_comes_with_the_command_that_trains_one(
    tmp_path: Path, make_tree: Callable[[Path, Sequence[str], int], Path]
) -> None:
    pool = make_tree(tmp_path / "own pool", ["cat", "dog"], 2)
    [found] = labels(load_experiment("select_only", [f"pool={pool}"]))
    assert found.level == "problem"
    assert f"dgs run own_images --set 'data={pool}'" in found.remedy


def test_a_teacher_must_be_here_and_know_every_class_where_a_training_has_soft_labels(
    healthy: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    assert labels(replace(healthy, teacher="torchvision:resnet18")) == []
    [found] = weights(replace(healthy, teacher="torchvision:resnet18", protocols=["soft"]))
    assert found.level == "warning"
    assert "set teacher_weights=FILE" in found.remedy
    (tmp_path / "own").mkdir()
    config = {"format": "dgs-lightning/classifier", "labels": class_list("imagenette")[1:]}
    (tmp_path / "own" / "config.json").write_text(json.dumps(config))
    [found] = labels(replace(healthy, teacher=str(tmp_path / "own"), protocols=["hard", "soft"]))
    assert found.level == "problem"
    assert "teacher" in found.what
    assert "1 unknown label (n01440764)" in found.what
    assert "section 'judge'" in found.remedy
