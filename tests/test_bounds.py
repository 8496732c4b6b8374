import doctest
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import lightning as L
import pytest
import torch
from jsonargparse import ArgumentParser, Namespace

from dgs_lightning import bounds
from dgs_lightning.bounds import (
    FINITE,
    Above,
    AtLeast,
    Between,
    Group,
    OneOf,
    check_bounds,
    place_in_groups,
    save_settings,
    with_defaults,
)
from dgs_lightning.commands.cli import check
from dgs_lightning.errors import InputError

NAN, INF = float("nan"), float("inf")


@dataclass(frozen=True)
class Optimizer(Group):
    """How it is optimised.

    Args:
        lr: Learning rate.
        betas: Decay of the moments.
        kind: Algorithm.
    """

    lr: Annotated[float, AtLeast(0)] = 0.1
    betas: Annotated[tuple[float, float], Between(0, 1, open="right")] = (0.9, 0.99)
    kind: Literal["sgd", "adam"] = "sgd"


@dataclass(frozen=True)
class Folds(Group):
    """Which images are left out.

    Args:
        folds: How many folds.
        fold: The one.
    """

    folds: Annotated[int, Between(2, 1000)]
    fold: int = 0

    @classmethod
    def check_combination(cls, settings: Mapping[str, Any]) -> None:
        """Refuse a fold that does not exist."""
        if not 0 <= settings["fold"] < settings["folds"]:
            raise InputError("fold", found=str(settings["fold"]), expected="one of the folds", remedy="Correct it")


class Task(L.LightningModule):
    """A task.

    Args:
        depth: Number of blocks.
        mean: Means of the channels.
        optimizer: How it is optimised.
        left_out: Which images are left out.
    """

    def __init__(
        self,
        depth: Annotated[int | None, Between(1, 1024)] = None,
        mean: Annotated[list[float] | None, FINITE] = None,
        optimizer: Optimizer = Optimizer(),
        left_out: Folds | None = None,
    ) -> None:
        super().__init__()
        save_settings(self)
        self.optimizer = Optimizer.of(optimizer)
        self.left_out = None if left_out is None else Folds.of(left_out)
        self.layer = torch.nn.Linear(1, 1)


class Child(Task):
    """A user's subclass, with a parameter of its own."""

    def __init__(self, width: Annotated[int, Above(0)] = 1, **settings: Any) -> None:  # noqa: ANN401
        super().__init__(**settings)
        self.width = width


@pytest.mark.parametrize(
    ("limit", "inside", "outside", "words"),
    [
        (Between(1, 1024), [1, 1024, "auto"], [0, 1025, NAN, INF], "at least 1, at most 1024"),
        (Between(0, 1, open="left"), [1e-300, 1], [0, 1.5, NAN], "above 0, at most 1"),
        (Between(0, 1, open="right"), [0, 0.5], [1, -0.1, NAN], "at least 0, below 1"),
        (Between(0, 1, open="both"), [0.5], [0, 1, NAN], "above 0, below 1"),
        (AtLeast(0), [0, 10**400], [-1, NAN, INF], "a finite number, at least 0"),
        (Above(0), [1e-9], [0, INF], "a finite number, above 0"),
        (FINITE, [-1e300, 0], [NAN, INF, -INF], "a finite number"),
        (OneOf(1, 3), [1, 3], [2, "1"], "one of 1, 3"),
    ],
)
def test_a_limit_knows_what_is_inside_and_says_so(
    limit: Between | OneOf, inside: list[object], outside: list[object], words: str
) -> None:
    assert str(limit) == words
    assert all(limit.allows(value) for value in inside)
    assert not any(limit.allows(value) for value in outside)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"depth": 0}, "depth: found 0, expected at least 1, at most 1024"),
        ({"mean": [0.5, NAN]}, "mean: found [0.5, nan], expected a finite number"),
        ({"optimizer": {"lr": -1}}, "optimizer.lr: found -1, expected a finite number, at least 0"),
        ({"optimizer": {"betas": (0.9, 1.0)}}, "optimizer.betas: found (0.9, 1.0), expected at least 0, below 1"),
        ({"optimizer": {"kind": "nope"}}, "optimizer.kind: found nope, expected one of sgd, adam"),
        ({"left_out": {"folds": 1}}, "left_out.folds: found 1"),
        ({"left_out": {"folds": 2, "fold": 2}}, "left_out.fold: found 2, expected one of the folds"),
    ],
)
@pytest.mark.parametrize("owner", [Task, Child, Task.__init__])
def test_a_setting_is_checked_against_the_signature(
    owner: Callable[..., Any], settings: dict[str, Any], says: str
) -> None:
    with pytest.raises(InputError) as refused:
        check_bounds(owner, settings)
    assert str(refused.value).startswith(says)


def test_settings_inside_their_limits_are_accepted() -> None:
    check_bounds(Task, {"depth": 3, "mean": (0.1, 0.2), "optimizer": Optimizer(), "left_out": None, "unknown": -1})
    check_bounds(Task, {})


def test_a_constructor_and_a_group_refuse_by_themselves() -> None:
    with pytest.raises(InputError, match="depth: found 0"):
        Task(depth=0)
    with pytest.raises(InputError, match="width: found 0"):
        check_bounds(Child, {"width": 0})
    with pytest.raises(InputError, match="depth: found 0"):
        Child(depth=0)
    with pytest.raises(InputError, match="lr: found nan"):
        Optimizer(lr=NAN)
    with pytest.raises(InputError, match="fold: found 5"):
        Folds(folds=5, fold=5)


def test_groups_are_stored_as_dictionaries_that_weights_only_loads(tmp_path: Path) -> None:
    task = Task(depth=2, optimizer=Optimizer(lr=0.5), left_out=Folds(folds=3))
    assert task.hparams["optimizer"] == {"lr": 0.5, "betas": (0.9, 0.99), "kind": "sgd"}
    assert task.hparams_initial == task.hparams
    trainer = L.Trainer(logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu")
    trainer.strategy.connect(task)
    trainer.save_checkpoint(tmp_path / "task.ckpt")
    torch.load(tmp_path / "task.ckpt", weights_only=True)
    loaded = Task.load_from_checkpoint(tmp_path / "task.ckpt", weights_only=True)
    assert loaded.optimizer == task.optimizer
    assert loaded.left_out == Folds(folds=3)
    assert loaded.hparams == task.hparams


def parse(*args: str) -> Namespace:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(L.LightningModule, "model")
    built: Namespace = parser.instantiate(parser.parse_args(args))
    return built


def test_a_group_has_nested_keys_on_the_command_line_and_in_yaml() -> None:
    task = parse(
        f"--model={__name__}.Task", "--model.optimizer.lr=0.5", "--model.left_out.folds=4", "--model.depth=3"
    ).model
    assert task.optimizer == Optimizer(lr=0.5)
    assert task.left_out == Folds(folds=4)
    assert task.hparams["depth"] == 3


FIT = ["--data=ImageDataModule", f"--model={__name__}.Task"]


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--model.lr=0.5"], "model.lr: found a setting without its group, expected model.optimizer.lr."),
        (["--model.optimizer=sgd"], "expected model.optimizer.{lr, betas, kind}. Rename it."),
        (["--model.folds=4"], "expected model.left_out.folds."),
        (["--model.optimizer.lr=-1"], "optimizer.lr: found -1.0, expected a finite number, at least 0"),
        (["--model.left_out.folds=4", "--model.left_out.fold=4"], "left_out.fold: found 4, expected one of the folds"),
        (["--model.depth=0"], "depth: found 0"),
        (["--model.nonsense=0"], "Option 'nonsense' is not accepted"),
        (["--trainer.max_epochs=-2"], "max_epochs: found -2, expected a finite number, at least -1"),
        (["--seed_everything=-1"], "seed_everything: found -1, expected at least 0, at most 4294967295"),
    ],
)
def test_the_command_line_checks_before_it_builds(args: list[str], says: str) -> None:
    with pytest.raises(InputError) as refused:
        check("fit", [*FIT, *args])
    assert says in str(refused.value)


def test_an_old_flat_key_in_yaml_is_answered_with_its_new_place(tmp_path: Path) -> None:
    model = {"class_path": f"{__name__}.Task", "init_args": {"optimizer": {"kind": "adam"}, "lr": 0.5}}
    (tmp_path / "old.yaml").write_text(json.dumps({"model": model, "data": "ImageDataModule"}))
    with pytest.raises(InputError, match=r"model\.lr: .* expected model\.optimizer\.lr\. Rename it"):
        check("fit", ["--config", str(tmp_path / "old.yaml")])


def test_the_place_of_a_setting_that_moved_into_a_group_is_found() -> None:
    assert place_in_groups(Task, "lr") == "optimizer.lr"
    assert place_in_groups(Child, "folds") == "left_out.folds"
    assert place_in_groups(Task, "nonsense") is None


def test_missing_settings_have_their_defaults_in_groups_too() -> None:
    complete = with_defaults(Task, {"optimizer": {"lr": 1.0}})
    assert complete["optimizer"] == {"lr": 1.0, "betas": (0.9, 0.99), "kind": "sgd"}
    assert with_defaults(Folds, {}) == {"fold": 0}  # a setting without default stays missing


def test_the_example_runs() -> None:
    names = vars(bounds) | {"LightningModule": L.LightningModule}
    assert doctest.testmod(bounds, extraglobs=names).failed == 0
