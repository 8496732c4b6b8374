"""The runner that gives each stage to Ray as a task, on as many machines as Ray has."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

from dgs_lightning.commands.process import end_with_parent
from dgs_lightning.configs import load_yaml
from dgs_lightning.errors import InputError, listed, short
from dgs_lightning.experiment.cluster import (
    RaySettings,
    answers,
    connected,
    facts_of,
    nodes_of,
    not_shared,
    on_node,
    other_versions,
)
from dgs_lightning.experiment.execution import Job, Outcome, devices_of, run_stage, stage_at_work
from dgs_lightning.experiment.progress import Progress
from dgs_lightning.experiment.runners import Result
from dgs_lightning.runs import layout

OFTEN = 0.5  # seconds between two signs of progress, and longest wait for a stage that ends
CHECK = 5.0  # seconds between two questions whether the head lives
ON_GPUS = ("fit", "validate", "test", "predict", "crops")  # commands that compute on a GPU where there is one


class Attempt(NamedTuple):
    """A stage that was given to Ray, and how often it was begun before."""

    job: Job
    before: int = 0


class RayTasks:
    """Runs stages as Ray's tasks. Open it by :func:`ray_tasks`.

    A stage is given to Ray when the records say that all it needs is done, so that they are right whatever dies. One
    whose process or machine dies is begun again, but not before its old process has ended.

    Args:
        ray: The module.
        settings: Settings of Ray.
        progress: Told the steps, the nodes and the deaths.
    """

    def __init__(self, ray: Any, settings: RaySettings, progress: Progress) -> None:  # noqa: ANN401
        self._ray, self._settings, self._progress = ray, settings, progress
        here = ray.get_runtime_context()
        self._head, self._checked = here.gcs_address, time.monotonic()
        self._steps = ray.remote(num_cpus=0)(Steps).options(scheduling_strategy=on_node(here.get_node_id())).remote()
        self._running: dict[Any, Attempt] = {}
        self._dead: list[Attempt] = []
        self._look()

    def _look(self) -> None:
        """Count the nodes that there are now."""
        self._nodes = {node.id: node for node in nodes_of(self._ray)}
        share = self._settings.gpus_per_training
        self.slots = max(1, sum(int(node.gpus / share) + int(node.cpus) for node in self._nodes.values()))

    def start(self, job: Job) -> None:
        """Give a stage to Ray, which begins it as soon as a node has room."""
        self._submit(Attempt(job))

    def _submit(self, attempt: Attempt) -> None:
        cpus, gpus = self._needs(attempt.job)
        self._running[_task(self._ray, cpus, gpus).remote(attempt.job, self._steps)] = attempt

    def _needs(self, job: Job) -> tuple[float, float]:
        """Cores and GPUs that a stage takes, of one node.

        Raises:
            InputError: If no node has as many GPUs.
        """
        settings = load_yaml(Path(job.config))
        trainer = settings.get("trainer") or {}
        most = max((node.gpus for node in self._nodes.values()), default=0)
        if not most or job.command not in ON_GPUS or trainer.get("accelerator") == "cpu":
            cores = max((node.cpus for node in self._nodes.values()), default=1)
            return min(cores, (devices_of(trainer) or 1) * settings["threads"]), 0
        devices = devices_of(trainer) or int(most)
        if devices > most:
            found, remedy = f"{devices} for {job.stage}, on one machine", f"Set trainer.devices={int(most)}"
            raise InputError("trainer.devices", found, f"at most {int(most)}, as the largest node has", remedy)
        is_training = job.stage.startswith(f"{layout.EVALUATION}/")
        return 0, self._settings.gpus_per_training if is_training and devices == 1 else devices

    def finished(self) -> Iterator[tuple[str, Result]]:
        """Wait for half a second at most, pass on the progress, and begin again what has died.

        Raises:
            InputError: If the head of Ray has died, or a stage has died too often.
        """
        died = (
            *(self._ray.exceptions.WorkerCrashedError, self._ray.exceptions.NodeDiedError),
            *(self._ray.exceptions.OutOfMemoryError, self._ray.exceptions.ObjectLostError),
        )
        ended: list[Any] = []
        if self._running:
            ended, _ = self._ray.wait(list(self._running), num_returns=1, timeout=OFTEN)
        else:
            time.sleep(OFTEN)
        if time.monotonic() - self._checked > CHECK:
            self._check_head()
        self._tell()
        for reference in ended:
            attempt = self._running.pop(reference)
            try:
                node, outcome = self._ray.get(reference)
            except died as error:
                self._has_died(attempt, error)
            except self._ray.exceptions.RayTaskError as error:  # a fault of the program, or too little memory
                yield attempt.job.stage, partial(_given, error.cause)
            else:
                self._place(attempt.job.stage, node)
                for note in getattr(outcome, "__notes__", ()):
                    self._progress.say(note)
                yield attempt.job.stage, partial(_given, outcome)
        for attempt in [attempt for attempt in self._dead if not stage_at_work(attempt.job)]:
            self._dead.remove(attempt)
            self._submit(attempt)

    def _has_died(self, attempt: Attempt, error: Exception) -> None:
        """Note that a stage is to begin again.

        Raises:
            InputError: If it was begun again often enough, or the head of Ray has died, too.
        """
        self._check_head()
        self._look()
        (stage, *_), begun, most = attempt.job, attempt.before + 1, self._settings.max_retries
        what = f"its process has died ({short(error).split('.')[0]})"
        if begun > most:
            remedy = "Where memory is short, let Ray have fewer cores or GPUs; then run it again"
            expected = f"at most {most}, as ray.max_retries says"
            raise InputError(
                f"stage {stage}", f"{begun} deaths of its process, as when memory runs out", expected, remedy
            )
        self._progress.say(f"{stage}: {what}. It begins again, for the {begun}. time of at most {most}")
        self._dead.append(Attempt(attempt.job, begun))

    def _tell(self) -> None:
        """Pass on how far the stages are, and where."""
        with suppress(self._ray.exceptions.RayError):  # busy, or lost with the head, which is told elsewhere
            for stage, (done, total, node) in self._ray.get(self._steps.take.remote(), timeout=CHECK).items():
                self._place(stage, node)
                if total:
                    self._progress.step(stage, done, total)

    def _place(self, stage: str, node: str) -> None:
        if node not in self._nodes:
            self._look()
        if len(self._nodes) > 1 and node in self._nodes:
            self._progress.place(stage, self._nodes[node].name)

    def _check_head(self) -> None:
        """Ask whether the head of Ray lives. Ray itself would wait a minute, and then end this process.

        Raises:
            InputError: If it has died.
        """
        self._checked = time.monotonic()
        if not answers(self._head):
            remedy = "Start Ray again and give the same command: it keeps what is finished, also with launcher=local"
            raise InputError("ray.address", f"no answer from {self._head} any more", "a Ray that runs", remedy)


class Steps:
    """Keeps how far each stage is until the run asks. An actor of Ray."""

    def __init__(self) -> None:
        self._latest: dict[str, tuple[int, int, str]] = {}

    def tell(self, stage: str, done: int, total: int, node: str) -> None:
        """A stage has done some of its steps, on a node."""
        self._latest[stage] = done, total, node

    def take(self) -> dict[str, tuple[int, int, str]]:
        """What was told since the last question."""
        latest, self._latest = self._latest, {}
        return latest


@contextmanager
def ray_tasks(settings: RaySettings, folder: Path, progress: Progress) -> Iterator[RayTasks]:
    """Ray's tasks as a runner. Nothing runs any more when the block ends.

    Args:
        settings: Settings of Ray.
        folder: Folder of the run, which all nodes must see.
        progress: Told the steps, the nodes and the deaths.

    Raises:
        InputError: If Ray is not installed or does not answer, or if a node sees another folder.
    """
    with connected(settings) as ray:
        nodes = nodes_of(ray)
        facts = facts_of(ray, nodes, folder)
        if error := not_shared(folder, facts):
            raise error
        if others := other_versions(facts):
            progress.say(f"other versions, on which the last digits of results may depend: {listed(others, 10)}")
        progress.say(f"Ray on {listed((node.name for node in nodes), 20)}")
        yield RayTasks(ray, settings, progress)


@cache
def _task(ray: Any, cpus: float, gpus: float) -> Any:  # noqa: ANN401
    """The function of a node as Ray's task. With a GPU, Ray starts a process for each stage."""
    return ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=0)(_run_on_node)


def _run_on_node(job: Job, steps: Any) -> tuple[str, Outcome | InputError]:  # noqa: ANN401
    """Run a stage in this process of Ray.

    Returns:
        The node, and the outcome of the stage or its error.
    """
    import ray

    end_with_parent(int(os.environ.get("RAY_RAYLET_PID") or os.getppid()))  # Ray lets it live on for a minute
    os.environ.pop("SLURM_NTASKS", None)  # a stage is no task of srun, for which Lightning would take it
    node, told = ray.get_runtime_context().get_node_id(), 0.0
    log = Path("/proc/self/fd/2").resolve()  # where Ray keeps what this process writes to the terminal
    before = log.stat().st_size if log.is_file() else 0

    def on_step(done: int, total: int) -> None:
        nonlocal told
        if time.monotonic() - told >= OFTEN:
            told = time.monotonic()
            steps.tell.remote(job.stage, done, total, node)

    steps.tell.remote(job.stage, 0, 0, node)
    try:
        return node, run_stage(job, on_step)
    except InputError as error:
        if log.is_file():
            with log.open(errors="replace") as file:
                file.seek(before)
                error.add_note(file.read()[-2000:])
        return node, error


def _given(outcome: Outcome | Exception) -> Outcome:
    """The outcome of a stage, or its error, raised."""
    if isinstance(outcome, Exception):
        raise outcome
    return outcome
