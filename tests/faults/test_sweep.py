"""Each system call by which a stage changes the run's folder fails once; run again, all ends as if nothing had been.

The sweep over all calls runs with ``-m sweep`` (``make test-sweep``). What has passed is remembered in the cache of
pytest for as long as the code stays the same, so that a sweep that was stopped goes on where it was.
"""

import hashlib
import random
import re
import shutil
from collections import defaultdict
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest
from tests.faults.calls import FAULTS, Fault, Watch
from tests.faults.conftest import ROOT, Laboratory, is_log

pytestmark = pytest.mark.fault

STAGES = {
    "data": "prepare",
    "estimator/fold0": "estimator",
    "estimator/fold1": "estimator",
    "scores/original": "scores",
    "latents": "latents",
    "pretrain": "pretrain",
    "finetune": "finetune",
    "centers/dag-ipc1": "centers",
    "guided/dag-ipc1": "generation",
    "scores/dag-ipc1": "scores",
    "distilled/dag-ipc1": "select",
    "evaluation/dag-ipc1/convnet2/seed0": "evaluation",
    "report": "report",
    "matched/dm-ipc1": "matched",
    "matched/idc1-ipc1": "matched",
    "crops": "crops",
    "stitched/rded-ipc1": "stitch",
}
FIRST_OF_KIND = [stage for stage, kind in STAGES.items() if kind not in list(STAGES.values())[: [*STAGES].index(stage)]]
SWEEPS = [
    pytest.param(stage, fault, marks=pytest.mark.xdist_group(stage))
    for stage in STAGES
    for fault in FAULTS
    if fault == "SIGKILL" or stage in FIRST_OF_KIND
]
RECOVERED = defaultdict[str, set[str]](set)  # states of a stage from which the same command ended as it should


def code() -> str:
    """Hash of all that a sweep depends on."""
    parts = [path for part in ("src", "configs", "tests/faults") for path in sorted((ROOT / part).rglob("*.[pyc]*"))]
    digest = hashlib.sha256()
    for path in parts:
        if path.is_file() and path.suffix in (".py", ".yaml", ".csv"):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def state(output: Path) -> str:
    """Hash of all names and bytes in a folder, without logs, which hold times."""
    digest = hashlib.sha256()
    for path in sorted(output.rglob("*")):
        name = re.sub(r"tfevents\S*", "tfevents", path.relative_to(output).as_posix())
        digest.update(f"{name}\0".encode())
        if path.is_file() and not is_log(path.name):
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


class Sweep:
    """Disturbed runs of one stage.

    Args:
        laboratory: Where they start from.
        stage: The stage.
        fault: What disturbs them.
        output: Folder for them, one after another.
    """

    def __init__(self, laboratory: Laboratory, stage: str, fault: Fault, output: Path) -> None:
        self.laboratory = laboratory
        self.stage = stage
        self.fault = fault
        self.output = output
        self.recovered = RECOVERED[stage]

    def calls(self) -> int:
        """Calls of the undisturbed stage that can have the fault."""
        watch = Watch(self.laboratory.without(self.stage, self.output), fault=self.fault)
        code, log = self.laboratory.watched(watch, self.output)
        assert code == 0, log
        shutil.rmtree(self.output)
        return len(watch.calls)

    def disturb(self, number: int) -> bool:
        """Disturb the stage at a call, and run it again; false if it has fewer calls.

        Raises:
            AssertionError: If it ends in other words or other bytes than it should.
        """
        watch = Watch(self.laboratory.without(self.stage, self.output), number, self.fault)
        try:
            code, log = self.laboratory.watched(watch, self.output)
            if watch.hit is None:
                assert code == 0, log
                return False
            where = f"call {number} ({watch.hit.does} {watch.hit.file})"
            assert "Traceback" not in log, f"{where}: {log}"
            if self.fault.kills:
                assert code == -9, f"{where}: {log}"
            elif code:  # a call may fail whose result nobody needs
                assert code == 2, f"{where}: {log}"
                assert log.rstrip().rsplit("\n", 1)[-1].startswith("dgs run: "), f"{where}: {log}"
            if (left := state(self.output)) not in self.recovered:
                try:
                    self.laboratory.check(self.output)
                except AssertionError as error:
                    raise AssertionError(f"after {where}: {error}") from None
                self.recovered.add(left)
            return True
        finally:
            shutil.rmtree(self.output, ignore_errors=True)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_call_that_fails_is_overcome(
    smallest_of: Callable[[str], Laboratory],
    tmp_path: Path,
    fault: str,
    record_property: Callable[[str, object], None],
) -> None:
    """One call for each fault, of a stage and at a place drawn from a seed."""
    draw = random.Random(f"sample {fault}")
    stage = draw.choice([*STAGES])
    sweep = Sweep(smallest_of(STAGES[stage]), stage, FAULTS[fault], tmp_path / "run")
    assert sweep.disturb(1 + int(draw.random() * sweep.calls()))
    record_property("fault", STAGES[stage])


@pytest.mark.sweep
@pytest.mark.timeout(0)
@pytest.mark.parametrize(("stage", "fault"), SWEEPS)
def test_every_call_of_a_stage_that_fails_is_overcome(
    smallest_of: Callable[[str], Laboratory],
    tmp_path: Path,
    stage: str,
    fault: str,
    pytestconfig: pytest.Config,
    record_property: Callable[[str, object], None],
) -> None:
    assert pytestconfig.cache is not None
    remembered = f"sweep/{code()}/{fault} {stage.replace('/', ' ')}"
    calls = pytestconfig.cache.get(remembered, 0)
    if not calls:
        sweep = Sweep(smallest_of(STAGES[stage]), stage, FAULTS[fault], tmp_path / "run")
        failures = []
        for number in count(1):
            try:
                if not sweep.disturb(number):
                    break
                calls = number
            except AssertionError as error:
                failures.append(str(error))
        assert not failures, "\n\n".join([f"{len(failures)} calls", *failures])
        pytestconfig.cache.set(remembered, calls)
    record_property("fault", (f"{STAGES[stage]} by {fault}", calls))
