"""Time of a run whose stages start in the order of the plan, and if the longest chain goes first: simulated.

    python benchmarks/stage_order.py --experiment NAME [--jobs 2 4 8 13] [--json]

The stages and the seconds of each are those of a finished run of the experiment, kept in `results/NAME`. A stage starts
as soon as the stages that it needs are done and a job is free. The plan has its stages in the order of the rows of the
table. The longest chain first means: of the stages that could start, the one from which the most seconds of stages that
wait for each other remain. `dgs run` keeps the order of the plan: the other one needs to know the seconds of each stage
before it has run, and the table says how much it would save if they were known exactly.
"""

import heapq
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from program import Figures, parser, show

from dgs_lightning.experiment.plan import Plan
from dgs_lightning.experiment.settings import load_experiment
from dgs_lightning.experiment.stage import Stage

RESULTS = Path(__file__).parents[1] / "results"


def finished_run(name: str) -> tuple[list[Stage], dict[str, float]]:
    """The stages of a kept run, each after what it needs, and the seconds of each by its name."""
    kept = json.loads((RESULTS / name / "records.json").read_text(encoding="utf-8"))
    changes = [f"{name}={json.dumps(kept['settings'][name])}" for name in ("data", "methods")]
    experiment = load_experiment(name, changes, "runs/planned")
    seconds = {cost["stage"]: cost["seconds"] for cost in kept["costs"]}
    return [stage for stage in Plan(experiment).everything() if stage.name in seconds], seconds


def remaining(stages: Sequence[Stage], seconds: Mapping[str, float]) -> dict[str, float]:
    """Seconds of the longest chain that begins with each stage."""
    after = dict.fromkeys(seconds, 0.0)
    chains = {}
    for stage in reversed(stages):
        chains[stage.name] = seconds[stage.name] + after[stage.name]
        for needed in stage.needs:
            after[needed.name] = max(after[needed.name], chains[stage.name])
    return chains


def simulated(
    stages: Sequence[Stage], seconds: Mapping[str, float], jobs: int, order: Callable[[Stage], float]
) -> float:
    """Seconds of a run that starts the first of the stages that are ready, in this order."""
    waiting, done, now = sorted(stages, key=order), set[str](), 0.0
    running: list[tuple[float, str]] = []
    while waiting or running:
        ready = [stage for stage in waiting if all(needed.name in done for needed in stage.needs)]
        for stage in ready[: jobs - len(running)]:
            waiting.remove(stage)
            heapq.heappush(running, (now + seconds[stage.name], stage.name))
        now, name = heapq.heappop(running)
        done.add(name)
    return now


def measure(name: str, jobs: Sequence[int]) -> Figures:
    """Seconds of the run in both orders, and the share that the second one saves."""
    stages, seconds = finished_run(name)
    chains = remaining(stages, seconds)
    figures = {"stages": float(len(stages)), "longest_chain": max(chains.values())}
    for slots in jobs:
        plan = simulated(stages, seconds, slots, lambda stage: 0.0)
        chain = simulated(stages, seconds, slots, lambda stage: -chains[stage.name])
        figures |= {f"plan_{slots}": plan, f"chain_{slots}": chain, f"saved_{slots}": 1 - chain / plan}
    return figures


def main(argv: Sequence[str] | None = None) -> None:
    options = parser(__doc__)
    options.add_argument("--experiment", default="quickstart", help="an experiment with a run in results/")
    options.add_argument("--jobs", type=int, nargs="+", default=[2, 4, 8, 13])
    args = options.parse_args(argv)
    show(measure(args.experiment, args.jobs), args.json)


if __name__ == "__main__":
    main()
