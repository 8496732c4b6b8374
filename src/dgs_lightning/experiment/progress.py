"""How far a run is: live on a terminal, one line a stage elsewhere."""

import sys

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from dgs_lightning.errors import printable


class Reading:
    """Shows how much of the user's data is read, where there is a terminal and enough to read.

    Examples:
        >>> Reading(smallest=0).step(5, 10)  # here is no terminal
    """

    def __init__(self, smallest: int = 200_000_000) -> None:
        self.smallest = smallest  # bytes that are read without a bar
        self.bars = Bars(transient=True, disable=not sys.stdout.isatty())
        self.task: TaskID | None = None

    def step(self, done: int, total: int) -> None:
        """Some bytes of all are read."""
        if total < self.smallest:
            return
        if self.task is None:
            self.bars.start()
            self.task = self.bars.add_task("reading the data, to recognise them later", total=total)
        self.bars.update(self.task, completed=done)
        if done == total:
            self.bars.stop()


class Progress:
    """Shows stages, their steps and the time left.

    Args:
        stages: Number of stages in all.
    """

    def __init__(self, stages: int) -> None:
        self.stages = stages
        self.done = 0
        self.live = sys.stdout.isatty()
        self.console = Console(soft_wrap=True, highlight=False, markup=False, emoji=False)
        columns = TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        self.bars = Bars(*columns, TimeRemainingColumn(), console=self.console, disable=not self.live)
        self.total = self.bars.add_task("stages", total=stages)
        self.tasks: dict[str, TaskID] = {}
        self.places: dict[str, str] = {}  # nodes of stages, where there are several

    def __enter__(self) -> "Progress":
        self.bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bars.stop()

    def skip(self, stages: int) -> None:
        """Count stages that were done before."""
        self.done += stages
        self.bars.update(self.total, completed=self.done)

    def begin(self, stage: str, command: str) -> None:
        """A stage starts."""
        self.tasks[stage] = self.bars.add_task(printable(stage), total=None)
        self.say(f"{stage}: {command}")

    def step(self, stage: str, done: int, total: int) -> None:
        """A stage has done some of its steps."""
        if stage in self.tasks:
            self.bars.update(self.tasks[stage], completed=done, total=total)

    def place(self, stage: str, node: str) -> None:
        """A stage runs on a node."""
        if stage in self.tasks and self.places.get(stage) != node:
            self.places[stage] = node
            self.bars.update(self.tasks[stage], description=printable(f"{stage} on {node}"))

    def finish(self, stage: str, seconds: float) -> None:
        """A stage is done."""
        self.done += 1
        self.bars.remove_task(self.tasks.pop(stage))
        where = f" on {self.places[stage]}" if stage in self.places else ""
        self.bars.update(self.total, completed=self.done)
        self.say(f"[{self.done}/{self.stages}] {stage}: done in {seconds:.1f} s{where}")

    def say(self, text: str) -> None:
        """Something for the user to read."""
        self.console.print(printable(text))

    def stop(self, stage: str) -> None:
        """A stage has failed."""
        self.say(f"{stage}: stopped, and goes on from there when the same command is given again")
