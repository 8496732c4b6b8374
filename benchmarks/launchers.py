"""What a launcher adds to each of many small trainings: Ray on simulated machines, the local pool, a process a stage.

    python benchmarks/launchers.py [--trainings 60] [--slots 1 2 4]
    python benchmarks/launchers.py --plan imagenet1k [--images 1281167]

A slot is a machine of one core for Ray, and a job for the local pool. A training of the digits takes about a second.
What is added is ``(slots * time - sum of the stages' own times) / stages``, after each slot has run two trainings:
its start is not counted.
``--plan`` counts the stages of an experiment, its longest chain, and the bytes on the shared folder; it runs nothing.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from program import Figures, parser, show

from dgs_lightning.experiment.plan import Plan
from dgs_lightning.experiment.settings import load_experiment
from dgs_lightning.experiment.stage import Stage
from dgs_lightning.experiment.work import resolved, work_by_stage
from dgs_lightning.tasks.work import Inputs

SMALL = (
    *("methods=[random]", "variants={}", "ipc=1", "networks=[convnet1]", "draws=1", "folds=2", "judge=null"),
    *("cross_fit.trainer.max_epochs=1", "evaluate.model.init_args={width: 8}", "evaluate.trainer.max_steps=20"),
)
DONE = re.compile(r"evaluation/.*: done in ([\d.]+) s")


def run(changes: Sequence[str], output: Path) -> list[tuple[float, float]]:
    """The moment at which each training of a run ended, and the time that it took itself."""
    settings = [part for change in (*SMALL, *changes) for part in ("--set", change)]
    command = [sys.executable, "-u", "-m", "dgs_lightning", "run", "quickstart", "--output", str(output), *settings]
    ends = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or ():
            if done := DONE.search(line):
                ends.append((time.monotonic(), float(done[1])))
    if process.returncode:
        raise SystemExit(f"the run ended with status {process.returncode}")
    return ends


def added(ends: Sequence[tuple[float, float]], slots: int) -> float:
    """Seconds that a launcher adds to a stage, after the start."""
    begun, later = ends[2 * slots - 1][0], ends[2 * slots :]
    return (slots * (later[-1][0] - begun) - sum(seconds for _, seconds in later)) / len(later)


@contextmanager
def machines(number: int) -> Iterator[str]:
    """Address of a Ray with so many simulated machines of one core."""
    os.environ |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 100_000_000}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    try:
        for _ in range(number - 1):
            cluster.add_node(**node)
        yield cluster.address
    finally:
        cluster.shutdown()


def added_by_processes(output: Path, stages: int = 5) -> float:
    """Seconds that a process of its own adds to a stage."""
    found = []
    for config in sorted(output.glob("stages/evaluation/*/*/*.yaml"))[:stages]:
        start = time.monotonic()
        subprocess.run([sys.executable, "-m", "dgs_lightning", "fit", "--config", str(config)], check=True)
        seconds: float = json.loads(config.with_suffix(".json").read_text(encoding="utf-8"))["seconds"]
        found.append(time.monotonic() - start - seconds)
    return sum(found, 0.0) / len(found)


def measure(trainings: int, slots: Sequence[int]) -> Figures:
    """Seconds that each launcher adds to a training."""
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        for number in slots:
            jobs = Path(folder, f"jobs{number}")
            figures[f"local_{number}"] = added(run([f"repeats={trainings}", f"jobs={number}"], jobs), number)
            with machines(number) as address:
                changes = [f"repeats={trainings}", "launcher=ray", f"ray.address={address}"]
                figures[f"ray_{number}"] = added(run(changes, Path(folder, f"ray{number}")), number)
        figures["process_a_stage"] = added_by_processes(Path(folder, f"jobs{slots[0]}"))
    return figures


def planned(name: str, images: int) -> Figures:
    """Number of stages of an experiment, its longest chain, and the bytes of what it writes."""
    experiment = load_experiment(name, ["data=FOLDER"], "runs/planned")
    stages = Plan(experiment).everything()
    chains: dict[str, int] = {}
    for stage in stages:
        chains[stage.name] = 1 + max((chains[needed.name] for needed in stage.needs), default=0)
    side = experiment.image_size or 256
    latents = (4, side // 8, side // 8)
    known = {"runs/planned/data/train": images, "FOLDER/train": images}
    works = work_by_stage(experiment, resolved(stages, experiment), Inputs(1000, side, 3, latents, known))
    trainings = sum(is_training(stage) for stage in stages)
    disk = sum(work.disk for work in works.values())
    return {
        "stages": len(stages),
        "trainings": trainings,
        "longest_chain": max(chains.values()),
        "gigabytes": disk / 1e9,
    }


def is_training(stage: Stage) -> bool:
    """Whether a stage is one of the many that fill a table."""
    return stage.name.startswith("evaluation/")


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--trainings", type=int, default=60)
    options.add_argument("--slots", type=int, nargs="+", default=[1, 2, 4])
    options.add_argument("--plan", help="count the stages of this experiment")
    options.add_argument("--images", type=int, default=1_281_167, help="training images of the planned experiment")
    given = options.parse_args()
    show(planned(given.plan, given.images) if given.plan else measure(given.trainings, given.slots), given.json)


if __name__ == "__main__":
    main()
