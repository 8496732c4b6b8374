"""Runs benchmarks, and writes what they measured to ``docs/benchmarks.md`` and ``docs/images/growth.png``.

    python benchmarks/run_all.py [--only TOPIC ...] [--cases CASE ...] [--list] [--short] [--output docs]

Each run of a program is a process of its own, one after the other; nothing else should run beside. What a topic
measured is kept in ``measured.json``, with the machine and the versions. ``--only`` measures some topics: the page
shows the others as they were measured last. ``--cases`` measures some of their cases: the others stay if they were
measured on the same machine with the same versions. ``--list`` names topics and cases. ``--short`` measures very little
and keeps nothing: it tries the way from the programs to the page.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from page import draw_growth, page
from program import Figures
from topics import TOPICS, Measured, Topic

from dgs_lightning.data.cards import versions
from dgs_lightning.files import write_json, write_text

PROGRAMS = Path(__file__).parent
KEPT = PROGRAMS / "measured.json"


@cache  # some case may also be one of its topic's growth
def run(program: str, options: str) -> Figures:
    """The figures that a program prints with some options."""
    start = time.monotonic()
    command = [sys.executable, str(PROGRAMS / program), *options.split(), "--json"]
    answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    print(f"{time.monotonic() - start:5.0f} s  {program} {options}", file=sys.stderr)
    figures: Figures = json.loads(answer.stdout.splitlines()[-1])
    return figures


def measure(topic: Topic, short: bool, only: Sequence[str] = ()) -> Measured:
    """Run a topic's program in all its cases, and over what grows; or only in the cases whose names begin so."""
    shorter = f" {topic.short}" if short else ""
    wanted = {case: options for case, options in topic.cases.items() if not only or case.startswith(tuple(only))}
    if short:  # the first says whether the program works
        wanted = dict(list(wanted.items())[:1])
    cases = {case: run(topic.program, options + shorter) for case, options in wanted.items()}
    if (growth := topic.growth) is None or only:
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


def kept(measured: Measured) -> dict[str, Any]:
    """What is kept of a topic."""
    growth = {str(value): figures for value, figures in measured.growth.items()}
    return {"on": dict(measured.on), "cases": dict(measured.cases), "growth": growth}


def from_kept(topic: Topic, kept: Mapping[str, Any]) -> Measured:
    """A topic as it was measured last: the cases and values that it still has."""
    values = topic.growth.values if topic.growth else ()
    growth = {value: kept["growth"][str(value)] for value in values if str(value) in kept.get("growth", {})}
    cases = {case: kept["cases"][case] for case in topic.cases if case in kept.get("cases", {})}
    return Measured(topic, cases, growth, kept.get("on", {}))


def renewed(old: Measured, new: Measured, on: Mapping[str, str]) -> Measured:
    """What was measured now, with the cases of earlier that were measured on the same machine with the same versions.

    Cases stay in the order of the topic.
    """
    if old.on != on:
        return replace(new, on=on)
    cases = {case: {**old.cases, **new.cases}[case] for case in new.topic.cases if case in {**old.cases, **new.cases}}
    return Measured(new.topic, cases, {**old.growth, **new.growth}, on)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    titles = [topic.title.lower() for topic in TOPICS]
    parser.add_argument("--only", nargs="*", choices=titles, help="topics to measure; none: write the page alone")
    parser.add_argument("--cases", nargs="+", default=[], help="beginnings of the names of the cases to measure")
    parser.add_argument("--list", action="store_true", help="print topics and cases")
    parser.add_argument("--short", action="store_true", help="measure very little")
    parser.add_argument("--output", type=Path, default=PROGRAMS.parent / "docs", help="folder of the page")
    args = parser.parse_args(argv)
    if args.list:
        print(*(f"{topic.title.lower()}: {', '.join(topic.cases)}" for topic in TOPICS), sep="\n")
        return
    chosen = titles if args.only is None else args.only
    before = json.loads(KEPT.read_text(encoding="utf-8"))
    results = []
    for topic in TOPICS:
        result = from_kept(topic, before.get(topic.title, {}))
        if topic.title.lower() in chosen:
            result = renewed(result, measure(topic, args.short, args.cases), machine())
            if not args.short:  # after each topic, so that a stopped run loses one at most
                before[topic.title] = kept(result)
                write_json(KEPT, before)
        results.append(result)
    draw_growth(results, args.output / "images" / "growth.png")
    write_text(args.output / "benchmarks.md", page(results, args.short))


if __name__ == "__main__":
    main()
