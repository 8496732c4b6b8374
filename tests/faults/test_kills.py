"""A run that is killed or terminated within any of its stages ends, started again, as if nothing had happened."""

import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.faults.conftest import Laboratory

pytestmark = pytest.mark.fault

STAGES = {
    "prepare": ["data"],
    "estimator": ["estimator/fold1"],
    "latents": ["latents"],
    "pretrain": ["pretrain"],
    "finetune": ["finetune"],
    "generation": ["pools/minimax", "guided/dag-ipc2"],
    "scores": ["scores/original", "scores/minimax"],
    "select": ["distilled/minimax_dgs-ipc2"],
    "evaluation": ["evaluation/minimax_dgs-ipc2/convnet2/seed0"],
    "report": ["report"],
    "matched": ["matched/dm-ipc2", "matched/idc1-ipc2"],
    "crops": ["crops"],
    "stitch": ["stitched/rded-ipc2"],
}
MANY = ("finetune", "generation")  # stages that are killed six times by each signal, the others twice
SHORT = {
    ("finetune", signal.SIGKILL),
    ("generation", signal.SIGTERM),
    ("scores", signal.SIGTERM),
    ("matched", signal.SIGKILL),
}


def moments() -> list[object]:
    """Signals and moments, as parts of a stage's time, drawn from a seed."""
    cases: list[object] = []
    for kind, stages in STAGES.items():
        for by in (signal.SIGKILL, signal.SIGTERM):
            for number in range(6 if kind in MANY else 2):
                moment = round(random.Random(f"{kind} {by.name} {number}").uniform(0, 0.9), 2)
                marks = [] if number == 0 and (kind, by) in SHORT else [pytest.mark.matrix]
                stage = stages[number % len(stages)]
                cases.append(pytest.param(kind, stage, by, moment, id=f"{kind}-{by.name}-{moment}", marks=marks))
    return cases


@pytest.mark.parametrize(("kind", "stage", "by", "moment"), moments())
def test_a_killed_run_ends_like_the_undisturbed_one(
    laboratory_of: Callable[[str], "Laboratory"],
    output: Path,
    kind: str,
    stage: str,
    by: signal.Signals,
    moment: float,
    record_property: Callable[[str, object], None],
) -> None:
    laboratory = laboratory_of(kind)
    for number, earlier in enumerate((1, 0.7, 0.4, 0.2, *[0] * 20)):  # a busy machine may look too late
        child = laboratory.start(laboratory.before(stage, output / str(number)))
        within = child.reach(stage, moment * earlier * laboratory.seconds[stage])
        code, log = child.kill(by)
        if within and child.record(stage) == "running":
            break
    else:
        pytest.fail(f"{stage} is too short to be killed within")
    assert code == (-by if by == signal.SIGKILL else 128 + by), log
    assert "Traceback" not in log
    laboratory.check(child.output)
    record_property("fault", kind)
