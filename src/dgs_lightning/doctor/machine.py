"""Processors, disk and memory of this machine against those that an experiment takes."""

import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from rich.filesize import decimal

from dgs_lightning.datamodules.images import MEMORY
from dgs_lightning.doctor.finding import Finding, error_of, of_error, ok, problem, warning
from dgs_lightning.errors import counted
from dgs_lightning.experiment.execution import devices_of
from dgs_lightning.experiment.folder import RunOutput
from dgs_lightning.experiment.settings import Experiment
from dgs_lightning.experiment.stage import Stage
from dgs_lightning.runs.fingerprints import unread_bytes
from dgs_lightning.runs.records import Records
from dgs_lightning.tasks.work import Work

LARGE = 10_000_000_000  # bytes of data whose reading takes time
READ = 1_000_000_000  # bytes that a good disk gives in a second
SMALLER_MEMORIES = "finetune.model.init_args.criteria.memory_dtype=bfloat16"
CORES = len(os.sched_getaffinity(0))


def check_output(experiment: Experiment, stages: Sequence[Stage]) -> Iterator[Finding]:
    """The folder of the run, which must be free or the run's own, and the data that are read before it begins."""
    output = Path(experiment.output or "runs")
    if error := error_of(RunOutput(output, experiment, Records(output)).check_place, stages):
        yield of_error(error)
    paths = {path for stage in stages for path in stage.inputs}
    size = unread_bytes(paths, experiment.links) if experiment.fingerprint == "content" else 0
    if size > LARGE:
        least = size / READ / 60
        what = f"{decimal(size)} of data are read once, to recognise them later: {least:.0f} to {4 * least:.0f} minutes"
        yield ok(f"{what}; with fingerprint=names, their names and sizes are enough")


def check_devices(experiment: Experiment) -> Iterator[Finding]:
    """GPUs and cores found, against ``trainer.devices``, ``trainer.accelerator``, ``jobs`` and ``threads``."""
    gpus = torch.cuda.device_count()
    names = ", ".join(sorted({torch.cuda.get_device_name(index) for index in range(gpus)}))
    yield ok(f"this machine: {counted(CORES, 'CPU core')}, {counted(gpus, 'GPU')}{f' ({names})' if names else ''}")
    if experiment.launcher == "ray":
        return  # see check_cluster
    accelerator, wanted = experiment.trainer.get("accelerator", "auto"), devices_of(experiment.trainer) or 1
    on_gpus = accelerator in ("gpu", "cuda") or (accelerator == "auto" and gpus > 0)
    if on_gpus and wanted > gpus:
        remedy = f"Set trainer.devices={gpus}" if gpus else "Set trainer.accelerator=auto, or run where there is a GPU"
        yield problem(f"trainer.devices={wanted} with accelerator {accelerator}: {counted(gpus, 'GPU')} found", remedy)
    processes = max(experiment.jobs, 1 if on_gpus else wanted)
    if processes * experiment.threads > CORES:
        threads = f"{counted(experiment.threads, 'thread')} on {counted(CORES, 'core')}"
        what = f"{counted(processes, 'process')} of {threads} get in each other's way"
        jobs = max(1, CORES // experiment.threads)
        yield warning(what, f"Set jobs={jobs}, or fewer threads (results depend on threads, too)")


def check_disk(experiment: Experiment, works: Mapping[str, Work]) -> Iterator[Finding]:
    """Images, latent cache and checkpoints, against the free space of the disk that the run writes to."""
    sizes = Counter({"images": 0, "latent cache": 0, "DiT checkpoints": 0})
    for work in works.values():
        sizes[work.files] += work.disk
    folder = Path(experiment.output or "runs").absolute()
    while not folder.exists():
        folder = folder.parent
    total, free = sizes.total(), shutil.disk_usage(folder).free
    parts = ", ".join(f"{name} {decimal(size)}" for name, size in sizes.items() if size)
    what = f"disk: about {decimal(total)} ({parts}), {decimal(free)} free"
    yield ok(what) if total < free else problem(what, "Free space, or give --output on another disk")


def check_memory(works: Mapping[str, Work]) -> Iterator[Finding]:
    """What trainings and the refinement of latents keep, against the memory of the GPU or machine."""
    gpu = torch.cuda.is_available()
    there = torch.cuda.get_device_properties(0).total_memory if gpu else MEMORY
    largest = {work.memory_for: work for work in sorted(works.values(), key=lambda work: work.memory) if work.memory}
    for purpose, work in largest.items():
        what = f"memory: about {decimal(work.memory)} for {purpose}; {decimal(there)} in this "
        what += "GPU" if gpu else "machine"
        yield ok(what) if work.memory < there else problem(what, f"{work.less_memory}, or use a larger machine")
