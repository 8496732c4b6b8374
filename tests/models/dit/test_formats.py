import argparse
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from dgs_lightning.errors import InputError
from dgs_lightning.models.dit.difffit import add_difffit, mark_trainable
from dgs_lightning.models.dit.formats import (
    PUBLISHED_LICENCE,
    dit_config,
    dit_labels,
    export_diffusers,
    load_dit,
    published_licences,
    save_dit,
)
from dgs_lightning.models.dit.layers import TimestepEmbedder
from dgs_lightning.models.dit.network import DiT, DiTConfig

TINY = DiTConfig(input_size=4, num_classes=3, in_channels=2, hidden_size=16, depth=2, num_heads=2)
LABELS = ["cat", "dog", "cow"]


def random_dit(
    config: DiTConfig = TINY, labels: list[str] | None = None, difffit: bool = False, spread: float = 0.2
) -> DiT:
    torch.manual_seed(0)
    model = DiT(config, labels).eval()
    if difffit:
        add_difffit(model, "all")
    for name, parameter in model.named_parameters():
        if name != "pos_embed":
            torch.nn.init.normal_(parameter, 1.0 if "gamma" in name else 0.0, spread)
    return model


def output(model: DiT) -> Tensor:
    random = torch.Generator().manual_seed(1)
    side, channels = model.config.input_size, model.config.in_channels
    x = torch.randn(4, channels, side, side, generator=random)
    with torch.no_grad():
        out: Tensor = model(x, torch.tensor([0, 1, 500, 999]), torch.tensor([0, 1, 2, model.null_label]))
    return out


def stock_dit(num_layers: int = 2, num_embeds_ada_norm: int = 3) -> Any:  # noqa: ANN401
    """A ``DiTTransformer2DModel``, whose blocks start with different copies of the embedders."""
    from diffusers import DiTTransformer2DModel

    stock_class: Any = DiTTransformer2DModel
    sizes = {"in_channels": 2, "out_channels": 4, "sample_size": 4}
    return stock_class(2, 8, num_layers=num_layers, num_embeds_ada_norm=num_embeds_ada_norm, **sizes).eval()


def tied(stock: Any) -> Any:  # noqa: ANN401
    first, *others = (block.norm1.emb for block in stock.transformer_blocks)
    for embedders in others:
        embedders.load_state_dict(first.state_dict())
    return stock


def assert_same(found: DiT, expected: DiT) -> None:
    assert not found.training
    torch.testing.assert_close(output(found), output(expected), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "config",
    [
        TINY,
        replace(TINY, learn_sigma=False),
        replace(TINY, hidden_size=1000, depth=1, frequencies="original"),  # wide as the published DiT-XL/2
    ],
    ids=["learned sigma", "fixed sigma", "original frequencies"],
)
def test_an_export_gives_the_same_output_in_stock_diffusers(tmp_path: Path, config: DiTConfig) -> None:
    from diffusers import DiTTransformer2DModel

    stock_class: Any = DiTTransformer2DModel
    model = random_dit(config, difffit=True, spread=0.2 * (16 / config.hidden_size) ** 0.5)
    export_diffusers(model, tmp_path)
    stock, info = stock_class.from_pretrained(tmp_path, subfolder="transformer", output_loading_info=True)
    assert not any(info.values())
    x, t, y = torch.randn(4, 2, 4, 4), torch.tensor([0, 1, 500, 999]), torch.tensor([0, 1, 2, 3])
    with torch.no_grad():
        torch.testing.assert_close(stock.eval()(x, t, y).sample, model(x, t, y), rtol=0, atol=1e-5)
        torch.testing.assert_close(load_dit(str(tmp_path))(x, t, y), model(x, t, y), rtol=0, atol=1e-5)


def test_an_export_is_loaded_again_with_its_labels(tmp_path: Path) -> None:
    model = random_dit(labels=LABELS, difffit=True)
    export_diffusers(model, tmp_path)
    loaded = load_dit(str(tmp_path))
    assert loaded.labels == tuple(LABELS)
    assert_same(loaded, model)
    assert "blocks.0.gamma1" in model.state_dict()


def test_architecture_and_labels_are_known_without_weights(tmp_path: Path) -> None:
    model = random_dit(labels=LABELS)
    save_dit(model, tmp_path / "own")
    export_diffusers(model, tmp_path / "diffusers")
    save_file(random_dit(replace(TINY, num_classes=1000)).state_dict(), tmp_path / "file.safetensors")
    for file in (*tmp_path.glob("own/*.safetensors"), *tmp_path.glob("diffusers/*/*.safetensors")):
        file.unlink()
    for name in ("own", "diffusers"):
        assert dit_config(str(tmp_path / name)) == model.config
        assert dit_labels(str(tmp_path / name)) == LABELS
    assert dit_config("facebook/DiT-XL-2-256") == DiTConfig.named("DiT-XL/2", input_size=32, num_classes=1000)
    labels = dit_labels(str(tmp_path / "file.safetensors"))
    assert labels is not None
    assert labels[193] == "n02096294"
    assert dit_config(str(tmp_path / "missing")) is None
    assert dit_labels(str(tmp_path / "missing")) is None


def test_an_export_too_narrow_for_its_frequencies_warns_and_comes_back_exactly(tmp_path: Path) -> None:
    model = random_dit(replace(TINY, frequencies="original"))
    with pytest.warns(UserWarning, match="timestep frequencies"):
        export_diffusers(model, tmp_path)
    assert_same(load_dit(str(tmp_path)), model)


def test_a_model_that_diffusers_saved_is_loaded(tmp_path: Path) -> None:
    stock = tied(stock_dit())
    stock.save_pretrained(tmp_path)
    x, t, y = torch.randn(4, 2, 4, 4), torch.tensor([0, 1, 500, 999]), torch.tensor([0, 1, 2, 3])
    with torch.no_grad():
        found = load_dit(str(tmp_path))(x, t, y)
        torch.testing.assert_close(found, stock(x, t, y).sample, rtol=0, atol=1e-5)


def test_the_published_architecture_keeps_its_original_frequencies_and_wordnet_ids(tmp_path: Path) -> None:
    tied(stock_dit(num_layers=28, num_embeds_ada_norm=1000)).save_pretrained(tmp_path)
    loaded = load_dit(str(tmp_path))
    assert (loaded.config.frequencies, loaded.labels[193]) == ("original", "n02096294")


def test_copies_of_an_embedder_that_drifted_apart_are_refused(tmp_path: Path) -> None:
    stock_dit().save_pretrained(tmp_path)
    with pytest.raises(InputError, match="different copies of"):
        load_dit(str(tmp_path))


def test_a_pipeline_of_1000_classes_runs_in_stock_diffusers(tmp_path: Path) -> None:
    import diffusers

    stock: Any = diffusers
    stock.AutoencoderKL(block_out_channels=(32,), norm_num_groups=8).save_pretrained(tmp_path / "vae")
    model = random_dit(DiTConfig(4, 1000, in_channels=4, hidden_size=16, depth=2, num_heads=2), difffit=True)
    export_diffusers(model, tmp_path / "pipeline", vae=str(tmp_path / "vae"))
    pipeline = stock.DiTPipeline.from_pretrained(tmp_path / "pipeline")
    pipeline.set_progress_bar_config(disable=True)
    dog = pipeline.get_label_ids(["n02096294"])
    images = pipeline(dog, num_inference_steps=2, generator=torch.Generator().manual_seed(0)).images
    assert (dog, images[0].size) == ([193], (4, 4))
    assert_same(load_dit(str(tmp_path / "pipeline")), model)


def test_a_pipeline_of_other_classes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found 3 classes, expected 1000"):
        export_diffusers(random_dit(), tmp_path, vae="vae")


def test_the_original_file_is_loaded(tmp_path: Path) -> None:
    config = DiTConfig(4, 1000, in_channels=4, hidden_size=384, depth=12, num_heads=6, frequencies="original")
    model = random_dit(config)
    torch.save(model.state_dict(), tmp_path / "DiT-S-2.pt")
    loaded = load_dit(str(tmp_path / "DiT-S-2.pt"))
    assert loaded.config == config
    assert loaded.labels[193] == "n02096294"
    torch.testing.assert_close(loaded.state_dict(), model.state_dict())


def test_a_dit_in_the_wrapping_of_a_training_is_loaded(tmp_path: Path) -> None:
    model = random_dit()
    state = {f"module.{name}": value for name, value in model.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "dit.pt")
    model.t_embedder.divisor = TimestepEmbedder(16, "original").divisor
    assert_same(load_dit(str(tmp_path / "dit.pt"), num_heads=2, labels=LABELS), model)


@pytest.mark.parametrize("weights", ["ema", "raw"])
def test_a_released_minimax_checkpoint_is_loaded(tmp_path: Path, weights: Literal["ema", "raw"]) -> None:
    models = {"model": random_dit(difffit=True), "ema": random_dit(difffit=True)}
    torch.nn.init.normal_(models["ema"].final_layer.linear.weight)
    content: dict[str, Any] = {key: model.state_dict() for key, model in models.items()}
    content |= {"opt": {"state": {0: {"step": torch.tensor(1.0)}}}, "args": argparse.Namespace(model="DiT-XL/2")}
    torch.save(content, tmp_path / "minimax.pt")
    for model in models.values():
        model.t_embedder.divisor = TimestepEmbedder(16, "original").divisor
    loaded = load_dit(str(tmp_path / "minimax.pt"), weights=weights, num_heads=2, labels=LABELS)
    assert loaded.labels == tuple(LABELS)
    assert_same(loaded, models["ema" if weights == "ema" else "model"])


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Command:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.system, (f"touch {tmp_path / 'ran'}",)

    torch.save({"model": random_dit().state_dict(), "args": Command()}, tmp_path / "bad.pt")
    with pytest.raises(InputError, match="a pickle with more in it than a plain checkpoint"):
        load_dit(str(tmp_path / "bad.pt"))
    assert not (tmp_path / "ran").exists()


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    for name, save in (("a.pt", torch.save), ("b.safetensors", save_file)):
        file = tmp_path / name
        save(random_dit().state_dict(), file)
        file.write_bytes(file.read_bytes()[:2000])
        with pytest.raises(InputError, match=rf"{name}: found a broken file"):
            load_dit(str(file))


def test_a_file_of_another_architecture_is_refused(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "linear.pt")
    with pytest.raises(InputError, match="no x_embedder"):
        load_dit(str(tmp_path / "linear.pt"))
    state = random_dit().state_dict()
    state["blocks.1.attn.qkv.weight"] = state["blocks.1.attn.qkv.weight"][:, :3]
    torch.save(state, tmp_path / "odd.pt")
    with pytest.raises(InputError, match=r"found blocks.1.attn.qkv.weight \(48, 3\), expected \(48, 16\)"):
        load_dit(str(tmp_path / "odd.pt"), num_heads=2)
    torch.save(random_dit().state_dict() | {"attn.gamma1": torch.ones(16)}, tmp_path / "outside.pt")
    with pytest.raises(InputError, match=r"found attn.gamma1 \(16,\), expected nothing"):
        load_dit(str(tmp_path / "outside.pt"), num_heads=2)


def test_a_file_of_no_published_size_needs_its_number_of_heads(tmp_path: Path) -> None:
    torch.save(random_dit().state_dict(), tmp_path / "tiny.pt")
    with pytest.raises(InputError, match="Set num_heads"):
        load_dit(str(tmp_path / "tiny.pt"))


@pytest.mark.parametrize("source", ["/no/such/folder", "nobody/no-such-model"])
def test_a_source_that_is_nowhere_is_named(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=source):
        load_dit(source)


def test_a_weights_folder_is_loaded_raw_or_averaged(tmp_path: Path) -> None:
    model, average = random_dit(labels=LABELS), random_dit()
    torch.nn.init.normal_(average.final_layer.linear.weight)
    save_dit(model, tmp_path, ema=dict(average.named_parameters()))
    assert load_dit(str(tmp_path)).labels == tuple(LABELS)
    assert_same(load_dit(str(tmp_path)), average)
    assert_same(load_dit(str(tmp_path), weights="raw"), model)


def test_fine_tuned_weights_are_few_and_refer_to_their_base(tmp_path: Path) -> None:
    save_dit(random_dit(), tmp_path / "pretrain")
    model = load_dit(str(tmp_path / "pretrain"), labels=["2", "owl", "0", "fox"])
    add_difffit(model)
    mark_trainable(model, "difffit")
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, 1.0, 0.2)
    save_dit(model, tmp_path / "finetune", base=tmp_path / "pretrain")
    (tmp_path / "pretrain").rename(tmp_path / "moved")
    (tmp_path / "finetune").rename(tmp_path / "moved" / "finetune")
    with pytest.raises(InputError, match=r"\.\./pretrain"):
        load_dit(str(tmp_path / "moved" / "finetune"))
    (tmp_path / "moved" / "finetune").rename(tmp_path / "finetune")
    (tmp_path / "moved").rename(tmp_path / "pretrain")
    loaded = load_dit(str(tmp_path / "finetune"))
    assert loaded.labels == ("2", "owl", "0", "fox")
    assert_same(loaded, model)
    small, whole = (tmp_path / name / "model.safetensors" for name in ("finetune", "pretrain"))
    assert small.stat().st_size < 0.3 * whole.stat().st_size
    assert str(tmp_path) not in (tmp_path / "finetune" / "config.json").read_text()


def test_a_changed_base_is_refused(tmp_path: Path) -> None:
    save_dit(random_dit(), tmp_path / "base")
    model = load_dit(str(tmp_path / "base"))
    mark_trainable(model, "bias")
    save_dit(model, tmp_path / "tuned", base=tmp_path / "base")
    other = random_dit()
    torch.nn.init.zeros_(other.get_parameter("blocks.0.mlp.fc1.weight"))
    save_dit(other, tmp_path / "base")
    with pytest.raises(InputError, match=r"base \.\./base of .*tuned: found other weights"):
        load_dit(str(tmp_path / "tuned"))


def test_saving_the_same_weights_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_dit(random_dit(), tmp_path / name)
    for file in ("config.json", "model.safetensors"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    assert json.loads((tmp_path / "a" / "config.json").read_text())["base"] is None


def test_terms_of_data_and_weights_stay_with_the_model(tmp_path: Path) -> None:
    model = random_dit()
    model.licences = ("terms of the images",)
    save_dit(model, tmp_path / "own")
    assert load_dit(str(tmp_path / "own")).licences == ("terms of the images",)


def test_only_the_published_size_carries_the_published_licence() -> None:
    largest, smallest = (DiTConfig.named(name, input_size=32, num_classes=10) for name in ("DiT-XL/2", "DiT-S/2"))
    assert published_licences(replace(largest, frequencies="original")) == (PUBLISHED_LICENCE,)
    assert published_licences(replace(largest, frequencies="diffusers")) == ()
    assert published_licences(replace(smallest, frequencies="original")) == ()
