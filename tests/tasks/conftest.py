"""Processes of a test's own, to be killed or to be several devices."""

import multiprocessing
import os
import socket
from collections.abc import Callable
from multiprocessing.process import BaseProcess

import pytest
import torch


def start(function: Callable[..., object], *args: object, **environment: str) -> BaseProcess:
    """Start a function of a test module in a process with its own environment variables.

    It is forked from a server that has not trained yet: torch does not train in the child of a process that has,
    once that has needed a thread for it.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["dgs_lightning.commands.cli", "dgs_lightning.tasks.minimax", "dgs_lightning.tasks.scoring"]
    )
    process = context.Process(target=run_with, args=(environment, function, *args))
    process.start()
    return process


def run_with(environment: dict[str, str], function: Callable[..., object], *args: object) -> None:
    """What the process does."""
    torch.set_num_threads(1)
    os.environ.update(environment)
    function(*args)


@pytest.fixture
def in_a_process() -> Callable[..., int | None]:
    """Runs a function in a process of its own and returns its exit code: the negative signal where it was killed."""

    def run(function: Callable[..., object], *args: object) -> int | None:
        process = start(function, *args)
        process.join()
        return process.exitcode

    return run


@pytest.fixture
def on_two_devices() -> Callable[..., None]:
    """Runs a function in two processes that a ``Trainer(devices=2, strategy="ddp")`` in it takes for its devices."""

    def run(function: Callable[..., object], *args: object) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            world = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
        processes = [start(function, *args, NODE_RANK="0", LOCAL_RANK=str(rank), **world) for rank in range(2)]
        for process in processes:
            process.join()
        assert [process.exitcode for process in processes] == [0, 0]

    return run
