"""Runs on several machines of which a process, a node, the run itself or the head of Ray is killed."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.faults.conftest import SMALLEST, Child, Laboratory, Server, content
from tests.machines import at_work, machines, process
from tests.waiting import cpu_time, wait_until

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

pytestmark = [pytest.mark.fault, pytest.mark.matrix]

STAGES = {"finetune": "finetune", "generation": "guided/dag-ipc1", "evaluation": "evaluation/dag-ipc1/convnet2/seed0"}
TWO = "trainer={devices: 2, accelerator: cpu, strategy: ddp}"
Record = Callable[[str, object], None]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laboratory]:
    server = Server()
    yield Laboratory(server, tmp_path_factory.mktemp("machines"), SMALLEST, classes=2, images=6)
    server.end()


def on(cluster: "Cluster") -> tuple[str, ...]:
    """The settings by which a run uses these nodes."""
    return "launcher=ray", f"ray.address={cluster.address}"


def worker_of(cluster: "Cluster", child: Child, stage: str) -> tuple[int, int]:
    """A process that runs a stage, once it does, and the place of its node in the list of nodes."""
    found: list[tuple[int, int]] = []

    def looks() -> bool:
        assert child.record(stage) != "done"
        nodes = cluster.list_all_nodes()
        found[:] = [(pid, place) for place, node in enumerate(nodes) for pid in at_work(node)]
        return bool(found) and (child.output / "stages" / f"{stage}.lock").exists()

    child.reach(stage)
    wait_until(looks, lambda: child.log.stat().st_size)
    return found[0]


@pytest.mark.parametrize(("kind", "stage"), STAGES.items())
def test_a_stage_whose_process_is_killed_is_begun_again(
    small: Laboratory, output: Path, kind: str, stage: str, record_property: Record
) -> None:
    with machines(2) as cluster:
        child = small.start(small.before(stage, output), *on(cluster))
        worker, _ = worker_of(cluster, child, stage)
        os.kill(worker, signal.SIGKILL)
        code, log = child.end()
    assert code == 0, log
    assert ": its process has died" in log
    assert "Traceback" not in log
    assert "(raylet)" not in log  # Ray's own words
    small.check(output)
    record_property("fault", kind)


@pytest.mark.parametrize(("kind", "stage"), STAGES.items())
def test_a_stage_whose_node_is_killed_is_begun_again_when_its_process_has_ended(
    small: Laboratory, output: Path, kind: str, stage: str, record_property: Record
) -> None:
    with machines(3) as cluster:
        child = small.start(small.before(stage, output), *on(cluster))
        worker, place = worker_of(cluster, child, stage)
        head_works = place == 0  # the run would end with it, which is another test
        node = cluster.list_all_nodes()[place]
        os.kill(worker if head_works else process(node), signal.SIGKILL)
        wait_until(lambda: worker not in at_work(node), lambda: cpu_time([worker]))
        code, log = child.end()
    assert code == 0, log
    assert "It begins again, for the 1. time" in log
    small.check(output)
    record_property("fault", kind)


@pytest.mark.parametrize(("kind", "stage"), STAGES.items())
def test_a_run_that_is_killed_takes_its_processes_on_all_nodes_along(
    small: Laboratory, output: Path, kind: str, stage: str, record_property: Record
) -> None:
    with machines(2) as cluster:
        child = small.start(small.before(stage, output), *on(cluster))
        worker_of(cluster, child, stage)
        code, log = child.kill(signal.SIGKILL)
        assert code == -signal.SIGKILL, log
        code, log = small.run(output, *on(cluster))
        assert code == 0, log
    assert content(output) == small.expected
    record_property("fault", kind)


@pytest.mark.parametrize(("kind", "stage"), STAGES.items())
def test_a_run_whose_head_is_killed_says_so_and_goes_on_without_ray(
    small: Laboratory, output: Path, kind: str, stage: str, record_property: Record
) -> None:
    with machines(2) as cluster:
        child = small.start(small.before(stage, output), *on(cluster))
        worker_of(cluster, child, stage)
        for name in ("gcs_server", "raylet"):
            os.kill(process(cluster.head_node, name), signal.SIGKILL)
        code, log = child.end()
        assert code == 2, log
        assert "dgs run: ray.address: found no answer from" in log
        assert "Traceback" not in log
        small.check(output)  # while the other node still lives
    record_property("fault", kind)


def test_a_node_that_is_killed_changes_nothing_in_a_whole_run(
    laboratory: Laboratory, output: Path, record_property: Record
) -> None:
    with machines(3, gpus=1) as cluster:
        child = laboratory.start(output, *on(cluster), "ray.gpus_per_training=0.5")
        child.reach("finetune")
        os.kill(process(cluster.list_all_nodes()[-1]), signal.SIGKILL)
        code, log = child.end()
    assert code == 0, log
    assert content(output) == laboratory.expected
    record_property("fault", "finetune")


def test_two_jobs_and_two_nodes_give_the_same_bytes(small: Laboratory, tmp_path: Path) -> None:
    assert small.run(tmp_path / "jobs", "jobs=2")[0] == 0
    with machines(2, gpus=1) as cluster:
        code, log = small.run(tmp_path / "nodes", *on(cluster))
    assert code == 0, log
    assert content(tmp_path / "jobs") == content(tmp_path / "nodes") == small.expected


def test_a_stage_of_two_processes_gives_the_same_bytes_inside_ray(tmp_path: Path) -> None:
    laboratory = Laboratory(server := Server(), tmp_path, (*SMALLEST, TWO), classes=2, images=6)
    with machines(2, cpus=2) as cluster:
        code, log = laboratory.run(tmp_path / "ray", *on(cluster))
        assert code == 0, log
        assert content(tmp_path / "ray") == laboratory.expected
        child = laboratory.start(laboratory.before("finetune", tmp_path / "killed"), *on(cluster))
        worker, _ = worker_of(cluster, child, "finetune")
        os.kill(worker, signal.SIGKILL)  # the processes of the command end with it
        code, log = child.end()
        assert code == 0, log
    assert ": its process has died" in log
    laboratory.check(tmp_path / "killed")
    server.end()
