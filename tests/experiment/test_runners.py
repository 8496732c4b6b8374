"""The processes of a run end with it, and leave nothing behind."""

import os
import signal
import subprocess
import sys

import pytest

# A run whose stage never ends; the preloaded module is a small one.
RUN = """
import time
from multiprocessing.context import ForkServerContext
from dgs_lightning import __main__
from dgs_lightning.experiment import runners

def run(command, args):
    with runners.process_pool(1, print) as pool:
        pool._workers.submit(time.sleep, 600)
        while not pool._workers._processes:
            time.sleep(0.01)
        print("at work", flush=True)
        time.sleep(600)

if __name__ == "__main__":
    ForkServerContext.set_forkserver_preload = lambda self, modules: None
    __main__.dispatch = run
    raise SystemExit(__main__.main(["run"]))
"""


@pytest.mark.parametrize("whole", [False, True], ids=["the run alone", "all its processes"])
def test_a_terminal_that_is_closed_ends_a_run_without_semaphores_left_behind(whole: bool) -> None:
    run = subprocess.Popen(
        [sys.executable, "-c", RUN], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert run.stdout is not None
    assert run.stdout.readline() == "at work\n"
    (os.killpg if whole else os.kill)(run.pid, signal.SIGHUP)
    _, told = run.communicate(timeout=300)
    assert told == "dgs run: hung up; the same command continues\n"
    assert run.returncode == 128 + signal.SIGHUP
