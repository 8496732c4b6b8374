"""Several machines on one: nodes of Ray with declared cores and GPUs, which listen on the loopback."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

OBJECTS = 100_000_000  # bytes of shared memory of a node
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # the loopback alone
    "RAY_worker_niceness": "0",  # as fast as other processes
}


@contextmanager
def machines(number: int, cpus: int = 1, gpus: int = 0) -> "Iterator[Cluster]":
    """So many nodes, the head among them."""
    os.environ.update(SETTINGS)  # before Ray is imported for the first time
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    node: dict[str, Any] = {"num_cpus": cpus, "num_gpus": gpus, "object_store_memory": OBJECTS}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    try:
        for _ in range(number - 1):
            cluster.add_node(**node)
        yield cluster
    finally:
        cluster.shutdown()


def process(node: Any, name: str = "raylet") -> int:  # noqa: ANN401
    """A process of a node: ``raylet``, or ``gcs_server`` of the head."""
    found: int = node.all_processes[name][0].process.pid
    return found


def at_work(node: Any) -> list[int]:  # noqa: ANN401
    """Processes of a node that run a stage."""
    parent, found = process(node), []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            of = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            name = (path / "cmdline").read_bytes()
        except OSError:
            continue
        if of == parent and name.startswith(b"ray::_run_on_node"):
            found.append(int(path.name))
    return found
