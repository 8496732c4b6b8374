"""A refinement that is killed, cut off or damaged ends, started again, as if nothing had happened."""

import signal
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest
from tests.faults.conftest import Laboratory, Server
from tests.faults.test_full_disk import ends_in_words

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.fault, pytest.mark.matrix]
STAGE = "refined/cao2-ipc2"


@pytest.fixture(scope="module")
def refining(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laboratory]:
    """A laboratory with both stages of CaO2."""
    server = Server()
    yield Laboratory(server, tmp_path_factory.mktemp("refining"), ("methods=[cao2]",))
    server.end()


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("moment", [0.2, 0.8])
def test_a_killed_refinement_ends_like_the_undisturbed_one(
    refining: Laboratory,
    output: "Path",
    by: signal.Signals,
    moment: float,
    record_property: Callable[[str, object], None],
) -> None:
    child = refining.start(refining.before(STAGE, output))
    child.reach(STAGE, moment * refining.seconds[STAGE])
    _, log = child.kill(by)
    assert "Traceback" not in log
    refining.check(output)
    record_property("fault", "refinement")


def test_a_file_that_the_system_cuts_off_is_no_refined_image(
    refining: Laboratory, output: "Path", record_property: Callable[[str, object], None]
) -> None:
    refining.before(STAGE, output)
    ends_in_words(*refining.run(output, file_bytes=refining.largest_file(STAGE) - 1))
    refining.check(output)
    record_property("fault", "refinement")


def test_a_lost_image_is_refined_again(
    refining: Laboratory, output: "Path", record_property: Callable[[str, object], None]
) -> None:
    refining.without("report", output)
    next((output / STAGE).glob("1/*.png")).unlink()
    refining.check(output)
    record_property("fault", "refinement")
