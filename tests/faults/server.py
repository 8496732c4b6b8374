"""A process that has imported everything, and forks a ``dgs`` for each request: a line of JSON in, a line out.

``{"args": [...], "log": FILE, "file_bytes": N or null, "watched_at": ADDRESS or null}`` starts one and answers its
process id, which is its process group's, too; ``{"wait": PID}`` answers its exit code.
"""

import atexit
import gc
import importlib
import json
import os
import resource
import signal
import sys
import threading
from typing import Any

import torch
from tests.faults.calls import be_watched

import dgs_lightning
from dgs_lightning.__main__ import main
from dgs_lightning.configs import ROOT, load_yaml
from dgs_lightning.data.cards import versions

SLOW_TO_IMPORT = (
    "dgs_lightning.commands.cli",
    "dgs_lightning.experiment.run",
    "dgs_lightning.commands.select",
    "dgs_lightning.commands.prepare",
    "dgs_lightning.commands.report",
    "matplotlib.backends.backend_agg",
    "matplotlib.backends.backend_pdf",
    "sklearn.cluster",
    "sklearn.datasets",
    "timm",
    "torch.utils.tensorboard",
)


def preload() -> None:
    """Import what any stage needs."""
    for name in SLOW_TO_IMPORT:
        importlib.import_module(name)
    for name in dgs_lightning.__all__:
        getattr(dgs_lightning, name)
    for path in ROOT.rglob("*.yaml"):  # remembered, as are the versions
        load_yaml(path)
    versions()


def serve() -> list[str]:
    """Answer requests; returns in a forked process alone, with the arguments of its ``dgs``."""
    print("ready", flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            print(os.waitstatus_to_exitcode(os.waitpid(request["wait"], 0)[1]), flush=True)
            continue
        child = os.fork()
        if child == 0:
            return become(request)
        os.setpgid(child, child)  # here, too: before anyone asks who is in the group
        print(child, flush=True)
    os._exit(0)


def become(request: dict[str, Any]) -> list[str]:
    """Be a process that a shell would have started."""
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background of a shell it is ignored
    log = os.open(request["log"], os.O_WRONLY | os.O_APPEND)
    if request["file_bytes"] is not None:
        log = through_cat(log)  # which the limit does not concern
        resource.setrlimit(resource.RLIMIT_FSIZE, (request["file_bytes"],) * 2)
    for descriptor, target in ((os.open(os.devnull, os.O_RDONLY), 0), (log, 1), (log, 2)):
        os.dup2(descriptor, target)
    os.close(log)
    if request["watched_at"] is not None:
        be_watched(request["watched_at"])
    return list(request["args"])


def through_cat(log: int) -> int:
    """A pipe into the log."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.dup2(reader, 0)
        os.dup2(log, 1)
        os.close(writer)
        os.execvp("cat", ["cat"])
    return writer


def end(status: int) -> None:
    """End as Python does, but leave the memory to the system: Python takes two seconds for it."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    torch.set_num_threads(1)  # a forked process would miss the others
    preload()
    gc.freeze()  # forked processes need not look through what is here
    end(main(serve()))
