import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from dgs_lightning.errors import InputError
from dgs_lightning.models.dit.difffit import add_difffit
from dgs_lightning.models.dit.layers import position_table
from dgs_lightning.models.dit.network import DiT, DiTConfig, initialise

TINY = DiTConfig(input_size=4, num_classes=3, in_channels=2, hidden_size=16, depth=2, num_heads=2)


def random_dit(config: DiTConfig = TINY, seed: int = 0) -> DiT:
    model = DiT(config).eval()
    random = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.2, generator=random)
    return model


@pytest.mark.golden
def test_forward_equals_the_published_implementation(golden_diffusion: dict[str, Tensor], golden_dit: DiT) -> None:
    out = golden_dit(*(golden_diffusion[name] for name in ("x", "t", "y")))
    torch.testing.assert_close(out, golden_diffusion["forward_out"], rtol=1e-4, atol=1e-5)


@pytest.mark.golden
def test_the_position_table_equals_the_published_one(golden: Path) -> None:
    published = load_file(golden / "dit_minimax_state.safetensors")["pos_embed"]
    torch.testing.assert_close(position_table(published.shape[2], int(published.shape[1] ** 0.5)), published)


@pytest.mark.golden
def test_the_largest_size_has_the_published_number_of_parameters(golden: Path) -> None:
    expected = json.loads((golden / "models.json").read_text())["xl_total"]
    with torch.device("meta"):
        model = DiT(DiTConfig.named("DiT-XL/2", input_size=32, num_classes=1000))
        add_difffit(model)
    assert sum(parameter.numel() for parameter in model.parameters()) == expected
    assert not model.pos_embed.requires_grad
    assert model.pos_embed.numel() == 294_912


def test_without_learned_sigma_the_output_has_the_channels_of_the_input() -> None:
    model = random_dit(DiTConfig(4, 3, in_channels=2, hidden_size=16, depth=1, num_heads=2, learn_sigma=False))
    x = torch.randn(5, 2, 4, 4)
    assert model(x, torch.arange(5), torch.zeros(5, dtype=torch.long)).shape == x.shape


def test_unpatchify_inverts_the_order_of_patches() -> None:
    model = DiT(DiTConfig(4, 3, in_channels=3, hidden_size=16, depth=1, num_heads=2, learn_sigma=False))
    image = torch.arange(2 * 3 * 4 * 4.0).reshape(2, 3, 4, 4)
    patches = image.unfold(2, 2, 2).unfold(3, 2, 2)  # (B, C, rows, columns, P, P)
    tokens = patches.permute(0, 2, 3, 4, 5, 1).reshape(2, 4, 12)
    assert torch.equal(model.unpatchify(tokens), image)


def test_labels_are_dropped_in_training_mode_alone() -> None:
    model = random_dit(DiTConfig(4, 3, in_channels=2, hidden_size=16, depth=1, num_heads=2, class_dropout_prob=1.0))
    x, t, y = torch.randn(4, 2, 4, 4), torch.arange(4), torch.tensor([0, 1, 2, 0])
    null = torch.full_like(y, model.null_label)
    unconditional, conditional = model(x, t, null), model(x, t, y)
    assert not torch.equal(unconditional, conditional)
    assert torch.equal(model.train()(x, t, y), unconditional)


def test_a_given_mask_decides_which_labels_are_dropped() -> None:
    model = random_dit().train()
    x, t, y = torch.randn(3, 2, 4, 4), torch.arange(3), torch.tensor([0, 1, 2])
    dropped = model(x, t, y, drop=torch.tensor([True, False, True]))
    nothing = torch.zeros(3, dtype=torch.bool)
    torch.testing.assert_close(dropped, model(x, t, torch.tensor([3, 1, 3]), drop=nothing))


def test_label_dropout_draws_once_a_forward() -> None:
    model = random_dit().train()
    x, t, y = torch.randn(8, 2, 4, 4), torch.arange(8), torch.zeros(8, dtype=torch.long)
    torch.manual_seed(3)
    out = model(x, t, y)
    torch.manual_seed(3)
    drop = torch.rand(8) < model.config.class_dropout_prob
    torch.testing.assert_close(out, model(x, t, y, drop=drop))


def test_gradients_are_the_same_with_checkpointing() -> None:
    model = random_dit()
    x, t, y = torch.randn(2, 2, 4, 4), torch.arange(2), torch.tensor([0, 1])
    gradients = []
    for model.checkpointing in (False, True):
        model.zero_grad()
        model(x, t, y).square().sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    torch.testing.assert_close(gradients[0], gradients[1])


def test_a_fresh_model_predicts_zero_and_depends_on_its_seed_alone() -> None:
    states = []
    for global_seed, seed in ((0, 7), (1, 7), (0, 8)):
        torch.manual_seed(global_seed)
        model = DiT(TINY)
        initialise(model, seed)
        states.append(model.state_dict())
    assert not model(torch.randn(1, 2, 4, 4), torch.tensor([5]), torch.tensor([0])).any()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not torch.equal(states[0]["x_embedder.proj.weight"], states[2]["x_embedder.proj.weight"])


def test_a_model_of_1000_classes_knows_them_by_wordnet_id() -> None:
    with torch.device("meta"):
        model = DiT(DiTConfig(4, 1000, hidden_size=16, depth=1, num_heads=2))
    assert model.labels[0] == "n01440764"
    assert list(model.labels) == sorted(model.labels)
    assert model.class_indices(["n02096294", "n01440764"]).tolist() == [193, 0]


def test_relabelling_keeps_the_rows_of_known_labels_and_starts_new_ones_at_the_null_label() -> None:
    model = DiT(TINY, labels=["cat", "dog", "cow"])
    cat, _, cow, null = model.y_embedder.embedding_table.weight.clone()
    model.relabel(["cow", "owl", "cat", "fox"])
    assert model.labels == ("cow", "owl", "cat", "fox")
    assert model.null_label == 4
    torch.testing.assert_close(model.y_embedder.embedding_table.weight, torch.stack([cow, null, cat, null, null]))
    assert model.y_embedder.embedding_table.weight.requires_grad


def test_a_label_listed_twice_is_refused() -> None:
    with pytest.raises(InputError, match="found 2 different labels, expected 3"):
        DiT(TINY, labels=["cat", "dog", "cat"])


def test_an_unknown_label_is_named() -> None:
    with pytest.raises(InputError, match=r"found 1 unknown label \(cat\), expected labels of the model"):
        DiT(TINY).class_indices(["0", "cat"])


@pytest.mark.parametrize("name", ["DiT-M/2", "S", "DiT-S/two"])
def test_an_unknown_size_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="DiT-S/2"):
        DiTConfig.named(name, input_size=32, num_classes=10)


def test_a_patch_that_does_not_divide_the_input_is_refused() -> None:
    with pytest.raises(InputError, match="a patch_size that divides it"):
        DiTConfig(input_size=9, num_classes=10)


@pytest.mark.parametrize(
    ("setting", "value", "expected"),
    [
        ("depth", 0, "a whole number, at least 1"),
        ("depth", 2.0, "a whole number, at least 1"),
        ("hidden_size", 18, "a multiple of 4"),
        ("mlp_ratio", "4", "a number"),
        ("frequencies", "other", "one of original, diffusers"),
    ],
)
def test_what_no_dit_is_built_of_is_refused(setting: str, value: Any, expected: str) -> None:  # noqa: ANN401
    with pytest.raises(InputError, match=f"DiT {setting}: found {value!r}, expected {expected}"):
        replace(TINY, **{setting: value})
