import subprocess
import sys

import pytest
from tests import waiting
from tests.waiting import cpu_time_of, wait_until


def test_a_wait_lasts_as_long_as_there_is_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "SILENCE", 0.0)
    steps = iter(range(10))
    wait_until(lambda: next(steps) == 9, iter(range(100)).__next__)


def test_a_wait_for_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "SILENCE", 0.0)
    with pytest.raises(TimeoutError, match="nothing has changed"):
        wait_until(lambda: False, lambda: 1)


def test_a_wait_for_a_process_that_has_ended_is_given_up() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        with pytest.raises(AssertionError, match="ended too early"):
            wait_until(lambda: False, lambda: cpu_time_of(process.pid))
        process.wait()
