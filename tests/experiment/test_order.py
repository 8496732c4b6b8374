"""In which order the stages of a run start."""

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor, nn

from dgs_lightning.experiment.execution import Job
from dgs_lightning.experiment.order import longest_chain_first, operations_of
from dgs_lightning.experiment.plan import Plan
from dgs_lightning.experiment.run import ExperimentRun
from dgs_lightning.experiment.settings import load_experiment
from dgs_lightning.experiment.stage import Stage
from dgs_lightning.models.trial import Classifier

CHANGES = ["methods=[random, dit]", "draws=1"]


def stage(name: str, *needs: Stage) -> Stage:
    return Stage(name, "fit", {}, needs)


def test_the_longest_chain_goes_first_and_each_stage_after_what_it_needs() -> None:
    data = stage("data")
    short, long = stage("short", data), stage("long", data)
    after_long, alone = stage("after long", long), stage("alone")
    stages = [data, short, alone, long, after_long]
    lengths = {"short": 3.0, "long": 1.0, "after long": 2.5, "alone": 3.0}
    assert [each.name for each in longest_chain_first(stages, lengths)] == [
        "data",  # 0 + 1 + 2.5
        "long",
        "short",  # as long as the next, and before it in the plan
        "alone",
        "after long",
    ]
    assert longest_chain_first(stages, {}) == stages
    assert longest_chain_first([long, after_long], lengths) == [long, after_long]  # what they need is done


def test_the_operations_of_a_network_are_those_counted_by_hand() -> None:
    network = Classifier("convnet1", classes=10, side=8, channels=1, width=4)
    convolution, linear = 2 * 8 * 8 * 4 * (3 * 3 * 1), 2 * 10 * (4 * 4 * 4)
    assert network.operations == convolution + linear


def test_the_chain_of_the_dit_is_the_longest_of_the_quickstart() -> None:
    experiment = load_experiment("quickstart", CHANGES, "run")
    stages = Plan(experiment).everything()
    lengths = operations_of(experiment, stages)
    assert lengths["pretrain"] > 3 * lengths["evaluation/random-ipc10/convnet2/seed0"] > 0
    names = [each.name for each in longest_chain_first(stages, lengths)]
    assert names.index("pretrain") < names.index("estimator/fold0")
    for each in stages:
        assert all(names.index(needed.name) < names.index(each.name) for needed in each.needs)


def test_a_subset_of_the_validation_images_goes_first(tmp_path: Path) -> None:
    run = ExperimentRun(load_experiment("quickstart", [*CHANGES, "validation=[easy]"], str(tmp_path / "run")))
    names = [each.name for each in run.in_order(run.stages)]
    assert names.index("validation/easy") < names.index("pretrain")
    assert names.index("scores/val") < names.index("validation/easy")


def test_an_experiment_whose_images_are_not_there_has_no_lengths(tmp_path: Path) -> None:
    experiment = load_experiment("own_images", [f"data={tmp_path / 'nothing'}"], "run")
    assert operations_of(experiment, Plan(experiment).everything()) == {}


def test_a_network_that_cannot_run_without_numbers_has_no_length(monkeypatch: pytest.MonkeyPatch) -> None:
    class Choosing(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images if images.sum() > 0 else -images

    monkeypatch.setattr(Classifier, "build", lambda self: Choosing())
    width = "evaluate.model.init_args.width=3"  # no other test counts the operations of such a network
    experiment = load_experiment("quickstart", [*CHANGES, width], "run")
    lengths = operations_of(experiment, Plan(experiment).everything())
    assert lengths["pretrain"] > lengths["evaluation/random-ipc10/convnet2/seed0"] == 0


class Recorder:
    """A runner that only notes which stages it is given."""

    def __init__(self, slots: int) -> None:
        self.slots, self.started, self.running = slots, list[str](), list[str]()

    def start(self, job: Job) -> None:
        self.started.append(job.stage)
        self.running.append(job.stage)

    def finished(self) -> Iterator[tuple[str, Any]]:
        yield self.running.pop(0), None


@pytest.mark.parametrize("slots", [1, 2])
def test_a_run_with_several_jobs_starts_the_longest_chain_first(
    slots: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, runner = ExperimentRun(load_experiment("quickstart", CHANGES, str(tmp_path / "run"))), Recorder(slots)
    monkeypatch.setattr(run, "_runner", lambda: nullcontext(runner))
    monkeypatch.setattr(run, "_end", lambda stage, result: None)
    monkeypatch.setattr("dgs_lightning.experiment.run.send_report", lambda *_: None)
    run.output.mkdir()
    run.execute()
    planned = [each.name for each in run.stages]
    assert sorted(runner.started) == sorted(planned)
    assert (runner.started == planned) == (slots == 1)
    assert (runner.started.index("pretrain") < runner.started.index("estimator/fold0")) == (slots == 2)
