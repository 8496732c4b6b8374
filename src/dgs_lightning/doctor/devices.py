"""The processors of this machine against those that the experiment asks for."""

import os
from collections.abc import Iterator

from dgs_lightning.doctor.finding import Finding, ok, problem, warning
from dgs_lightning.experiment.settings import Experiment


def check_devices(experiment: Experiment) -> Iterator[Finding]:
    """GPUs and cores found, against ``trainer.devices``, ``trainer.accelerator``, ``jobs`` and ``threads``."""
    from torch import cuda

    cores, gpus = len(os.sched_getaffinity(0)), cuda.device_count()
    names = ", ".join(sorted({cuda.get_device_name(index) for index in range(gpus)}))
    yield ok(f"this machine: {cores} CPU cores, {gpus} GPUs{f' ({names})' if names else ''}")
    accelerator, wanted = experiment.trainer.get("accelerator", "auto"), _wanted(experiment)
    on_gpus = accelerator in ("gpu", "cuda") or (accelerator == "auto" and gpus > 0)
    if on_gpus and (wanted or 1) > gpus:
        yield problem(
            f"trainer.devices={wanted or 1} with accelerator {accelerator}: {gpus} GPUs found",
            f"Set trainer.devices={gpus}" if gpus else "Set trainer.accelerator=auto, or run where there is a GPU",
        )
    processes = max(experiment.jobs, 1 if on_gpus else wanted or 1)
    if processes * experiment.threads > cores:
        yield warning(
            f"{processes} processes of {experiment.threads} threads on {cores} cores get in each other's way",
            f"Set jobs={max(1, cores // experiment.threads)}, or fewer threads (results depend on threads, too)",
        )


def _wanted(experiment: Experiment) -> int | None:
    """Number of devices that the trainer is to use; none where it takes all."""
    devices = experiment.trainer.get("devices", 1)
    named = devices if isinstance(devices, list) else str(devices).split(",")
    if len(named) > 1 or isinstance(devices, list):
        return len(named)
    return int(named[0]) if named[0].isdigit() else None
