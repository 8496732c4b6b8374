"""A run of IGD that is killed ends, started again, as if nothing had happened: images depend on earlier ones."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.faults.conftest import Laboratory, Server

pytestmark = [pytest.mark.fault, pytest.mark.matrix]
SURROGATE = """
base: classify/surrogate_digits
trainer: {max_epochs: 4, callbacks: [{class_path: EpochCheckpoint, init_args: {minutes: 0}}]}
"""


@pytest.fixture(scope="module")
def influenced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laboratory]:
    server, folder = Server(), tmp_path_factory.mktemp("influenced")
    (folder / "surrogate.yaml").write_text(SURROGATE)
    changes = (
        "methods=[igd]",
        "networks=[]",
        f"options.igd={{config: {folder / 'surrogate.yaml'}, first: 8, last: 4}}",
    )
    yield Laboratory(server, folder, changes)
    server.end()


@pytest.mark.parametrize(("kind", "stage"), [("surrogate", "surrogate"), ("generation", "guided/igd-ipc2")])
@pytest.mark.parametrize("moment", [0.2, 0.5, 0.8])
def test_a_killed_run_of_igd_ends_like_the_undisturbed_one(
    influenced: Laboratory,
    output: Path,
    kind: str,
    stage: str,
    moment: float,
    record_property: Callable[[str, object], None],
) -> None:
    child = influenced.start(influenced.before(stage, output))
    child.reach(stage, moment * influenced.seconds[stage])
    _, log = child.kill(signal.SIGKILL)
    assert "Traceback" not in log
    influenced.check(output)
    record_property("fault", kind)
