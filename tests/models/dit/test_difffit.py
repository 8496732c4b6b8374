import json
from pathlib import Path
from typing import Literal

import pytest
import torch

from dgs_lightning.models.dit.difffit import FineTuning, add_difffit, mark_trainable, merge_difffit
from dgs_lightning.models.dit.network import DiT, DiTConfig

TINY = DiTConfig(input_size=4, num_classes=3, in_channels=2, hidden_size=16, depth=4, num_heads=2)


def trainable(model: DiT) -> list[str]:
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]


@pytest.mark.golden
def test_the_published_parameters_are_trained(golden: Path) -> None:
    published = json.loads((golden / "models.json").read_text())
    with torch.device("meta"):
        small = DiT(DiTConfig(input_size=8, num_classes=10, hidden_size=16, num_heads=2))
        large = DiT(DiTConfig.named("DiT-XL/2", input_size=32, num_classes=1000))
    for model in (small, large):
        add_difffit(model)
        mark_trainable(model, "difffit")
    assert sorted(trainable(small)) == sorted(published["small_trainable_names"])
    assert sum(p.numel() for p in large.parameters() if p.requires_grad) == published["xl_trainable"]


@pytest.mark.parametrize(("blocks", "count"), [("half", 2), ("all", 4)])
def test_scales_are_added_to_the_first_half_of_the_blocks_or_to_all(blocks: Literal["half", "all"], count: int) -> None:
    model = DiT(TINY)
    add_difffit(model, blocks)
    scaled = {name.split(".")[1] for name, _ in model.named_parameters() if "gamma" in name}
    assert scaled == {str(index) for index in range(count)}


@pytest.mark.parametrize(("mode", "scales", "weights"), [("difffit", 8, 1), ("bias", 0, 1), ("full", 8, 26)])
def test_each_mode_trains_its_parameters(mode: FineTuning, scales: int, weights: int) -> None:
    model = DiT(TINY)
    add_difffit(model)
    mark_trainable(model, mode)
    names = trainable(model)
    assert sum("gamma" in name for name in names) == scales
    assert sum(name.endswith("weight") for name in names) == weights
    assert sum(name.endswith("bias") for name in names) == 25
    assert "pos_embed" not in names


def test_added_scales_change_nothing_and_merging_them_keeps_the_output() -> None:
    torch.manual_seed(0)
    model = DiT(TINY).eval()
    x, t, y = torch.randn(2, 2, 4, 4), torch.tensor([10, 900]), torch.tensor([0, 3])
    plain = model(x, t, y)
    add_difffit(model, "all")
    torch.testing.assert_close(model(x, t, y), plain)
    for name, parameter in model.named_parameters():
        if "gamma" in name:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    scaled = model(x, t, y)
    assert (scaled - plain).abs().max() > 1e-3
    merge_difffit(model)
    assert not [name for name, _ in model.named_parameters() if "gamma" in name]
    torch.testing.assert_close(model(x, t, y), scaled, rtol=1e-5, atol=1e-6)


def test_adding_scales_twice_keeps_the_first_ones() -> None:
    model = DiT(TINY)
    add_difffit(model)
    scales = model.blocks[0].attn.gamma1
    add_difffit(model, "all")
    assert model.blocks[0].attn.gamma1 is scales
