import ctypes
import logging
import resource
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest
import torch
from lightning.pytorch.cli import LightningCLI
from PIL import Image

from dgs_lightning.commands import cli
from dgs_lightning.commands.cli import check, execute
from dgs_lightning.commands.process import MMAP_THRESHOLD, keep_freed_memory, prepared_process
from dgs_lightning.errors import InputError

COUNT_FAULTS = """
import resource
import torch
from dgs_lightning.commands.process import keep_freed_memory
{call}
for step in range(8):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    activations = [torch.ones(10_000_000) for _ in range(4)]
    del activations
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
PAGES = 4 * 40_000_000 // resource.getpagesize()  # that a step touches


@pytest.mark.skipif(sys.platform != "linux", reason="the setting is glibc's")
@pytest.mark.parametrize(("call", "faults"), [("", "all"), ("keep_freed_memory()", "none")])
def test_the_memory_of_one_step_serves_the_next_without_page_faults(call: str, faults: str) -> None:
    script = COUNT_FAULTS.format(call=call)
    counted = int(subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout)
    assert counted > 0.9 * PAGES if faults == "all" else counted < 0.1 * PAGES


@pytest.mark.skipif(sys.platform != "linux", reason="the setting is glibc's")
def test_an_old_glibc_gets_the_most_that_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []

    class OldGlibc:
        def mallopt(self, parameter: int, value: int) -> bool:
            fits = parameter != MMAP_THRESHOLD or value <= 32 * 1024 * 1024
            taken.append((parameter, fits))
            return fits

    monkeypatch.setattr(ctypes, "CDLL", lambda _: OldGlibc())
    keep_freed_memory()
    assert (MMAP_THRESHOLD, True) in taken


TRAIN = """
import ctypes, logging, sys, threading, warnings
import lightning.pytorch as pl
import dgs_lightning

for name in dgs_lightning.__all__:
    getattr(dgs_lightning, name)
import dgs_lightning.models.features
import diffusers.configuration_utils, matplotlib  # whose own settings of the process are theirs

def state():
    loggers = {name: logging.getLogger(name).level for name in sorted(logging.root.manager.loggerDict)}
    loggers = {k: v for k, v in loggers.items() if "lightning" in k or "diffusers" in k}
    return list(warnings.filters), loggers, threading.excepthook

class Library(ctypes.CDLL):
    def __getattr__(self, name):
        assert name != "mallopt", "mallopt was called"
        return super().__getattr__(name)

ctypes.CDLL = Library
before = state()
images, root = sys.argv[1:]
quiet = dict(logger=False, enable_progress_bar=False, enable_model_summary=False)
quiet.update(accelerator="cpu", default_root_dir=root)
data = dict(train=images, val=images, predict=images, batch_size=4)
RUN
assert state() == before, state()
"""
FIT = """
from dgs_lightning import ClassificationTask, EpochCheckpoint, ImageDataModule
trainer = pl.Trainer(max_steps=1, callbacks=[EpochCheckpoint()], **quiet)
trainer.fit(ClassificationTask("convnet2"), ImageDataModule(**data))
"""
PREDICT = """
from dgs_lightning import EncodingTask, ImageDataModule, LatentWriter
for _ in range(2):
    trainer = pl.Trainer(callbacks=[LatentWriter(root + "/latents")], **quiet)
    trainer.predict(EncodingTask("pixels"), ImageDataModule(**data), return_predictions=False)
"""


@pytest.mark.parametrize("run", [FIT, PREDICT], ids=["fit", "predict"])
def test_the_library_changes_nothing_of_the_process(run: str, tmp_path: Path) -> None:
    for label in "ab":
        (tmp_path / "images" / label).mkdir(parents=True)
        for index in range(4):
            Image.new("RGB", (8, 8), (index, index, 9)).save(tmp_path / "images" / label / f"{index}.png")
    arguments = [sys.executable, "-c", TRAIN.replace("RUN", run), str(tmp_path / "images"), str(tmp_path / "run")]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_command_gives_back_what_it_sets() -> None:
    logger = logging.getLogger("lightning.pytorch")
    before = list(warnings.filters), logger.level, threading.excepthook
    with prepared_process():
        assert logger.level == logging.WARNING
        with warnings.catch_warnings(record=True) as caught:
            warnings.warn("Couldn't infer the batch indices fetched from your dataloader", UserWarning, stacklevel=1)
        assert not caught
    assert (list(warnings.filters), logger.level, threading.excepthook) == before


def test_a_command_computes_with_the_threads_that_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", given.append)

    def export(weights: str, output: str) -> str:
        return f"{weights} in {output}"

    monkeypatch.setattr(cli, "function_of", lambda _: export)
    execute("export", ["--weights=w", "--output=o", "--threads=3"])
    execute("export", ["--weights=w", "--output=o"])
    assert given == [3]
    with pytest.raises(InputError, match=r"threads.*0"):
        execute("export", ["--weights=w", "--output=o", "--threads=0"])
    with pytest.raises(InputError, match=r"threads.*0"):
        check("fit", ["--config=classify/digits", "--data.train=a", "--data.val=a", "--threads=0"])


def test_threads_are_set_before_a_task_is_built(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    order: list[object] = []
    monkeypatch.setattr(torch, "set_num_threads", order.append)
    monkeypatch.setattr(LightningCLI, "instantiate_classes", lambda _: order.append("built"))
    config = tmp_path / "stage.yaml"
    config.write_text("threads: 2\n")
    with pytest.raises(AttributeError, match="trainer"):  # nothing was built
        execute("fit", ["--config=classify/digits", f"--config={config}", "--data.train=a", "--data.val=a"])
    assert order == [2, "built"]


def test_an_error_of_wandb_says_what_to_do() -> None:
    refused = type("UsageError", (Exception,), {"__module__": "wandb.errors.errors"})
    with (
        pytest.raises(InputError, match=r"wandb, which says: No API key configured, .*Log in with 'wandb login'"),
        prepared_process(),
    ):
        raise refused("No API key configured.")
    with pytest.raises(KeyError), prepared_process():
        raise KeyError("ours")
