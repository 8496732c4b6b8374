import ctypes
import resource
import subprocess
import sys

import pytest

from dgs_lightning.commands.process import MMAP_THRESHOLD, keep_freed_memory

COUNT_FAULTS = """
import resource
import torch
from dgs_lightning.commands.process import keep_freed_memory
{call}
for step in range(8):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    activations = [torch.ones(10_000_000) for _ in range(4)]
    del activations
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
PAGES = 4 * 40_000_000 // resource.getpagesize()  # that a step touches


@pytest.mark.skipif(sys.platform != "linux", reason="the setting is glibc's")
@pytest.mark.parametrize(("call", "faults"), [("", "all"), ("keep_freed_memory()", "none")])
def test_the_memory_of_one_step_serves_the_next_without_page_faults(call: str, faults: str) -> None:
    script = COUNT_FAULTS.format(call=call)
    counted = int(subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout)
    assert counted > 0.9 * PAGES if faults == "all" else counted < 0.1 * PAGES


@pytest.mark.skipif(sys.platform != "linux", reason="the setting is glibc's")
def test_an_old_glibc_gets_the_most_that_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []

    class OldGlibc:
        def mallopt(self, parameter: int, value: int) -> bool:
            fits = parameter != MMAP_THRESHOLD or value <= 32 * 1024 * 1024
            taken.append((parameter, fits))
            return fits

    monkeypatch.setattr(ctypes, "CDLL", lambda _: OldGlibc())
    keep_freed_memory()
    assert (MMAP_THRESHOLD, True) in taken
