import resource
import subprocess
import sys

import pytest

COUNT_FAULTS = """
import resource
import torch
from dgs_lightning.models.allocator import keep_freed_memory
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
