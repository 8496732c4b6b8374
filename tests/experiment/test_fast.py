from dataclasses import replace
from pathlib import Path

import lightning.pytorch as pl
import pytest

from dgs_lightning.datamodules.latents import LatentDataModule
from dgs_lightning.datamodules.requests import RequestDataModule
from dgs_lightning.examples import QUIET, SILENT, write_dit, write_latents
from dgs_lightning.experiment import fast
from dgs_lightning.experiment.plan import Plan
from dgs_lightning.experiment.run import ExperimentRun
from dgs_lightning.experiment.settings import Experiment
from dgs_lightning.experiment.stage import Stage, stage_keys
from dgs_lightning.models.dit import network
from dgs_lightning.models.dit.network import DiT, DiTConfig
from dgs_lightning.tasks.diffusion import DiffusionTask, ModelSize
from dgs_lightning.tasks.generation import GenerationTask

EXACT = Experiment(
    title="small",
    methods=["random", "dm", "idc1", "dit", "minimax", "cao2", "mgd3", "igd"],
    ipc=10,
    networks=["convnet2"],
    draws=1,
    data="digits",
    prepare={},
    generate={"config": "generate/dit.yaml"},  # with a precision of its own
)
FAST = replace(EXACT, fast=True)


def planned(experiment: Experiment) -> dict[str, Stage]:
    return {stage.name: stage for stage in Plan(experiment).everything()}


def changed() -> set[str]:
    """The stages whose keys ``fast`` changes."""
    exact, other = (stage_keys(list(planned(experiment).values()), {}) for experiment in (EXACT, FAST))
    return {name for name, key in exact.items() if other[name] != key}


@pytest.fixture
def able(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor with instructions for bfloat16, and a compiler."""
    monkeypatch.setattr(fast, "instructions", lambda: "avx512_bf16")
    monkeypatch.setattr(fast, "compiler", lambda: "/usr/bin/g++")


@pytest.fixture
def unable(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor without them, and no compiler."""
    monkeypatch.setattr(fast, "instructions", lambda: "")
    monkeypatch.setattr(fast, "compiler", lambda: None)


@pytest.mark.usefixtures("able")
def test_fast_gives_each_task_of_the_dit_what_the_processor_can() -> None:
    found = {
        name: (stage.config["trainer"].get("precision"), stage.config["model"]["init_args"].get("compile"))
        for name, stage in planned(FAST).items()
        if "model" in stage.config
    }
    assert found["latents"] == ("bf16-mixed", None)
    assert found["pretrain"] == found["finetune"] == ("bf16-mixed", "long")
    assert found["pools/dit"] == found["pools/cao2"] == found["guided/mgd3-ipc10"] == ("bf16-true", "long")
    assert found["matched/dm-ipc10"] == ("bf16-mixed", None)
    assert found["matched/idc1-ipc10"] == (None, None)  # takes 32 bits alone
    assert found["refined/cao2-ipc10"] == found["guided/igd-ipc10"] == ("32-true", None)  # gradients stay exact
    others = {value for name, value in found.items() if name.startswith(("estimator", "evaluation", "scores"))}
    assert others == {(None, None)}


@pytest.mark.usefixtures("able")
def test_fast_changes_the_keys_of_the_stages_that_it_changes_and_of_those_that_need_them() -> None:
    names = changed()
    assert {"latents", "pretrain", "finetune", "pools/dit", "scores/dit", "distilled/dit-ipc10", "report"} <= names
    assert not names & {"data", "estimator/fold0", "scores/original", "distilled/random-ipc10"}


@pytest.mark.usefixtures("unable")
def test_fast_changes_nothing_where_there_is_nothing_to_take() -> None:
    assert changed() == set()


@pytest.mark.usefixtures("able")
def test_the_precision_that_the_user_names_for_all_stages_wins_over_fast() -> None:
    stage = planned(replace(FAST, trainer={"precision": "32-true"}))["pools/dit"]
    assert stage.config["trainer"]["precision"] == "32-true"


@pytest.mark.parametrize(
    ("flags", "found"),
    [("avx2 avx512_bf16 amx_bf16", "avx512_bf16, amx_bf16"), ("avx512_bf16x avx512f", ""), (None, "")],
)
def test_the_instructions_are_those_that_the_system_lists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str | None, found: str
) -> None:
    monkeypatch.setattr(fast, "CPU_INFO", tmp_path / "cpuinfo")
    if flags is not None:
        fast.CPU_INFO.write_text(f"model name\t: A\nflags\t\t: fpu {flags}\n\nflags\t\t: fpu {flags}\n")
    assert fast.instructions.__wrapped__() == found


def test_a_compiler_is_the_one_that_the_environment_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", str(tmp_path / "none"))
    assert fast.compiler.__wrapped__() is None


@pytest.mark.usefixtures("able")
@pytest.mark.parametrize(("experiment", "line"), [(EXACT, "--set fast=true may make"), (FAST, "fast=true: bfloat16")])
def test_the_first_line_of_a_run_says_what_fast_does_or_would_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, experiment: Experiment, line: str
) -> None:
    monkeypatch.setattr("dgs_lightning.commands.cli.check", lambda *_: None)
    run = ExperimentRun(replace(experiment, output=str(tmp_path), trainer={"accelerator": "cpu"}))
    said: list[str] = []
    monkeypatch.setattr(run, "_work", lambda *_: None)
    monkeypatch.setattr(run.progress, "say", said.append)
    monkeypatch.setattr("dgs_lightning.experiment.run.send_report", lambda *_: None)
    run.execute()
    assert said[0].startswith(line)
    assert "avx512_bf16" in said[0]


@pytest.mark.usefixtures("unable")
def test_a_processor_that_can_do_nothing_is_told_only_where_fast_is_set() -> None:
    assert fast.advice(planned(EXACT).values(), fast=False) == ""
    assert "changes nothing" in fast.advice(planned(FAST).values(), fast=True)


@pytest.mark.parametrize(("name", "published"), [("DiT-S/2", 6.06e9), ("DiT-XL/2", 118.64e9)])
def test_operations_of_a_forward_pass_are_those_of_the_publication(name: str, published: float) -> None:
    config = DiTConfig.named(name, input_size=32, num_classes=1000)
    assert config.operations / 2 == pytest.approx(published, rel=0.01)  # Peebles and Xie count a product and a sum as 1


@pytest.mark.parametrize(("least", "compiled"), [(0.0, True), (1e13, False)])
def test_what_is_compiled_where_it_is_long_is_so_in_training_and_in_generation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, least: float, compiled: bool
) -> None:
    calls: list[DiT] = []
    monkeypatch.setattr(network, "LONG", least)
    monkeypatch.setattr(DiT, "compile", lambda self: calls.append(self))
    trained = DiffusionTask(size=ModelSize(hidden_size=16, depth=1, num_heads=2), compile="long")
    trainer = pl.Trainer(**SILENT, max_steps=1, default_root_dir=tmp_path)
    trainer.fit(trained, LatentDataModule(write_latents(f"{tmp_path}/latents"), batch_size=4))
    generated = GenerationTask(write_dit(str(tmp_path)), steps=1, compile="long")
    pl.Trainer(**QUIET, default_root_dir=tmp_path).predict(generated, RequestDataModule(images_per_class=1))
    assert calls == ([trained.dit, generated.model] if compiled else [])
