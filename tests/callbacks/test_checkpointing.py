import doctest
import errno
import os
import resource
import signal
import tempfile
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader

from dgs_lightning.callbacks import checkpointing
from dgs_lightning.callbacks.checkpointing import EpochCheckpoint, ResumeCheckpoint
from dgs_lightning.errors import InputError


class Counter(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return self.weight.sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1.0)


class Fail(pl.Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
        if trainer.global_step == self.step:
            raise RuntimeError("power cut")


def train(root: Path, steps: int, *extra: pl.Callback) -> Counter:
    trainer = pl.Trainer(
        max_steps=steps,
        callbacks=[*extra, ResumeCheckpoint(every_n_steps=4)],
        logger=TensorBoardLogger(root),
        default_root_dir=root,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
    )
    module = Counter()
    data: DataLoader[Tensor] = DataLoader(torch.zeros(50))  # type: ignore[arg-type]
    trainer.fit(module, data, ckpt_path=ResumeCheckpoint.find(root))
    return module


def saved(root: Path) -> dict[str, Tensor | int]:
    content: dict[str, Tensor | int] = torch.load(root / "checkpoints" / "last.ckpt", weights_only=True)
    return content


def test_the_last_step_is_saved_whatever_the_interval(tmp_path: Path) -> None:
    train(tmp_path, 6)
    assert saved(tmp_path)["global_step"] == 6
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["last.ckpt"]


def test_a_broken_run_resumes_from_the_last_checkpoint_under_any_logger(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="power cut"):
        train(tmp_path, 10, Fail(7))
    assert saved(tmp_path)["global_step"] == 4
    assert train(tmp_path, 10).weight.item() == -10
    assert saved(tmp_path)["global_step"] == 10


def test_a_run_can_be_moved_and_extended(tmp_path: Path) -> None:
    train(tmp_path / "here", 4)
    (tmp_path / "here").rename(tmp_path / "there")
    assert train(tmp_path / "there", 6).weight.item() == -6


def test_a_full_disk_is_explained_and_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    def train_without_a_log(steps: int) -> None:
        quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        trainer = pl.Trainer(
            max_steps=steps, callbacks=[ResumeCheckpoint()], default_root_dir=tmp_path, accelerator="cpu", **quiet
        )
        data: DataLoader[Tensor] = DataLoader(torch.zeros(50))  # type: ignore[arg-type]
        trainer.fit(Counter(), data, ckpt_path=ResumeCheckpoint.find(tmp_path))

    train_without_a_log(2)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, limit[1]))
    try:
        with pytest.raises(InputError, match=r"last\.ckpt: found file too large, .*Free space"):
            train_without_a_log(4)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert saved(tmp_path)["global_step"] == 2


@pytest.mark.parametrize(
    ("harm", "found"), [("truncated", "a broken file"), ("pickle", "a pickle with more in it than a plain checkpoint")]
)
def test_a_checkpoint_that_is_broken_or_could_run_code_is_refused(tmp_path: Path, harm: str, found: str) -> None:
    train(tmp_path, 2)
    path = tmp_path / "checkpoints" / "last.ckpt"
    if harm == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    else:
        torch.save({"state_dict": Path("not plain")}, path)
    with pytest.raises(InputError, match=rf"last\.ckpt: found {found}"):
        train(tmp_path, 4)


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_the_examples_of_the_docstrings_run() -> None:
    results = doctest.testmod(checkpointing)
    assert results.attempted > 10
    assert not results.failed


def test_temporary_files_of_a_checkpoint_lie_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    mkstemp = tempfile.mkstemp

    def watched(*args: Any, **kwargs: Any) -> tuple[int, str]:  # noqa: ANN401
        made.append(mkstemp(*args, **kwargs)[1])
        return os.open(made[-1], os.O_RDWR), made[-1]

    monkeypatch.setattr(tempfile, "mkstemp", watched)
    train(tmp_path, 2)
    assert made
    assert all(Path(name).is_relative_to(tmp_path / "checkpoints") for name in made)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["last.ckpt"]


def test_a_checkpoint_that_may_not_be_read_is_not_to_be_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    train(tmp_path, 2)
    monkeypatch.setattr(torch, "load", refuse)
    with pytest.raises(InputError, match=r"last\.ckpt: found permission denied") as caught:
        ResumeCheckpoint.find(tmp_path)
    assert "Delete" not in str(caught.value)


class EndOfTime(pl.Callback):
    """SLURM's signal shortly before the time of a job ends, at each of some steps, and then the end of the job."""

    def __init__(self, *steps: int) -> None:
        self.steps = steps

    def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
        if trainer.global_step in self.steps:
            os.kill(os.getpid(), signal.SIGUSR1)
        if trainer.global_step == self.steps[-1]:
            raise RuntimeError("time is up")


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Settings of a trainer in a job of SLURM, whose ``scontrol requeue`` does nothing."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "scontrol").write_text("#!/bin/sh\n")
    (tmp_path / "bin" / "scontrol").chmod(0o755)
    for name, value in {"NTASKS": "1", "JOB_ID": "7", "PROCID": "0", "LOCALID": "0", "NODELIST": "here"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return {
        "accelerator": "cpu",
        "plugins": [SLURMEnvironment(auto_requeue=True)],
        "default_root_dir": tmp_path,
        **quiet,
    }


def train_in_slurm(trainer: dict[str, Any], steps: int, *callbacks: pl.Callback) -> Counter:
    module = Counter()
    data: DataLoader[Tensor] = DataLoader(torch.zeros(50))  # type: ignore[arg-type]
    found = next(c for c in callbacks if isinstance(c, ResumeCheckpoint)).find(trainer["default_root_dir"])
    pl.Trainer(max_steps=steps, callbacks=[*callbacks], **trainer).fit(module, data, ckpt_path=found)
    return module


def test_a_requeued_training_goes_on_from_the_signal_and_its_checkpoints_do_not_pile_up(
    slurm: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(RuntimeError, match="time is up"):
        train_in_slurm(slurm, 20, ResumeCheckpoint(every_n_steps=4), EndOfTime(5, 6))
    (tmp_path / "hpc_ckpt_9.ckpt.mine").touch()
    torch.save({**saved(tmp_path), "state_dict": {"other": torch.zeros(1)}}, tmp_path / "hpc_ckpt_8.ckpt")
    assert ResumeCheckpoint.find(tmp_path) == tmp_path / "hpc_ckpt_2.ckpt"  # of step 6; the last other one is of step 4
    with pytest.raises(RuntimeError, match="power cut"):
        train_in_slurm(slurm, 20, ResumeCheckpoint(every_n_steps=4), Fail(7))
    assert (tmp_path / "hpc_ckpt_2.ckpt").exists()  # until there is a later one
    assert train_in_slurm(slurm, 20, ResumeCheckpoint(every_n_steps=4)).weight.item() == -20
    assert sorted(path.name for path in tmp_path.glob("hpc*")) == ["hpc_ckpt_8.ckpt", "hpc_ckpt_9.ckpt.mine"]
    assert ResumeCheckpoint.find(tmp_path) == ResumeCheckpoint.path(tmp_path)


def test_a_training_that_resumes_at_the_end_of_an_epoch_leaves_what_a_signal_wrote_within_one(
    slurm: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(RuntimeError, match="time is up"):
        train_in_slurm(slurm, 200, EpochCheckpoint(minutes=0), EndOfTime(60))
    assert list(tmp_path.glob("hpc*"))
    assert EpochCheckpoint.find(tmp_path) == ResumeCheckpoint.path(tmp_path)
    assert saved(tmp_path)["global_step"] == 50
    assert not list(tmp_path.glob("hpc*"))
