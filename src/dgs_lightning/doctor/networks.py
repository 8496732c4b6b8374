"""The networks: whether they take the images, and how long the experiment takes with them."""

from collections import Counter
from collections.abc import Iterator, Mapping

import torch

from dgs_lightning.doctor.finding import Finding, error_of, of_error, ok, warning
from dgs_lightning.doctor.machine import CORES
from dgs_lightning.experiment.settings import Experiment
from dgs_lightning.models.trial import Classifier, Network, seconds_per_image
from dgs_lightning.tasks.work import Work

A_DAY = 86_400  # seconds
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
    yield ok("to do: " + ", ".join(f"{count:,} {what}" for what, count in counts.items() if what))
    if not passes.total():
        return
    torch.set_num_threads(experiment.threads)
    seconds, places = 0.0, torch.cuda.device_count() or max(1, CORES // experiment.threads)
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
        seconds += images * each / (side_by_side if isinstance(network, Classifier) else 1)
    what = f"time: roughly {readable_duration(seconds)} on this machine, by forward passes of each network timed now; "
    what += "encoding, scoring and reading come on top"
    yield ok(what) if seconds < A_DAY else warning(what, FASTER)


def readable_duration(seconds: float) -> str:
    """A duration in a readable unit."""
    for unit, size in (("days", A_DAY), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} seconds"
