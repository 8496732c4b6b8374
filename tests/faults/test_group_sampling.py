"""An inversion, or a generation from start latents, that is killed ends, started again, as if nothing had happened."""

import signal
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest
from tests.faults.conftest import Laboratory, Server

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.fault, pytest.mark.matrix]
CHANGES = ("methods=[d3hr]", "options.d3hr={index: 5, groups: 50, model: {init_args: {steps: 10}}}")


@pytest.fixture(scope="module")
def drawing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laboratory]:
    """A laboratory with the stages of D3HR."""
    server = Server()
    yield Laboratory(server, tmp_path_factory.mktemp("drawing"), CHANGES)
    server.end()


@pytest.mark.parametrize("stage", ["inverted/d3hr-ipc2", "centers/d3hr-ipc2", "guided/d3hr-ipc2"])
def test_a_killed_stage_ends_like_the_undisturbed_one(
    drawing: Laboratory, output: "Path", stage: str, record_property: Callable[[str, object], None]
) -> None:
    child = drawing.start(drawing.before(stage, output))
    child.reach(stage, 0.5 * drawing.seconds[stage])
    _, log = child.kill(signal.SIGKILL)
    assert "Traceback" not in log
    drawing.check(output)
    record_property("fault", "group sampling")
