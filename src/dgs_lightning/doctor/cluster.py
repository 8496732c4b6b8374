"""The machines that Ray has: what they can do, and whether the experiment can run on them."""

from collections.abc import Iterator
from pathlib import Path

from dgs_lightning.doctor.finding import Finding, of_error, ok, problem, warning
from dgs_lightning.errors import counted, listed
from dgs_lightning.experiment.cluster import RaySettings, connected, facts_of, nodes_of, not_shared, other_versions
from dgs_lightning.experiment.execution import devices_of
from dgs_lightning.experiment.settings import Experiment


def check_cluster(experiment: Experiment) -> Iterator[Finding]:
    """Nodes with their cores and GPUs, versions in which they differ, and the run's folder as they see it.

    For the folder, each node writes a small file into it, or into the next one above that exists. It is removed.

    Raises:
        InputError: If Ray is not installed or does not answer.
    """
    if experiment.launcher != "ray":
        return
    folder = Path(experiment.output or "runs").absolute()
    while not folder.is_dir():
        folder = folder.parent
    with connected(RaySettings(**experiment.ray)) as ray:
        nodes = nodes_of(ray)
        facts = facts_of(ray, nodes, folder)
    for node in nodes:
        names = ", ".join(sorted(set(facts[node.name].gpus)))
        gpus = f"{counted(int(node.gpus), 'GPU')}{f' ({names})' if names else ''}"
        yield ok(f"node {node.name}: {counted(int(node.cpus), 'CPU core')}, {gpus}")
    most, wanted = max(int(node.gpus) for node in nodes), devices_of(experiment.trainer) or 1
    if 0 < most < wanted:
        yield problem(f"trainer.devices={wanted}: no node has more than {counted(most, 'GPU')}", f"Set {most} at most")
    if others := other_versions(facts):
        yield warning(f"versions that differ: {listed(others, 10)}", "Install the same versions on all machines")
    if error := not_shared(folder, facts):
        yield of_error(error)
    elif len(nodes) > 1:
        yield ok(f"{folder}: all nodes read and write it")
