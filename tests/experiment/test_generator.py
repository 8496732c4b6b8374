"""Own images need no generator; its rows come with ``generator=scratch`` or a pretrained DiT."""

import pytest

from dgs_lightning.errors import InputError
from dgs_lightning.experiment.plan import Plan
from dgs_lightning.experiment.settings import load_experiment

FROM_ORIGINALS = ["random", "herding", "ccs", "dgs_ori", "dm", "rded", "rded_dgs"]
GENERATED = ["dit", "dit_dgs", "minimax", "minimax_dgs"]


def planned(*changes: str) -> tuple[list[str], set[str]]:
    """Rows of the table of own images, and the kinds of stages that make them."""
    experiment = load_experiment("own_images", ["data=digits", *changes])
    return experiment.methods, {stage.name.partition("/")[0] for stage in Plan(experiment).everything()}


def test_the_rows_of_own_images_need_no_generator() -> None:
    methods, stages = planned()
    assert methods == FROM_ORIGINALS
    assert not {"latents", "pretrain", "finetune", "pools"} & stages
    assert "estimator" in stages


@pytest.mark.parametrize(("change", "pretrains"), [("generator=scratch", True), ("dit=someone/dit", False)])
def test_a_generator_adds_its_rows(change: str, pretrains: bool) -> None:
    methods, stages = planned(change)
    assert methods == FROM_ORIGINALS + GENERATED
    assert ("pretrain" in stages) == pretrains
    assert {"finetune", "pools"} <= stages


def test_rows_that_are_named_already_are_not_added_twice() -> None:
    methods, _ = planned("generator=scratch", "methods=[minimax, random]")
    assert methods == ["minimax", "random", "dit", "dit_dgs", "minimax_dgs"]


def test_the_published_generator_keeps_its_rows() -> None:
    methods = load_experiment("own_images_dit", ["data=digits"]).methods
    assert methods == ["random", "dgs_ori", "minimax", "minimax_dgs", "full"]


@pytest.mark.parametrize(
    ("name", "changes", "says"),
    [
        ("own_images", ["generator=scratch", "dit=model"], "generator: found scratch, beside dit model"),
        ("quickstart", ["generator=scratch"], "generator: found scratch, but no rows to add"),
        ("own_images", ["generator=gan"], "generator"),
    ],
)
def test_a_generator_that_adds_nothing_or_has_a_rival_is_refused(name: str, changes: list[str], says: str) -> None:
    with pytest.raises(InputError, match=says):
        load_experiment(name, ["data=digits", *changes])
