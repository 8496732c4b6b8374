"""An import that is killed, cut off or damaged ends, started again, as if nothing had happened."""

import signal
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import pytest
from sklearn.datasets import load_digits
from tests.faults.conftest import Laboratory, Server
from tests.faults.test_full_disk import ends_in_words

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.fault, pytest.mark.matrix]
STAGE = "imported/theirs"


@pytest.fixture(scope="module")
def importing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laboratory]:
    """A laboratory with a set of other people: the last two images of each of four digits."""
    folder, digits = tmp_path_factory.mktemp("importing"), load_digits()
    taken = [place for label in range(4) for place in np.flatnonzero(digits.target == label)[-2:]]
    np.savez(folder / "set.npz", images=digits.images[taken, None] / 16, labels=digits.target[taken])
    server = Server()
    yield Laboratory(server, folder, ("methods=['set:theirs']", f"sets.theirs.path={folder / 'set.npz'}"))
    server.end()


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("moment", [0.2, 0.8])
def test_a_killed_import_ends_like_the_undisturbed_one(
    importing: Laboratory,
    output: "Path",
    by: signal.Signals,
    moment: float,
    record_property: Callable[[str, object], None],
) -> None:
    child = importing.start(importing.before(STAGE, output))
    child.reach(STAGE, moment * importing.seconds[STAGE])
    _, log = child.kill(by)
    assert "Traceback" not in log
    importing.check(output)
    record_property("fault", "import")


def test_a_file_that_the_system_cuts_off_is_no_imported_image(
    importing: Laboratory, output: "Path", record_property: Callable[[str, object], None]
) -> None:
    importing.before(STAGE, output)
    ends_in_words(*importing.run(output, file_bytes=importing.largest_file(STAGE) - 1))
    importing.check(output)
    record_property("fault", "import")


def test_a_lost_image_is_imported_again(
    importing: Laboratory, output: "Path", record_property: Callable[[str, object], None]
) -> None:
    importing.without("report", output)
    next((output / STAGE).glob("1/*.png")).unlink()
    importing.check(output)
    record_property("fault", "import")
