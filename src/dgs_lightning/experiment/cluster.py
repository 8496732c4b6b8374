"""The machines that Ray joins: how they are reached, what they have, and whether they see the same folder.

Only the functions here and in ``ray_tasks`` import Ray, so that nothing else needs it.
"""

import logging
import os
import secrets
import signal
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from dgs_lightning import __version__
from dgs_lightning.bounds import Between
from dgs_lightning.data.cards import versions
from dgs_lightning.errors import InputError, listed, short
from dgs_lightning.runs import layout

OBJECTS = 100_000_000  # bytes of shared memory for a Ray that we start: only settings and outcomes pass through it
PATIENCE = 300.0  # seconds within which a node must start a process and answer
SOON = 10.0  # seconds within which a head must accept a connection
LOOPBACK = ("127.0.0.1", "localhost", "::1")
_PROBE = f"{layout.LOCK}.probe"


@dataclass(frozen=True)
class RaySettings:
    """The mapping ``ray`` of an experiment. No result depends on it.

    Args:
        address: ``HOST:PORT`` of a Ray that runs, also on this machine, or ``auto`` for the one that this machine
            belongs to; none: Ray is started for this run, on this machine alone.
        gpus_per_training: Share of a GPU that each downstream training takes.
        max_retries: How often a stage is begun again after its process or its machine has died.
        logs: Show what Ray itself reports.
    """

    address: str | None = None
    gpus_per_training: Annotated[float, Between(0.01, 1)] = 1.0
    max_retries: Annotated[int, Between(0, 1000)] = 3
    logs: bool = False


class Node(NamedTuple):
    """A machine of the cluster.

    Attributes:
        id: Its number in Ray.
        name: Its host name, with a port where several nodes are on one host.
        cpus: Cores that Ray may use.
        gpus: GPUs that Ray may use.
    """

    id: str
    name: str
    cpus: float
    gpus: float


class Facts(NamedTuple):
    """What a node says of itself.

    Attributes:
        versions: Versions of Python, this package and the libraries that results depend on.
        gpus: Names of its GPUs.
        refusal: Why it cannot use the run's folder; empty where it can.
    """

    versions: Mapping[str, str]
    gpus: Sequence[str]
    refusal: str


@contextmanager
def connected(settings: RaySettings) -> Iterator[Any]:
    """Join the Ray of an address, or start one on this machine, until the block ends.

    Yields:
        The module ``ray``.

    Raises:
        InputError: If Ray is not installed, or the address does not answer.
    """
    alone = settings.address is None or settings.address.rpartition(":")[0] in LOOPBACK
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    if alone:
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # Ray's own way to listen on the loopback alone
        os.environ.setdefault("RAY_worker_niceness", "0")  # as the processes of the local launcher
    try:
        import ray
    except ImportError:
        remedy = "Install it (pip install 'dgs-lightning[ray]'), or set launcher=local"
        raise InputError("launcher", "ray, which is not installed", "an installed Ray", remedy) from None
    stops = signal.getsignal(signal.SIGTERM)
    try:
        options = {"log_to_driver": settings.logs, "configure_logging": settings.logs, "logging_level": logging.ERROR}
        if settings.address is None:
            ray.init("local", include_dashboard=False, object_store_memory=OBJECTS, **options)
        else:
            ray.init(_answering(settings.address), **options)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        if isinstance(error, InputError):
            raise
        raise _no_answer(settings.address, short(error)) from None
    finally:
        with suppress(ValueError):  # only the main thread may do it, and Ray does it only there
            signal.signal(signal.SIGTERM, stops)  # Ray has put its own in its place
    if not settings.logs:
        _silence()
    try:
        yield ray
    finally:
        if answers(ray.get_runtime_context().gcs_address):
            ray.shutdown()


def _answering(address: str) -> str:
    """An address that accepts connections: Ray itself would ask one that does not for ever.

    Raises:
        InputError: If it does not.
    """
    if address == "auto":
        from ray._private.services import canonicalize_bootstrap_address_or_die

        address = canonicalize_bootstrap_address_or_die("auto")
    if not answers(address):
        raise _no_answer(address, "no answer")
    return address


def answers(address: str) -> bool:
    """Whether a ``HOST:PORT`` accepts connections."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=SOON):
            return True
    except (OSError, ValueError):
        return False


def _no_answer(address: str | None, found: str) -> InputError:
    remedy = "Start Ray on each machine, also on this one ('ray start'), and give the HOST:PORT of its head, or auto"
    return InputError("ray.address", f"{address}: {found}", "the address of a Ray that runs", remedy)


def _silence() -> None:
    """Drop what Ray prints on its own about dead processes: the run says it. Ray has no setting for this."""
    from ray._private import worker

    worker.print_to_stdstream = lambda *_, **__: None


def nodes_of(ray: Any) -> list[Node]:  # noqa: ANN401  (the module)
    """The machines that are alive, in the order of their names."""
    alive = [node for node in ray.nodes() if node["Alive"]]
    hosts = [node["NodeManagerHostname"] for node in alive]
    found = []
    for node, host in zip(alive, hosts, strict=True):
        name = host if hosts.count(host) == 1 else f"{host}:{node['NodeManagerPort']}"
        resources = node["Resources"]
        found.append(Node(node["NodeID"], name, resources.get("CPU", 0.0), resources.get("GPU", 0.0)))
    return sorted(found, key=lambda node: node.name)


def on_node(node: str) -> Any:  # noqa: ANN401
    """Ray's strategy that places a task on one node."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node, soft=False)


def facts_of(ray: Any, nodes: Sequence[Node], folder: Path) -> dict[str, Facts]:  # noqa: ANN401
    """What each node says of itself, by its name, and whether it reads and writes the folder that this process does.

    Each node must read a file that this process writes into the folder, and this process one that the node writes.
    The files are removed.

    Raises:
        InputError: If a node does not answer, or has not got this package.
    """
    token = secrets.token_hex(8)
    probe = folder / f"{_PROBE}-{token}"
    probe.write_text(token, encoding="utf-8")
    try:
        asked = ray.remote(num_cpus=0, max_retries=0)(_facts)
        answer = {n: asked.options(scheduling_strategy=on_node(n.id)).remote(str(probe), n) for n in nodes}
        found = {}
        for node, reference in answer.items():
            facts = _told(ray, node, reference)
            seen = probe.with_name(f"{probe.name}-{node.id}")
            if not facts.refusal and not (seen.is_file() and seen.read_text(encoding="utf-8") == token):
                facts = facts._replace(refusal="another folder of this name, since what it writes is not here")
            found[node.name] = facts
        return found
    finally:
        for path in folder.glob(f"{_PROBE}-*"):
            path.unlink(missing_ok=True)


def _told(ray: Any, node: Node, reference: Any) -> Facts:  # noqa: ANN401
    try:
        facts: Facts = ray.get(reference, timeout=PATIENCE)
    except ray.exceptions.RayError as error:
        found = short(getattr(error, "cause", None) or error)
        remedy = "Install this package there in the same way as here, or take the machine out of Ray"
        raise InputError(f"node {node.name}", found, "an answer of this package", remedy) from None
    return facts


def _facts(probe: str, node: Node) -> Facts:
    """What this node says of itself, after it has read the probe and written one of its own beside it."""
    gpus = []
    if node.gpus:
        import torch  # only here: it is slow to import

        gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    path, refusal = Path(probe), ""
    try:
        path.with_name(f"{path.name}-{node.id}").write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    except FileNotFoundError:
        refusal = "another folder of this name, or none: a file that the run wrote is not there"
    except OSError as error:
        refusal = f"a folder that cannot be used ({short(error)})"
    return Facts(_own_versions(), gpus, refusal)


def _own_versions() -> dict[str, str]:
    return {"dgs_lightning": __version__, **versions()}


def other_versions(facts: Mapping[str, Facts]) -> list[str]:
    """Each version in which a node differs from this process, such as ``node7: torch 2.14.0, here 2.15.0``."""
    here = _own_versions()
    return [
        f"{node}: {name} {own.versions.get(name)}, here {here[name]}"
        for node, own in facts.items()
        for name in here
        if own.versions.get(name) != here[name]
    ]


def not_shared(folder: Path, facts: Mapping[str, Facts]) -> InputError | None:
    """The error of nodes that cannot use the run's folder, if there are any."""
    if not (refusals := {node: own.refusal for node, own in facts.items() if own.refusal}):
        return None
    where = f"{folder} on {'node' if len(refusals) == 1 else 'nodes'} {listed(refusals)}"
    remedy = "Give --output on a file system that all machines share, or take these machines out of Ray"
    return InputError(where, next(iter(refusals.values())), "the folder of the run", remedy)
