"""What a ``dgs`` command changes for its whole process. The library itself changes nothing of the kind."""

import ctypes
import logging
import os
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from dgs_lightning.errors import InputError, short
from dgs_lightning.files import hide_thread_disk_errors

PARENT = "DGS_PARENT"  # variable with the process that a command must not outlive
SIGNAL_AT_PARENTS_END = 1  # option of Linux's prctl
MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1  # parameters of glibc's mallopt, in bytes
LARGEST = 2**31 - 1
LARGEST_MMAP_THRESHOLD_BEFORE = 2**25  # older versions refuse a larger one, and would then stay at 2**17

# Lightning's warnings about what is intended here: runs measured in steps, few batches, no workers, batches that no
# DataLoader makes, and no batches at all where everything is finished.
EXPECTED_WARNINGS = (
    r"`max_epochs` was not set",
    r"The number of training batches",
    r".*does not have many workers",
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
    r"Couldn't infer the batch indices",
    r"Total length of `(RequestBatches|BatchLoader)` across ranks is zero",
)
LOG_LEVELS = {
    "lightning.pytorch": logging.WARNING,
    "lightning.fabric": logging.WARNING,
    # The published configs of AutoencoderTiny have a key that its constructor does not know, and diffusers warns of it.
    "diffusers.configuration_utils": logging.ERROR,
}


@contextmanager
def prepared_process() -> Iterator[None]:
    """Keep freed memory, and hide expected warnings and logs until the block ends.

    Raises:
        InputError: In place of an error of wandb, such as a login that is missing.
    """
    keep_freed_memory()
    levels = {name: logging.getLogger(name).level for name in LOG_LEVELS}
    with warnings.catch_warnings(), hide_thread_disk_errors():
        for message in EXPECTED_WARNINGS:
            warnings.filterwarnings("ignore", message)
        for name, level in LOG_LEVELS.items():
            logging.getLogger(name).setLevel(level)
        try:
            yield
        except Exception as error:
            if type(error).__module__.partition(".")[0] != "wandb":
                raise
            remedy = "Log in with 'wandb login', or set WANDB_MODE=offline, and run the same command again"
            raise InputError("logger", f"wandb, which says: {short(error)}", "a logger that works", remedy) from error
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)
            _end_wandb()


def _end_wandb() -> None:
    """End the run of wandb, if a command began one: the next command of this process would go on in it."""
    wandb = sys.modules.get("wandb")
    if wandb is not None and wandb.run is not None:
        wandb.finish()


def end_with_parent(parent: int) -> None:
    """Let the kernel kill this process as soon as its parent has ended, however it ended. Linux alone can do this.

    The processes that a strategy of several devices starts call this, too, since they inherit the variable ``PARENT``.

    Args:
        parent: The process that must be the parent; another one says that it has ended already.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(SIGNAL_AT_PARENTS_END, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        if PARENT in os.environ:
            os.environ[PARENT] = str(os.getpid())


def keep_freed_memory() -> None:
    """Let the C library keep freed memory for the next step, where it can (glibc).

    By default, glibc returns the memory of activations to the kernel and gets each page anew, set to zero, in every
    step. This takes a third of the time of training a ConvNet on a CPU, and half of that of scoring with an
    EfficientNet. Programs that train on a CPU through the Python interface may call this function once.
    """
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "mallopt"):
        if not library.mallopt(MMAP_THRESHOLD, LARGEST):
            library.mallopt(MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD_BEFORE)
        library.mallopt(TRIM_THRESHOLD, LARGEST)
