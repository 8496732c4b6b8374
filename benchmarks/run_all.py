"""Runs all benchmarks and writes what they measured to ``docs/benchmarks.md`` and ``docs/images/growth.png``.

    python benchmarks/run_all.py [--short] [--output docs]

Each run of a program is a process of its own, one after the other; on two cores, on which nothing else should run, all
take about 12 minutes. ``--short`` measures very little: it tries the way from the programs to the page.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
from page import draw_growth, page
from program import Figures
from topics import TOPICS, Measured, Topic

from dgs_lightning.data.cards import versions
from dgs_lightning.files import write_text

PROGRAMS = Path(__file__).parent


@cache  # some case may also be one of its topic's growth
def run(program: str, options: str) -> Figures:
    """The figures that a program prints with some options."""
    start = time.monotonic()
    command = [sys.executable, str(PROGRAMS / program), *options.split(), "--json"]
    answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    print(f"{time.monotonic() - start:5.0f} s  {program} {options}", file=sys.stderr)
    figures: Figures = json.loads(answer.stdout.splitlines()[-1])
    return figures


def measure(topic: Topic, short: bool) -> Measured:
    """Run a topic's program in all its cases, and over what grows."""
    shorter = f" {topic.short}" if short else ""
    cases = {case: run(topic.program, options + shorter) for case, options in topic.cases.items()}
    if (growth := topic.growth) is None:
        return Measured(topic, cases)
    values = growth.values[:2] if short else growth.values
    each = {value: f"{growth.others}{shorter} {growth.option} {value}" for value in values}
    return Measured(topic, cases, {value: run(topic.program, options) for value, options in each.items()})


def machine() -> dict[str, str]:
    """What figures depend on besides the programs."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return {
        "processor": processor(Path("/proc/cpuinfo").read_text(encoding="utf-8")),
        "cores": str(len(os.sched_getaffinity(0))),
        "threads": str(torch.get_num_threads()),
        "memory": f"{memory:.1f} GiB",
        **({"GPU": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}),
        **versions(),
    }


def processor(cpuinfo: str) -> str:
    """The processor's name as the system gives it; its architecture where it gives none."""
    names = [line.partition(":")[2].strip() for line in cpuinfo.splitlines() if line.startswith("model name")]
    return names[0] if names else platform.machine()


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="measure very little")
    parser.add_argument("--output", type=Path, default=PROGRAMS.parent / "docs", help="folder of the page")
    args = parser.parse_args(argv)
    measured = [measure(topic, args.short) for topic in TOPICS]
    draw_growth(measured, args.output / "images" / "growth.png")
    write_text(args.output / "benchmarks.md", page(measured, machine(), args.short))


if __name__ == "__main__":
    main()
