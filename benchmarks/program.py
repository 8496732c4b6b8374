"""The command line that the benchmarks share, and the figures that they print."""

import argparse
import json
import re
from collections.abc import Mapping
from pathlib import Path

Figures = Mapping[str, float]


def parser(documentation: str | None) -> argparse.ArgumentParser:
    """A parser with ``--json`` that shows a program's documentation as its help."""
    made = argparse.ArgumentParser(description=documentation, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--json", action="store_true", help="print the figures as JSON")
    return made


def rates(own: float, reference: float) -> dict[str, float]:
    """The figures of two rates of images a second."""
    return {"images_per_second": own, "reference_images_per_second": reference, "ratio": own / reference}


def show(figures: Figures, as_json: bool) -> None:
    """Print figures, one a line or as JSON."""
    if as_json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:28} {value:.4g}")


def peak_mb() -> float:
    """Most memory so far, in megabytes; the operating system's own account begins with that of the parent process."""
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert peak is not None
    return int(peak[1]) * 1024 / 1e6
