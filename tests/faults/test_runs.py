"""Runs that meet: changed settings between two, two at once, several processes of one, and one taken from it."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.faults.conftest import Laboratory

pytestmark = [pytest.mark.fault, pytest.mark.matrix]

CHANGES = {
    "estimator/fold1": ("estimator", "cross_fit.trainer.max_epochs=2"),
    "latents": ("latents", "latents.model.init_args.flips=true"),
    "pretrain": ("pretrain", "pretrain.model.init_args.optimizer.learning_rate=0.002"),
    "finetune": ("finetune", "finetune.model.init_args.criteria.diversity=0.1"),
    "pools/minimax": ("generation", "generate.model.init_args.guidance_scale=3.0"),
    "scores/original": ("scores", "score.model.init_args.definition=margin"),
    "distilled/minimax_dgs-ipc2": ("select", "select.smoothing=none"),
    "evaluation/minimax_dgs-ipc2/convnet2/seed0": ("evaluation", "evaluate.trainer.max_steps=20"),
    "matched/dm-ipc2": ("matched", "options.dm.model.init_args.images.lr=2"),
    "matched/idc1-ipc2": ("matched", "options.idc1.model.init_args.training.rounds=5"),
    "crops": ("crops", "options.rded.mipc=8"),
    "stitched/rded-ipc2": ("stitch", "options.rded.quality=75"),
}


@pytest.mark.parametrize("stage", CHANGES)
def test_a_setting_that_was_changed_and_changed_back_leaves_no_trace(
    laboratory_of: Callable[[str], "Laboratory"],
    output: Path,
    stage: str,
    record_property: Callable[[str, object], None],
) -> None:
    """Killed within a stage, then within the same stage with another setting, then run as at first."""
    kind, change = CHANGES[stage]
    laboratory = laboratory_of(kind)
    for changes in ((), (change,)):
        child = laboratory.start(laboratory.before(stage, output) if not changes else output, *changes)
        child.reach(stage, 0.5 * laboratory.seconds[stage])
        child.kill(signal.SIGKILL)
    laboratory.check(output)
    record_property("fault", kind)


@pytest.mark.parametrize(("kind", "stage"), [("finetune", "finetune"), ("generation", "pools/minimax")])
def test_a_second_run_in_the_same_folder_is_turned_away(
    laboratory: "Laboratory", output: Path, kind: str, stage: str, record_property: Callable[[str, object], None]
) -> None:
    first = laboratory.start(laboratory.before(stage, output))
    first.reach(stage)
    os.kill(first.pid, signal.SIGSTOP)  # it stays in the stage while the second looks
    code, log = laboratory.run(output)
    os.kill(first.pid, signal.SIGCONT)
    assert (code, log.count("\n")) == (2, 1)
    assert f"dgs run: {output}: found another run that writes into it" in log
    assert "Wait until that run ends" in log
    assert first.end()[0] == 0
    laboratory.check(output)
    record_property("fault", kind)


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda by: by.name)
@pytest.mark.parametrize(("kind", "stage"), [("finetune", "finetune"), ("generation", "pools/minimax")])
def test_a_run_of_two_jobs_takes_its_processes_along(
    laboratory: "Laboratory",
    output: Path,
    kind: str,
    stage: str,
    by: signal.Signals,
    record_property: Callable[[str, object], None],
) -> None:
    child = laboratory.start(laboratory.before(stage, output), "jobs=2")
    child.reach(stage, 0.3 * laboratory.seconds[stage])
    code, log = child.kill(by)
    assert code == {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}[by], log
    assert "Traceback" not in log
    laboratory.check(output)
    record_property("fault", kind)


def test_a_worker_that_is_killed_is_told_in_one_line(
    laboratory: "Laboratory", output: Path, record_property: Callable[[str, object], None]
) -> None:
    """As the system does it when memory runs out."""
    child = laboratory.start(laboratory.before("finetune", output), "jobs=2")
    child.reach("finetune", 0.5 * laboratory.seconds["finetune"])
    os.kill(child.largest_worker(), signal.SIGKILL)
    code, log = child.end()
    assert code == 2, log
    assert "Traceback" not in log
    assert "found a process of the run that was killed from outside" in log
    laboratory.check(output)
    record_property("fault", "finetune")
