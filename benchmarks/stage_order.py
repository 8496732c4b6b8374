"""Time of a run whose longest chain of stages goes first, and of one whose stages start in the order of the plan.

    python benchmarks/stage_order.py --experiment NAME [--jobs 2 4 8 13] [--json]
    python benchmarks/stage_order.py --experiment NAME --run [--repetitions N] [--jobs 2] [--json]

A stage starts as soon as the stages that it needs are done and a job is free. Where several could start, `dgs run`
takes the one with the longest chain of stages that wait for each other. It knows no times before a run, and takes the
operations of the networks of each stage, as the doctor counts them. The reference is the order of the plan: that of the
rows of the table, all trainings at the end.

By default nothing is run: both orders are simulated with the seconds that the stages took in a finished run, which
`results/NAME` keeps. A third order takes the longest chain by these seconds, as if they were known before. With
`--run`, the experiment runs in both orders, in turns, each time in a new folder, and the table has the medians of the
seconds of a run, without the start of the program.
"""

import heapq
import json
import statistics
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from accelerator import timed
from program import Figures, parser, show

from dgs_lightning.experiment.order import longest_chain_first, operations_of
from dgs_lightning.experiment.plan import Plan
from dgs_lightning.experiment.run import ExperimentRun
from dgs_lightning.experiment.settings import load_experiment
from dgs_lightning.experiment.stage import Stage
from dgs_lightning.experiment.work import inputs_of
from dgs_lightning.models.codec import latent_shape
from dgs_lightning.tasks.work import Inputs

RESULTS = Path(__file__).parents[1] / "results"


def finished_run(name: str, validation: int) -> tuple[list[Stage], dict[str, float], dict[str, float]]:
    """The stages of a kept run, each after what it needs, and the seconds and the operations of each by its name."""
    kept = json.loads((RESULTS / name / "records.json").read_text(encoding="utf-8"))
    data = kept["settings"]["data"]
    changes = [f"data={data}", f"methods={json.dumps(kept['settings']['methods'])}"]
    experiment = load_experiment(name, changes, "runs/planned")
    seconds = {cost["stage"]: cost["seconds"] for cost in kept["costs"]}
    stages = [stage for stage in Plan(experiment).everything() if stage.name in seconds]
    inputs = inputs_of(experiment, {})
    if inputs is None:  # a folder, of which the record has the numbers of training images
        side, train = experiment.image_size or 0, sum(kept["originals"].values())
        places = (experiment.data, "runs/planned/data")
        images = {f"{place}/{part}": n for place in places for part, n in (("train", train), ("val", validation))}
        inputs = Inputs(len(kept["originals"]), side, 3, latent_shape(experiment.codec, side, 3), images)
    return stages, seconds, operations_of(experiment, stages, inputs)


def simulated(stages: Iterable[Stage], seconds: dict[str, float], jobs: int) -> float:
    """Seconds of a run that starts the first of the stages that are ready."""
    waiting, done, now = list(stages), set[str](), 0.0
    running: list[tuple[float, str]] = []
    while waiting or running:
        ready = [stage for stage in waiting if all(needed.name in done for needed in stage.needs)]
        for stage in ready[: jobs - len(running)]:
            waiting.remove(stage)
            heapq.heappush(running, (now + seconds[stage.name], stage.name))
        now, name = heapq.heappop(running)
        done.add(name)
    return now


def simulate(name: str, jobs: Sequence[int], validation: int) -> Figures:
    """Seconds of the run in the orders, and the shares that the others save of the plan's."""
    stages, seconds, operations = finished_run(name, validation)
    orders = {"own": longest_chain_first(stages, operations), "known": longest_chain_first(stages, seconds)}
    figures = {"stages": float(len(stages))}
    for slots in jobs:
        plan = simulated(stages, seconds, slots)
        figures[f"plan_{slots}"] = plan
        for order, ordered in orders.items():
            figures[f"{order}_{slots}"] = took = simulated(ordered, seconds, slots)
            figures[f"{order}_saved_{slots}"] = 1 - took / plan
    return figures


def measure(name: str, jobs: int, repetitions: int) -> Figures:
    """Median seconds of runs in both orders, which take turns."""
    seconds: dict[str, list[float]] = {"plan": [], "own": []}
    for repetition in range(repetitions):
        for order in list(seconds)[:: (1, -1)[repetition % 2]]:
            with tempfile.TemporaryDirectory() as folder:
                run = ExperimentRun(load_experiment(name, [f"jobs={jobs}"], folder))
                if order == "plan":
                    run.in_order = list  # type: ignore[assignment, method-assign]
                with run.lock(), timed(seconds[order]):
                    run.execute()
    plan, own = (statistics.median(taken) for taken in seconds.values())
    return {f"plan_{jobs}": plan, f"own_{jobs}": own, f"own_saved_{jobs}": 1 - own / plan}


def main(argv: Sequence[str] | None = None) -> None:
    options = parser(__doc__)
    options.add_argument("--experiment", default="quickstart", help="an experiment with a run in results/")
    options.add_argument("--jobs", type=int, nargs="+", default=[2, 4, 8, 13])
    options.add_argument("--validation", type=int, default=3929, help="validation images, of a data set without a name")
    options.add_argument("--run", action="store_true", help="run the experiment, with the first number of jobs")
    options.add_argument("--repetitions", type=int, default=2, help="runs in each order")
    args = options.parse_args(argv)
    if args.run:
        found = measure(args.experiment, args.jobs[0], args.repetitions)
    else:
        found = simulate(args.experiment, args.jobs, args.validation)
    show(found, args.json)


if __name__ == "__main__":
    main()
