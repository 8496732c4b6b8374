"""Each program in its smallest form. Where both sides make the same, it stops by itself if they do not."""

import pytest
import stage_order
from run_all import run

from dgs_lightning.experiment.run import ExperimentRun

RATES = {"images_per_second", "reference_images_per_second", "ratio"}


@pytest.mark.parametrize("preset", ["released", "paper"])
def test_the_plain_reference_chooses_the_same_images(preset: str) -> None:
    figures = run("selection.py", f"--preset {preset} --classes 5 --originals 300 --references 2")
    assert set(figures) == {"seconds", "reference_seconds_per_class", "seconds_per_class", "ratio", "peak_mb"}
    assert figures["ratio"] > 10


def test_the_plain_reference_makes_the_same_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # in bfloat16 they are others
    figures = run("generation.py", "--images 20 --repetitions 1")
    assert set(figures) == RATES | {"difference"}
    assert figures["ratio"] > 1
    assert figures["difference"] < 0.1  # of 255 grey levels


def test_the_plain_reference_finds_the_same_latents() -> None:
    figures = run("encoding.py", "--images 20 --repetitions 1")
    assert set(figures) == RATES | {"difference"}
    assert figures["difference"] < 1e-3  # of the latents


def test_the_plain_reference_finds_the_same_difficulties() -> None:
    figures = run("scoring.py", "--images 500 --repetitions 1")
    assert set(figures) == RATES | {"largest_difference"}
    assert figures["largest_difference"] < 1e-6


@pytest.mark.parametrize("part", ["selection", "centers"])
def test_a_part_of_imagenet_is_measured_at_a_few_classes(part: str) -> None:
    figures = run("imagenet_scale.py", f"--part {part} --classes 2")
    assert set(figures) == {"seconds_2", "peak_mb_2", "disk_mb_2"}
    # 50 centres of 4 x 32 x 32 float32 numbers of the one class; a report and 100 small PNG files
    low, high = {"centers": (0.8192, 0.83), "selection": (0.01, 0.2)}[part]
    assert low < figures["disk_mb_2"] < high


def test_steps_of_fine_tuning_are_timed_beside_a_plain_loop() -> None:
    figures = run("finetune.py", "--size digits --batch 16 --memory 8 --steps 3")
    assert {"ms_per_step", "reference_ms_per_step", "ratio", "lightning_overhead"} <= figures.keys()
    assert figures["ratio"] == pytest.approx(figures["reference_ms_per_step"] / figures["ms_per_step"])


@pytest.mark.parametrize("method", ["dm", "idc1"])
def test_the_plain_reference_moves_the_images_by_the_same_step(method: str) -> None:
    figures = run("matching.py", f"--method {method} --ipc 2 --steps 1")
    assert set(figures) == {"ms_per_step", "reference_ms_per_step", "ratio"}
    assert figures["ratio"] == pytest.approx(figures["reference_ms_per_step"] / figures["ms_per_step"])


@pytest.mark.slow
def test_a_step_class_by_class_needs_less_memory() -> None:
    figures = run("matching.py", "--peak --size imagenet --ipc 1")
    assert set(figures) == {"peak_mb", "reference_peak_mb", "ratio"}
    assert figures["ratio"] > 1


def test_the_plan_of_1000_classes_is_counted_without_its_data() -> None:
    figures = run("launchers.py", "--plan imagenet1k")
    # 8 methods, 2 IPCs and 3 draws are 48 trainings; generation by a fine-tuned DiT has the longest chain:
    # latents, fine-tuning, pool, scores, selection, training, report
    assert (figures["trainings"], figures["longest_chain"]) == (48, 7)


def test_a_form_of_resnet_50_has_the_difficulties_of_the_network_as_it_is_loaded() -> None:
    figures = run("scoring_forms.py", "--form channels_last fused --batch-size 1 --repetitions 1")
    assert 0 <= figures["largest_difference"] < 1e-3
    assert figures["ratio"] == pytest.approx(figures["images_per_second"] / figures["reference_images_per_second"])


@pytest.mark.slow
def test_training_is_timed_beside_a_plain_loader() -> None:
    figures = run("evaluation.py", "--size 32 --networks convnet1 --epochs 3 --repetitions 1")
    assert figures.keys() == RATES
    assert figures["ratio"] > 1


def test_a_run_on_two_jobs_lasts_at_least_half_of_its_stages_in_any_order() -> None:
    figures = run("stage_order.py", "--jobs 1 2")
    for name in ("plan", "own", "known"):
        assert figures[f"{name}_1"] == pytest.approx(figures["plan_1"])  # one after the other
        assert figures["plan_1"] / 2 <= figures[f"{name}_2"] < figures["plan_1"]
    assert figures["own_saved_2"] == pytest.approx(1 - figures["own_2"] / figures["plan_2"])
    assert figures["own_saved_2"] > 0  # what the order is for


def test_runs_in_both_orders_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    orders = []
    monkeypatch.setattr(ExperimentRun, "execute", lambda self: orders.append(self.in_order is list))
    figures = stage_order.measure("quickstart", 2, 2)
    assert orders == [True, False, False, True]
    assert figures.keys() == {"plan_2", "own_2", "own_saved_2"}
