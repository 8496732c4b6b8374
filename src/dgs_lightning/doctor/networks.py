"""The networks: whether they take the images, and how long the experiment takes with them."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import torch

from dgs_lightning.doctor.finding import Finding, error_of, of_error, ok, warning
from dgs_lightning.doctor.machine import CORES
from dgs_lightning.errors import counted
from dgs_lightning.experiment.execution import device_of
from dgs_lightning.experiment.fast import advice, compiler, instructions
from dgs_lightning.experiment.settings import Experiment
from dgs_lightning.experiment.stage import Stage
from dgs_lightning.models.dit.network import DiTConfig
from dgs_lightning.models.trial import TIMINGS, Classifier, Network, seconds_per_image
from dgs_lightning.tasks.work import Work

A_DAY = 86_400  # seconds
MOST_APART = 3  # times the shortest timing: a longer one says that they tell nothing
FASTER = "Run it where there are GPUs, or set fewer steps, networks or repeats"


def check_networks(works: Mapping[str, Work]) -> Iterator[Finding]:
    """Whether each classifier exists and takes images of its size."""
    stages = {work.network: stage for stage, work in works.items() if isinstance(work.network, Classifier)}
    for network, stage in stages.items():
        with torch.device("meta"):
            error = error_of(network.build)
        fits = ok(f"network {network.name}: takes images of {network.side} pixels")
        yield of_error(error, f"stage {stage}: ") if error else fits


def check_time(experiment: Experiment, works: Mapping[str, Work]) -> Iterator[Finding]:
    """The work in numbers, and in time if a trial of all networks takes no more than seconds."""
    counts: Counter[str] = Counter()
    passes: Counter[Network | None] = Counter()
    for work in works.values():
        counts[work.what] += work.count
        passes[work.network] += work.passes
    yield ok("to do: " + ", ".join(_in_words(count, what) for what, count in counts.items() if what))
    if not passes.total():
        return
    torch.set_num_threads(experiment.threads)
    shortest, longest, places = 0.0, 0.0, torch.cuda.device_count() or max(1, CORES // experiment.threads)
    side_by_side = min(experiment.jobs, places)
    for network, images in passes.items():
        if not images:
            continue
        each = None if network is None else seconds_per_image(network)
        if each is None:
            what = "time: no estimate, since a network is unknown, or too large to be tried within seconds"
            yield ok(what) if torch.cuda.is_available() else warning(f"{what}, and there is no GPU", FASTER)
            return
        # Only classifiers are trained side by side.
        share = images / (side_by_side if isinstance(network, Classifier) else 1)
        shortest, longest = shortest + share * each[0], longest + share * each[1]
    if longest > MOST_APART * shortest:
        yield ok("time: no estimate, since timings of the same network differ too much on this machine at this moment")
        return
    what = f"time: {readable_durations(shortest, longest)} on this machine if nothing else runs on it, by {TIMINGS} "
    what += "forward passes of each network timed now; encoding, scoring and reading come on top"
    yield ok(what) if shortest < A_DAY else warning(what, FASTER)


def check_fast(
    experiment: Experiment, stages: Sequence[Stage], works: Mapping[str, Work], measure: bool
) -> Iterator[Finding]:
    """What ``fast`` would bring on this processor; how much bfloat16 brings is measured where that is asked for."""
    if device_of(experiment.trainer) != "cpu" or not (what := advice(stages, experiment.fast)):
        return
    own = [(work.network, work.passes) for work in works.values() if isinstance(work.network, DiTConfig)]
    longest = sum(dit.is_long(passes) for dit, passes in own)
    yield ok(f"{what}; {counted(longest, 'stage')} of {len(own)} would be compiled" if compiler() else what)
    for dit in dict(own) if measure and instructions() else ():
        plain, fast = (seconds_per_image(dit, dtype) for dtype in (torch.float32, torch.bfloat16))
        if plain and fast:
            ratio = f"{plain[0] / fast[0]:.1f} times as fast as 32-bit"
            yield ok(f"bfloat16: {ratio}, by {TIMINGS} forward passes of the DiT timed now")


def _in_words(count: int, what: str) -> str:
    """A number of things, of which there may be one: ``1 network trained``."""
    one = re.sub(r"\b(image|network|step)s\b", r"\1", what, count=1)
    return f"{count:,} {one if count == 1 else what}"


def readable_durations(shortest: float, longest: float) -> str:
    """Two durations in a unit that fits the longer one: ``12 to 20 minutes``; one number where both are the same."""
    units = (("days", A_DAY), ("hours", 3_600), ("minutes", 60))
    unit, size = next(((unit, size) for unit, size in units if longest >= 2 * size), ("seconds", 1))
    numbers = dict.fromkeys(f"{seconds / size:.0f}" for seconds in (shortest, longest))
    return f"{' to '.join(numbers)} {unit}"
