"""Waiting for other processes on a machine that may be busy: for as long as they get on, however slowly."""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

SILENCE = 1200.0  # seconds without any change after which nothing more is expected


def wait_until(condition: Callable[[], bool], progress: Callable[[], object], every: float = 0.005) -> None:
    """Wait until a condition holds.

    Args:
        condition: What is waited for.
        progress: Anything that changes as long as there is progress towards it. It may raise an error to give up.
        every: Seconds between two looks.

    Raises:
        TimeoutError: If nothing has changed for very long.
    """
    state, since = progress(), time.monotonic()
    while not condition():
        time.sleep(every)
        if (now := progress()) != state:
            state, since = now, time.monotonic()
        elif time.monotonic() - since > SILENCE:
            raise TimeoutError(f"nothing has changed for {SILENCE:.0f} s; it stands at {state}")


def cpu_time(processes: list[int]) -> dict[int, int]:
    """Processor time that each of some processes has used, in ticks of the clock."""
    used = {}
    for process in processes:
        with suppress(OSError):
            user, system = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11:13]
            used[process] = int(user) + int(system)
    return used


def cpu_time_of(process: int) -> int:
    """Processor time of one process that still runs.

    Raises:
        AssertionError: If it has ended.
    """
    assert os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None, "the process ended too early"
    return cpu_time([process])[process]
