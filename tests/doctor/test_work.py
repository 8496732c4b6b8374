from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from dgs_lightning.doctor.devices import check_devices
from dgs_lightning.doctor.images import open_trees
from dgs_lightning.doctor.storage import check_disk, check_memory, in_bytes, parameters
from dgs_lightning.doctor.timing import check_time, in_words
from dgs_lightning.doctor.work import Classifier, Scale, Work, dit_of, scale_of, works_of
from dgs_lightning.experiment.plan import Plan
from dgs_lightning.experiment.settings import Experiment
from dgs_lightning.experiment.stage import Stage
from dgs_lightning.models.dit.network import DiTConfig

XL = DiTConfig.named("DiT-XL/2", input_size=32, num_classes=1000)


def scale(experiment: Experiment) -> Scale:
    found = scale_of(experiment, open_trees(experiment)[0])
    assert found is not None
    return found


def stages(experiment: Experiment) -> list[Stage]:
    return Plan(experiment).everything()


def finetune_of(experiment: Experiment) -> Stage:
    return next(stage for stage in stages(experiment) if stage.name == "finetune")


def test_the_scale_is_read_off_the_images(healthy: Experiment) -> None:
    assert scale(healthy) == Scale(classes=10, train=120, val=40, side=16, channels=3)
    assert scale(replace(healthy, image_size=8)).image_bytes == 8 * 8 * 3
    assert scale(replace(healthy, data="digits", prepare={})) == Scale(10, 1438, 359, 8, 1)


def test_work_is_counted_as_by_hand(healthy: Experiment) -> None:
    works = list(works_of(stages(healthy), scale(healthy), None))
    counts: Counter[str] = Counter()
    passes: Counter[str] = Counter()
    for work in works:
        counts[work.what] += work.count
        passes[work.stage.split("/")[0]] += work.passes
    assert counts["training steps of the DiT on 20 images"] == 30
    assert counts["training steps of the DiT on 8 images"] == 2 * (120 // 8)
    # Two pools of 5 x 10 images of 10 classes, and one set under guidance of 5 and one of 10 images a class.
    assert counts["images generated in 50 steps"] == 2 * 500 + 50 + 100
    assert counts["images scored"] == 120 + 2 * 500 + 50 + 100
    assert counts["images encoded"] == 120
    # Two folds, and two repeats of four methods at two ipc.
    assert counts["networks trained"] == 2 + 2 * 4 * 2
    assert passes["pretrain"] == 3 * 30 * 20
    assert passes["pools"] == 2 * 500 * 50 * 2
    # Forward and backward in 4 epochs, and two evaluations on 40 images.
    assert passes["evaluation"] == 2 * 4 * (3 * 4 * 50 + 2 * 40) + 2 * 4 * (3 * 4 * 100 + 2 * 40)


def test_a_pool_from_elsewhere_is_scored_beside_the_originals(healthy: Experiment) -> None:
    experiment = replace(
        healthy,
        data=None,
        original=f"{healthy.data}/val",
        pool=f"{healthy.data}/train",
        methods=["pool_dgs"],
        networks=[],
        estimator="torchvision:resnet50",
    )
    works = list(works_of(stages(experiment), scale(experiment), None))
    assert sorted(work.count for work in works) == [40, 120]
    [to_do] = check_time(experiment, works, scale(experiment))
    assert to_do.what == "to do: 160 images scored"


def test_a_validation_set_chosen_by_difficulty_takes_the_scores_of_the_validation_images(healthy: Experiment) -> None:
    experiment = replace(healthy, methods=["easy"], variants={"easy": {"method": "random", "validation": "easy"}})
    works = works_of(stages(experiment), scale(experiment), None)
    scored = {work.stage: work.count for work in works if work.what == "images scored"}
    assert scored == {"scores/original": 120, "scores/val": 40}


def test_parameters_of_the_published_model_are_those_of_the_paper(healthy: Experiment) -> None:
    experiment = replace(healthy, dit="facebook/DiT-XL-2-256")
    assert dit_of(experiment, stages(experiment), scale(experiment)) == XL
    assert parameters(XL, finetune_of(experiment)) == (675_226_400, 1_739_552)


def test_disk_is_estimated_as_by_hand_and_held_against_what_is_free(healthy: Experiment, tmp_path: Path) -> None:
    small = replace(healthy, methods=["minimax"], ipc=10, networks=[], dit="facebook/DiT-XL-2-256", codec="someone/x")
    woof = Scale(classes=10, train=9025, val=3929, side=256, channels=3)
    [found] = check_disk(small, stages(small), woof, XL)
    images = (9025 + 3929 + 500 + 100) * 256 * 256 * 3
    cache = 9025 * 2 * 2 * 4096 * 2  # flips, mean and variance, values, bytes
    checkpoints = 4 * 6 * 1_739_552 + 2 * 10 * 64 * 4096 * 4
    assert found.level == "ok"
    assert f"about {in_bytes(images + cache + checkpoints)}" in found.what
    assert f"latent cache {in_bytes(cache)}" in found.what
    assert f"DiT checkpoints {in_bytes(checkpoints)}" in found.what
    [found] = check_disk(small, stages(small), replace(woof, train=10**12), XL)
    assert found.level == "problem"
    assert "--output" in found.remedy


def test_memory_holds_model_optimiser_and_memories(healthy: Experiment) -> None:
    experiment = replace(healthy, dit="facebook/DiT-XL-2-256")
    thousand = Scale(1000, 1_281_167, 50_000, 256, 3)
    [found] = check_memory(stages(experiment), thousand, XL)
    assert in_bytes(4 * (675_226_400 + 4 * 1_739_552) + 2 * 1000 * 64 * 4096 * 4) in found.what
    [found] = check_memory(stages(experiment), replace(thousand, classes=10**9), XL)
    assert found.level == "problem"


@pytest.mark.parametrize("dit", [XL, None])
def test_no_time_is_estimated_for_what_is_too_large_or_unknown(healthy: Experiment, dit: DiTConfig | None) -> None:
    work = Work("finetune", "training steps of the DiT on 8 images", 9_024, 216_576, dit)
    to_do, time = check_time(healthy, [work], scale(healthy))
    assert "9,024 training steps" in to_do.what
    assert "no estimate" in time.what


def test_time_grows_with_the_work(healthy: Experiment) -> None:
    work = Work("evaluation", "networks trained", 1, 10**9, Classifier("convnet2", 16, 16))
    _, time = check_time(healthy, [work], scale(healthy))
    assert any(unit in time.what for unit in ("minutes", "hours", "days"))
    _, time = check_time(healthy, [replace(work, passes=10**15)], scale(healthy))
    assert time.level == "warning"
    assert "GPUs" in time.remedy


@pytest.mark.parametrize(
    ("seconds", "words"), [(90, "90 seconds"), (600, "10 minutes"), (7200, "2 hours"), (864_000, "10 days")]
)
def test_durations_are_told_in_the_unit_that_fits(seconds: float, words: str) -> None:
    assert in_words(seconds) == words


def test_more_gpus_than_there_are_is_a_problem(healthy: Experiment) -> None:
    found = list(check_devices(replace(healthy, trainer={"devices": 4096, "accelerator": "gpu"})))
    assert [finding.level for finding in found if "4096" in finding.what] == ["problem"]
    assert all(finding.level == "ok" for finding in check_devices(healthy))


def test_more_threads_than_cores_is_a_warning(healthy: Experiment) -> None:
    found = list(check_devices(replace(healthy, jobs=4096)))
    assert [finding.level for finding in found if "4096 processes" in finding.what] == ["warning"]
