"""The command line that the benchmarks share, and the figures that they print."""

import argparse
import json
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

Figures = Mapping[str, float]


def parser(documentation: str | None) -> argparse.ArgumentParser:
    """A parser with ``--json`` that shows a program's documentation as its help."""
    made = argparse.ArgumentParser(description=documentation, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--json", action="store_true", help="print the figures as JSON")
    return made


def rate_parser(
    documentation: str | None, sizes: Collection[str], size: str, precisions: Sequence[str], batch_size: int
) -> argparse.ArgumentParser:
    """A parser of the programs that measure images a second; ``size`` and the first of the precisions are defaults."""
    made = parser(documentation)
    made.add_argument("--size", choices=list(sizes), default=size)
    made.add_argument("--precision", choices=precisions, default=precisions[0])
    made.add_argument("--images", type=int, help="images in a repetition, by default as many as suit the size")
    made.add_argument("--batch-size", type=int, default=batch_size)
    made.add_argument("--repetitions", type=int, default=5)
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
