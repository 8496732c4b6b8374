"""A trial of the networks: whether they take the images, and how long the experiment takes with them."""

import time
from collections import Counter
from collections.abc import Iterator, Mapping

import torch

from dgs_lightning.doctor.finding import Finding, error_of, of_error, ok, warning
from dgs_lightning.doctor.machine import CORES
from dgs_lightning.experiment.settings import Experiment
from dgs_lightning.tasks.work import Classifier, Network, Work

MOST_PARAMETERS = 60_000_000  # of a network that is tried
LARGEST_BATCH = 64
LONG_ENOUGH = 0.2  # seconds of a trial
A_DAY = 86_400
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
    seconds = 0.0
    for network, images in passes.items():
        if not images:
            continue
        each = None if network is None else seconds_per_image(network)
        if each is None:
            what = "time: no estimate, since a network is unknown, or too large to be tried within seconds"
            yield ok(what) if torch.cuda.is_available() else warning(f"{what}, and there is no GPU", FASTER)
            return
        seconds += images * each / _side_by_side(network, experiment)
    what = f"time: roughly {in_words(seconds)} on this machine, by forward passes of each network timed now; "
    what += "encoding, scoring and reading come on top"
    yield ok(what) if seconds < A_DAY else warning(what, FASTER)


def _side_by_side(network: Network | None, experiment: Experiment) -> int:
    """Number of stages with a network that run at a time. Stages with the DiT run one after another."""
    places = torch.cuda.device_count() or max(1, CORES // experiment.threads)
    return min(experiment.jobs, places) if isinstance(network, Classifier) else 1


@torch.inference_mode()
def seconds_per_image(network: Network) -> float | None:
    """Time of one image's share of a forward pass, in batches as large as can be tried; ``None`` for large networks."""
    with torch.device("meta"):
        if sum(parameter.numel() for parameter in network.build().parameters()) > MOST_PARAMETERS:
            return None
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = network.build().to(device).eval()
    batch = 1
    while True:
        inputs = [tensor.to(device) for tensor in network.inputs(batch)]
        start = time.perf_counter()
        model(*inputs).sum().item()
        seconds = time.perf_counter() - start
        if batch == LARGEST_BATCH or seconds > LONG_ENOUGH:
            return seconds / batch
        batch = min(8 * batch, LARGEST_BATCH)


def in_words(seconds: float) -> str:
    """A duration in a readable unit."""
    for unit, size in (("days", A_DAY), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} seconds"
