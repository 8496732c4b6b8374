"""Seconds of a command from the key to the last line, beside a Python that imports the libraries of this package.

    python benchmarks/command_line.py --command help|dry_run|finished|doctor [--repetitions N] [--json]

The reference is what every command would wait for if it imported all at its start, as most programs of this kind do:
`import torch, torchvision, torchmetrics, lightning.pytorch`. Both are processes of their own and take turns, with files
in the system's cache, and the numbers are medians.

- `help` is `dgs --help`.
- `dry_run` is `dgs run quickstart --dry-run`: it lists the stages, with their state and commands.
- `finished` is `dgs run quickstart` where all is done, at a tiny size: it compares the files of each stage with what it
  recorded, and prints the table.
- `doctor` is `dgs doctor quickstart`: it parses the settings of each kind of stage as its command does, and times the
  networks, so it imports nearly all libraries.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

from launchers import SMALL
from program import Figures, parser, show

DGS = (sys.executable, "-m", "dgs_lightning")
LIBRARIES = (sys.executable, "-c", "import torch, torchvision, torchmetrics, lightning.pytorch")
TINY = [part for change in SMALL for part in ("--set", change)]
COMMANDS = {
    "help": ("--help",),
    "dry_run": ("run", "quickstart", "--dry-run"),
    "finished": ("run", "quickstart", *TINY),
    "doctor": ("doctor", "quickstart"),
}


def seconds_of(command: Sequence[str], folder: str) -> float:
    """Seconds that a command takes in a folder."""
    start = time.perf_counter()
    subprocess.run(command, cwd=folder, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


def measure(name: str, repetitions: int) -> Figures:
    """Seconds of a command and of the reference, alternating."""
    command = (*DGS, *COMMANDS[name])
    with tempfile.TemporaryDirectory() as folder:
        times = [(seconds_of(command, folder), seconds_of(LIBRARIES, folder)) for _ in range(repetitions + 1)]
    own, libraries = (statistics.median(seconds) for seconds in zip(*times[1:], strict=True))  # the first warms up
    return {"seconds": own, "reference_seconds": libraries, "ratio": libraries / own}


def main(argv: Sequence[str] | None = None) -> None:
    options = parser(__doc__)
    options.add_argument("--command", choices=list(COMMANDS), default="dry_run")
    options.add_argument("--repetitions", type=int, default=5)
    args = options.parse_args(argv)
    show(measure(args.command, args.repetitions), args.json)


if __name__ == "__main__":
    main()
