"""How long an experiment takes: what there is to do, and a small trial of it on this machine."""

import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence

import torch

from dgs_lightning.doctor.finding import Finding, ok, warning
from dgs_lightning.doctor.networks import build, random_inputs
from dgs_lightning.doctor.work import Classifier, Scale, Work
from dgs_lightning.experiment.settings import Experiment
from dgs_lightning.models.dit.network import DiTConfig

MOST_PARAMETERS = 60_000_000  # of a network that is tried
LARGEST_BATCH = 64
LONG_ENOUGH = 0.2  # seconds of a trial
A_DAY = 86_400
FASTER = "Run it where there are GPUs, or set fewer steps, networks or repeats"


def check_time(experiment: Experiment, works: Sequence[Work], scale: Scale) -> Iterator[Finding]:
    """What there is to do, in numbers, and in time where a trial of all networks takes no more than seconds."""
    counts: Counter[str] = Counter()
    passes: Counter[Classifier | DiTConfig | None] = Counter()
    for work in works:
        counts[work.what] += work.count
        passes[work.network] += work.passes
    yield ok("to do: " + ", ".join(f"{count:,} {what}" for what, count in counts.items()))
    if not any(passes.values()):
        return
    torch.set_num_threads(experiment.threads)
    seconds = 0.0
    for network, images in passes.items():
        if not images:
            continue
        each = seconds_per_image(network, scale)
        if each is None:
            what = "time: no estimate, since a network is unknown, or too large to be tried within seconds"
            yield ok(what) if torch.cuda.is_available() else warning(f"{what}, and there is no GPU", FASTER)
            return
        seconds += images * each / _side_by_side(network, experiment)
    what = f"time: roughly {in_words(seconds)} on this machine, by forward passes of each network timed now; "
    what += "encoding, scoring and reading come on top"
    yield ok(what) if seconds < A_DAY else warning(what, FASTER)


def _side_by_side(network: Classifier | DiTConfig | None, experiment: Experiment) -> int:
    """How many stages with a network run at a time; those that train or use the DiT run one after another."""
    places = torch.cuda.device_count() or max(1, len(os.sched_getaffinity(0)) // experiment.threads)
    return min(experiment.jobs, places) if isinstance(network, Classifier) else 1


@torch.inference_mode()
def seconds_per_image(network: Classifier | DiTConfig | None, scale: Scale) -> float | None:
    """Time of one image's share of a forward pass, in batches as large as can be tried; none for large networks."""
    if network is None:
        return None
    with torch.device("meta"):
        if sum(parameter.numel() for parameter in build(network, scale).parameters()) > MOST_PARAMETERS:
            return None
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = build(network, scale).to(device).eval()
    batch = 1
    while True:
        inputs = [tensor.to(device) for tensor in random_inputs(network, batch, scale)]
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
