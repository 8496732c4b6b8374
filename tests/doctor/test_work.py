from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.filesize import decimal

from dgs_lightning.doctor import networks
from dgs_lightning.doctor.images import open_trees
from dgs_lightning.doctor.machine import check_devices, check_disk, check_memory
from dgs_lightning.doctor.networks import check_fast, check_networks, check_time, readable_durations
from dgs_lightning.errors import InputError
from dgs_lightning.experiment.plan import Plan
from dgs_lightning.experiment.settings import Experiment
from dgs_lightning.experiment.work import inputs_of, resolved, work_by_stage
from dgs_lightning.models.dit.network import DiTConfig
from dgs_lightning.models.trial import Classifier, kept_bytes
from dgs_lightning.runs.ddranking import ScoreName
from dgs_lightning.tasks.work import Inputs, Work, parameters

XL = DiTConfig.named("DiT-XL/2", input_size=32, num_classes=1000)


def inputs(experiment: Experiment, **changes: Any) -> Inputs:  # noqa: ANN401
    found = inputs_of(experiment, open_trees(experiment)[0])
    assert found is not None
    return replace(found, **changes)


def works(experiment: Experiment, **changes: Any) -> dict[str, Work]:  # noqa: ANN401
    stages = resolved(Plan(experiment).everything(), experiment)
    return work_by_stage(experiment, stages, inputs(experiment, **changes))


def test_the_scale_is_read_off_the_images(healthy: Experiment) -> None:
    found = inputs(healthy)
    assert (found.classes, found.side, found.channels, found.latent_shape) == (10, 16, 3, (3, 16, 16))
    assert (found.count(f"{healthy.output}/data/train"), found.count(f"{healthy.output}/data/val")) == (120, 40)
    assert inputs(replace(healthy, image_size=8)).image_bytes == 8 * 8 * 3
    digits = inputs(replace(healthy, data="digits", image_size=None, output="run"))
    assert (digits.classes, digits.side, digits.channels) == (10, 8, 1)
    assert digits.images == {"run/data/train": 1438, "run/data/val": 359}


def test_work_is_counted_as_by_hand(healthy: Experiment) -> None:
    counts: Counter[str] = Counter()
    passes: Counter[str] = Counter()
    for stage, work in works(healthy).items():
        counts[work.what] += work.count
        passes[stage.split("/")[0]] += work.passes
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


def test_what_bfloat16_brings_is_measured_where_that_is_asked_for(
    healthy: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = {torch.float32: (0.3, 0.4), torch.bfloat16: (0.12, 0.2)}
    monkeypatch.setattr(networks, "instructions", lambda: "amx_bf16")
    monkeypatch.setattr(networks, "seconds_per_image", lambda _, dtype: seconds[dtype])
    monkeypatch.setattr(networks, "advice", lambda *_: "advice")
    stages = resolved(Plan(healthy).everything(), healthy)
    not_asked, asked = ([found.what for found in check_fast(healthy, stages, works(healthy), m)] for m in (False, True))
    assert len(not_asked) == 1
    assert asked == [*not_asked, "bfloat16: 2.5 times as fast as 32-bit, by 5 forward passes of the DiT timed now"]


def test_the_trainings_that_scores_add_are_counted(healthy: Experiment) -> None:
    small = replace(healthy, methods=["herding"], ipc=5)
    # Two repeats: of Herding; with LRS of Random and the full set, too; with ARS both sets without augmentation.
    asked: list[tuple[list[ScoreName], int]] = [([], 2), (["lrs"], 6), (["lrs", "ars"], 10)]
    for scores, trainings in asked:
        found = [work for name, work in works(replace(small, scores=scores)).items() if name.startswith("evaluation/")]
        assert [work.what for work in found] == ["networks trained"] * trainings


def test_the_work_of_matching_methods_is_counted_as_by_hand(healthy: Experiment) -> None:
    """120 training images of ten classes; a step of DM sees 10 x 256 real ones, but there are only 120."""
    options: dict[str, Any] = {"dm": {"trainer": {"max_steps": 7}}, "idc1": {"trainer": {"max_steps": 7}}}
    experiment = replace(healthy, methods=["dm", "idc1"], ipc=5, networks=[], options=options)
    found = {name: work for name, work in works(experiment).items() if name.startswith("matched/")}
    assert [(work.what, work.count, work.images) for work in found.values()] == [("steps on images", 7, 50)] * 2
    dm, idc = found.values()
    assert dm.passes == 7 * (120 + 3 * 50)
    assert idc.passes == 7 * (3 * (120 + 500) + 9 * 50)
    assert isinstance(dm.network, Classifier)


def test_the_memory_of_matching_methods_is_that_of_the_images_and_of_what_a_step_keeps(healthy: Experiment) -> None:
    """A published subset of ImageNet at 224 px: 74 and 139 MiB of an image are kept for one or two backward passes."""
    sizes: dict[str, Any] = {"network": "convnet6", "batch_real": 64}
    model = {"model": {"init_args": sizes}, "data": {"init_args": {"image_size": 224}}}
    experiment = replace(healthy, methods=["dm", "idc1"], ipc=50, networks=[], options={"dm": model, "idc1": model})
    found = works(experiment, images={f"{healthy.output}/data/train": 13_000})
    images, mib = 10 * 50 * 224 * 224 * 3 * 4 * 3, 2**20
    expected = [images + 50 * 74 * mib, images + max(64 * 74, 50 * 139) * mib]
    assert [found[f"matched/{name}-ipc50"].memory for name in ("dm", "idc1")] == pytest.approx(expected, rel=0.01)
    [finding] = check_memory(found)
    assert finding.what.startswith(f"memory: about {decimal(found['matched/idc1-ipc50'].memory)} for learning images;")


def test_small_images_of_several_classes_are_kept_together(healthy: Experiment) -> None:
    """Digits: as many classes as have 2 ** 18 pixels, here all, go through the network at once."""
    experiment = replace(healthy, data="digits", image_size=None, classes=None, methods=["dm"], ipc=5, networks=[])
    experiment = replace(experiment, options={"dm": {"config": "match/dm_digits.yaml"}})
    [work] = [work for name, work in works(experiment).items() if name.startswith("matched/")]
    network = Classifier("convnet2", 10, 8, 1, width=64)
    assert work.memory == 50 * 64 * 4 * 3 + 10 * 5 * kept_bytes(network)


@pytest.mark.parametrize(
    ("name", "side", "once", "twice"),
    [
        ("convnet3", 32, 1.5, 2.8),
        ("convnet6", 224, 74, 139),
        ("resnet_ap10", 224, 40, 77),
        ("resnet_ap10", 128, 13, 25),
        ("resnet18", 224, 21, 40),
    ],
)
def test_what_autograd_keeps_of_an_image_is_what_was_counted_elsewhere(
    name: str, side: int, once: float, twice: float
) -> None:
    network = Classifier(name, 10, side, 3, width=128)
    assert [kept_bytes(network) / 2**20, kept_bytes(network, twice=True) / 2**20] == pytest.approx(
        [once, twice], rel=0.03
    )


def test_a_network_that_cannot_be_matched_has_no_memory_but_a_finding_elsewhere(healthy: Experiment) -> None:
    options = {"dm": {"model": {"init_args": {"network": "convnet9"}}}}
    [work] = [w for n, w in works(replace(healthy, methods=["dm"], options=options)).items() if n == "matched/dm-ipc5"]
    assert work.memory == 10 * 5 * 16 * 16 * 3 * 4 * 3
    assert [finding.level for finding in check_networks({"matched/dm-ipc5": work})] == ["problem"]


def test_a_start_from_prototypes_takes_a_share_of_the_steps(healthy: Experiment) -> None:
    def passes(**options: Any) -> tuple[str, int]:  # noqa: ANN401
        work = works(replace(healthy, methods=["d4m"], ipc=5, networks=[], options=options))["guided/d4m-ipc5"]
        return work.what, work.passes

    assert passes() == ("images generated in 35 steps", 50 * 35 * 2)  # 0.7 of 50 is published
    assert passes(d4m={"strength": 0.3}) == ("images generated in 15 steps", 50 * 15 * 2)
    with pytest.raises(InputError, match=r"strength: found a strength of 0\.01 takes 0 of 50 steps"):
        passes(d4m={"strength": 0.01})


def test_the_work_and_the_memory_of_igd_are_counted_as_by_hand(healthy: Experiment) -> None:
    """Of 50 steps, 16 are guided, each with a forward and a backward pass of both branches more."""
    options: dict[str, Any] = {"igd": {"config": "classify/surrogate_digits.yaml", "chunk": 2}}
    experiment = replace(healthy, methods=["igd"], ipc=5, networks=[], options=options)
    found = works(experiment)
    made = found["guided/igd-ipc5"]
    assert made.passes == 50 * (50 + 3 * 16) * 2
    assert made.disk == 50 * 3 * 16 * 16 * (1 + 4)  # pixels, and the values of the latents
    assert found["surrogate"].passes == 3 * 30 * 120  # without evaluations
    smaller = works(replace(experiment, options={"igd": {**options["igd"], "chunk": 1}}))["guided/igd-ipc5"]
    assert 0 < smaller.memory < made.memory < 2 * smaller.memory  # the surrogate's share stays
    [_, finding] = check_memory(found)
    assert finding.level == "ok"
    assert "for the gradients of a step of IGD, weights aside" in finding.what
    [_, finding] = check_memory({"guided/igd-ipc5": replace(made, memory=10**15), "pretrain": found["pretrain"]})
    assert finding.level == "problem"


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
    found = works(experiment)
    assert sorted(work.count for work in found.values() if work.what) == [40, 120]
    [to_do] = check_time(experiment, found)
    assert to_do.what == "to do: 160 images scored"


def test_a_validation_set_chosen_by_difficulty_takes_the_scores_of_the_validation_images(healthy: Experiment) -> None:
    experiment = replace(healthy, methods=["random"], validation=["easy"])
    found = works(experiment)
    scored = {stage: work.count for stage, work in found.items() if work.what == "images scored"}
    assert scored == {"scores/original": 120, "scores/val": 40}
    assert found["validation/easy"].images == 20  # half of 40
    assert found["evaluation/random-ipc5/convnet2/seed0"].passes == 3 * 4 * 50 + 2 * 40  # evaluated on all 40 at once


def test_parameters_of_the_published_model_are_those_of_the_paper(healthy: Experiment) -> None:
    experiment = replace(healthy, dit="facebook/DiT-XL-2-256")
    assert works(experiment)["finetune"].network == XL
    assert parameters(XL, "half") == (675_226_400, 1_739_552)


def test_disk_is_estimated_as_by_hand_and_held_against_what_is_free(healthy: Experiment, tmp_path: Path) -> None:
    small = replace(healthy, methods=["minimax"], ipc=10, networks=[], dit="facebook/DiT-XL-2-256", codec="someone/x")
    folders = {f"{small.output}/data/train": 9025, f"{small.output}/data/val": 3929}
    [found] = check_disk(small, works(small, side=256, images=dict(folders)))
    images = (9025 + 3929 + 500 + 100) * 256 * 256 * 3
    cache = 9025 * 2 * 2 * 4096 * 2  # flips, mean and variance, values, bytes
    checkpoints = 4 * 6 * 1_739_552 + 2 * 10 * 64 * 4096 * 4
    assert found.level == "ok"
    assert f"about {decimal(images + cache + checkpoints)}" in found.what
    assert f"latent cache {decimal(cache)}" in found.what
    assert f"DiT checkpoints {decimal(checkpoints)}" in found.what
    folders[f"{small.output}/data/train"] = 10**12
    [found] = check_disk(small, works(small, side=256, images=folders))
    assert found.level == "problem"
    assert "--output" in found.remedy


def test_memory_holds_model_optimiser_and_memories(healthy: Experiment) -> None:
    experiment = replace(healthy, dit="facebook/DiT-XL-2-256")
    [found] = check_memory(works(experiment, classes=1000))
    assert decimal(4 * (675_226_400 + 4 * 1_739_552) + 2 * 1000 * 64 * 4096 * 4) in found.what
    [found] = check_memory(works(experiment, classes=10**9))
    assert found.level == "problem"


def test_the_refinement_of_latents_is_counted_in_passes_and_in_memory(healthy: Experiment) -> None:
    experiment = replace(healthy, methods=["cao2"], ipc=[10], dit="facebook/DiT-XL-2-256", networks=[])
    work = works(experiment)["refined/cao2-ipc10"]
    assert (work.what, work.count, work.images) == ("images refined in 100 steps", 100, 100)
    assert work.passes == 100 * (50 * 2 + 100 * 2 + 11 * 2)  # guided steps, gradients, and the loss before and after
    assert work.memory == 4 * 675_129_632 + 64 * kept_bytes(XL)
    options = {"cao2": {"steps": 10, "data": {"init_args": {"batch_size": "auto"}}}}
    work = works(replace(experiment, options=options))["refined/cao2-ipc10"]
    assert (work.passes, work.memory) == (100 * (100 + 20 + 22), 4 * 675_129_632 + kept_bytes(XL))
    [found] = check_memory({"refined": replace(work, memory=10**15)})
    assert (found.level, "for refining a batch of latents; " in found.what) == ("problem", True)
    assert found.remedy.startswith("Set a smaller batch_size, or auto, in options.METHOD.data.init_args")


def test_starts_in_the_middle_take_the_steps_that_are_left(healthy: Experiment) -> None:
    experiment = replace(healthy, methods=["d3hr", "d3hr_dgs", "d4m"], ipc=[10], networks=[])
    found = works(experiment)
    inverted, best, pool, d4m = (
        found[f"{stage}-ipc10"] for stage in ("inverted/d3hr", "guided/d3hr", "guided/d3hr_dgs", "guided/d4m")
    )
    assert (inverted.what, inverted.count, inverted.passes) == ("images inverted in 32 steps", 120, 120 * 32 * 2)
    assert inverted.disk == 120 * 3 * 16 * 16 * 2
    assert (best.what, best.passes) == ("images generated in 32 steps", 100 * 32 * 2)
    assert (pool.count, d4m.what) == (500, "images generated in 35 steps")


def test_activations_grow_with_the_depth_and_hold_no_weights() -> None:
    shapes: dict[str, Any] = {"input_size": 8, "num_classes": 3, "hidden_size": 64, "num_heads": 4}
    one, two, three = (kept_bytes(DiTConfig(**shapes, depth=depth)) for depth in (1, 2, 3))
    assert two - one == three - two
    tokens = 16 * 64 * 4  # bytes of the tokens of a latent
    assert 10 * tokens < two - one < 30 * tokens  # two of them in each map of a block, four in the hidden layers
    assert kept_bytes(XL) == pytest.approx(417e6, rel=0.01)


@pytest.mark.parametrize("dit", [XL, None])
def test_no_time_is_estimated_for_what_is_too_large_or_unknown(healthy: Experiment, dit: DiTConfig | None) -> None:
    work = Work("training steps of the DiT on 8 images", 9_024, 216_576, dit)
    to_do, time = check_time(healthy, {"finetune": work})
    assert "9,024 training steps" in to_do.what
    assert "no estimate" in time.what


def test_time_grows_with_the_work(healthy: Experiment) -> None:
    work = Work("networks trained", 1, 10**9, Classifier("convnet2", 10, 16, 3, width=16))
    _, time = check_time(healthy, {"evaluation": work})
    assert any(unit in time.what for unit in ("minutes", "hours", "days"))
    _, time = check_time(healthy, {"evaluation": replace(work, passes=10**15)})
    assert time.level == "warning"
    assert "GPUs" in time.remedy


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        ((90, 90), "90 seconds"),
        ((500, 600), "8 to 10 minutes"),
        ((3600, 7200), "1 to 2 hours"),
        ((864_000, 864_001), "10 days"),
    ],
)
def test_durations_are_told_in_the_unit_that_fits(seconds: tuple[float, float], words: str) -> None:
    assert readable_durations(*seconds) == words


class Clocks:
    """Stands for ``time``: on a busy machine more time passes between two looks at the clock, not more of computing."""

    def __init__(self, load: Sequence[float], computing: Sequence[float] = (1.0,)) -> None:
        self.clocks = {"perf_counter": [0.0, *load], "process_time": [0.0, *computing]}
        self.now = dict.fromkeys(self.clocks, 0.0)
        self.looks = Counter[str]()

    def __getattr__(self, name: str) -> Callable[[], float]:
        def look() -> float:
            steps = self.clocks[name][1:]
            self.now[name] += steps[self.looks[name] // 2 % len(steps)] if self.looks[name] % 2 else 0
            self.looks[name] += 1
            return self.now[name]

        return look


def time_told(experiment: Experiment, monkeypatch: pytest.MonkeyPatch, *clocks: Sequence[float]) -> str:
    monkeypatch.setattr("dgs_lightning.models.trial.time", Clocks(*clocks))
    work = Work("networks trained", 1, 7_200, Classifier("convnet1", 10, 16, 3, width=4))
    to_do, time = check_time(experiment, {"evaluation": work})
    assert to_do.what == "to do: 1 network trained"
    return time.what


def test_the_time_told_is_a_range_of_timings_that_does_not_follow_the_load(
    healthy: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    idle, busy = (time_told(healthy, monkeypatch, [load]) for load in (1.0, 9.0))
    assert idle == busy
    assert "2 hours on this machine if nothing else runs on it" in idle
    assert "time: 2 to 4 hours" in time_told(healthy, monkeypatch, [1.0], [1.0, 1.5, 2.0])
    assert "no estimate" in time_told(healthy, monkeypatch, [1.0], [1.0, 1.5, 4.0])


def test_more_gpus_than_there_are_is_a_problem(healthy: Experiment) -> None:
    found = list(check_devices(replace(healthy, trainer={"devices": 4096, "accelerator": "gpu"})))
    assert [finding.level for finding in found if "4096" in finding.what] == ["problem"]
    assert all(finding.level == "ok" for finding in check_devices(healthy))


def test_more_threads_than_cores_is_a_warning(healthy: Experiment) -> None:
    found = list(check_devices(replace(healthy, jobs=4096)))
    assert [finding.level for finding in found if "4,096 processes" in finding.what] == ["warning"]
