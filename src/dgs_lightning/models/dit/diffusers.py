"""Conversion between the original names of a DiT's weights and those of diffusers' ``DiTTransformer2DModel``."""

import re
from typing import Annotated, Any, Literal, TypedDict

import torch
from torch import Tensor
from torch.nn import functional

from dgs_lightning.bounds import Between
from dgs_lightning.errors import InputError
from dgs_lightning.models.dit.layers import TimestepEmbedder, position_table
from dgs_lightning.models.dit.network import DiTConfig
from dgs_lightning.seeding import generator

State = dict[str, Tensor]
Size = Annotated[int, Between(1, 1_000_000)]
TIMESTEPS = 1000

# From original names to those of diffusers: within a block, in the embedders, and outside the blocks. Diffusers keeps a
# copy of the embedders in each block. Queries, keys and values are one map in the original and three in diffusers.
_BLOCK = {
    "adaLN_modulation.1": "norm1.linear",
    "attn.proj": "attn1.to_out.0",
    "mlp.fc1": "ff.net.0.proj",
    "mlp.fc2": "ff.net.2",
}
_EMBEDDERS = {
    "t_embedder.mlp.0": "norm1.emb.timestep_embedder.linear_1",
    "t_embedder.mlp.2": "norm1.emb.timestep_embedder.linear_2",
    "y_embedder.embedding_table": "norm1.emb.class_embedder.embedding_table",
}
_OUTSIDE = {
    "x_embedder.proj": "pos_embed.proj",
    "final_layer.adaLN_modulation.1": "proj_out_1",
    "final_layer.linear": "proj_out_2",
}
_SETTINGS = {  # from fields of DiTConfig to diffusers' names of settings
    "input_size": "sample_size",
    "num_classes": "num_embeds_ada_norm",
    "in_channels": "in_channels",
    "patch_size": "patch_size",
    "depth": "num_layers",
    "num_heads": "num_attention_heads",
}


class Settings(TypedDict):
    """Content of the ``config.json`` of a ``DiTTransformer2DModel``. Other keys are allowed."""

    _class_name: Literal["DiTTransformer2DModel"]
    sample_size: Size
    num_embeds_ada_norm: Size
    in_channels: Size
    out_channels: Size
    patch_size: Size
    num_layers: Size
    num_attention_heads: Size
    attention_head_dim: Size


_QKV = ("attn1.to_q", "attn1.to_k", "attn1.to_v")


def to_diffusers(state: State, config: DiTConfig) -> State:
    """Convert a state dict without DiffFit's scales from the original names to those of diffusers.

    Raises:
        InputError: If the MLPs are not four times as wide as the model, the only width that diffusers supports.
    """
    if config.mlp_ratio != 4:
        found = f"mlp_ratio {config.mlp_ratio:g}"
        raise InputError.setting("export to diffusers", found, "4", "Train a model with mlp_ratio 4")
    renamed = {}
    for name, tensor in state.items():
        module, _, kind = name.rpartition(".")
        number, _, inside = module.removeprefix("blocks.").partition(".")
        if module in _OUTSIDE:
            renamed[f"{_OUTSIDE[module]}.{kind}"] = tensor
        elif module in _EMBEDDERS:
            for index in range(config.depth):
                renamed[f"transformer_blocks.{index}.{_EMBEDDERS[module]}.{kind}"] = tensor.clone()
        elif inside in _BLOCK:
            renamed[f"transformer_blocks.{number}.{_BLOCK[inside]}.{kind}"] = tensor
        elif inside == "attn.qkv":
            for part, third in zip(_QKV, tensor.chunk(3), strict=True):
                renamed[f"transformer_blocks.{number}.{part}.{kind}"] = third.clone()
    return renamed


def to_original(state: State, config: DiTConfig, where: object) -> State:
    """Convert a state dict from the names of diffusers to the original ones. Unknown names stay as they are.

    Raises:
        InputError: If the copies of an embedder differ; the original has only one.
    """
    original = {"pos_embed": position_table(config.hidden_size, config.input_size // config.patch_size)}
    known = {new: old for table in (_BLOCK, _EMBEDDERS, _OUTSIDE) for old, new in table.items()}
    for name, tensor in state.items():
        module, _, kind = name.rpartition(".")
        inside = re.sub(r"^transformer_blocks\.\d+\.", "", module)
        block = "" if inside == module else f"blocks.{module.split('.')[1]}."
        if inside == _QKV[0]:
            parts = [state[name.replace(_QKV[0], part)] for part in _QKV]
            original[f"{block}attn.qkv.{kind}"] = torch.cat(parts)
        elif known.get(inside) in _EMBEDDERS:
            if not torch.equal(original.setdefault(f"{known[inside]}.{kind}", tensor), tensor):
                found, expected = f"blocks with different copies of {known[inside]}", "the same copy in all blocks"
                raise InputError.weights(where, found, expected, "Give a model whose copies were trained tied")
        elif inside not in _QKV:
            original[f"{block}{known.get(inside, inside)}.{kind}"] = tensor
    return original


@torch.no_grad()
def with_diffusers_frequencies(original: TimestepEmbedder) -> TimestepEmbedder:
    """Timestep embedder with the frequencies of diffusers that gives the original embedding of each timestep.

    The first layer is random; the second layer solves the 1,000 linear equations, one for each timestep. A model
    narrower than 1,000 has too few unknowns for them.
    """
    t = torch.arange(TIMESTEPS)
    embeddings = original(t).double()
    width = embeddings.shape[1]
    fitted = TimestepEmbedder(width, "diffusers")
    sinusoids = fitted.sinusoids(t)
    first = 0.4 * torch.randn(width, sinusoids.shape[1], generator=generator("frequencies"))  # well conditioned
    hidden = functional.silu(sinusoids @ first.T).double()
    equations = torch.cat([hidden, torch.ones(TIMESTEPS, 1)], 1)
    solution = torch.linalg.lstsq(equations, embeddings, driver="gelsd").solution.float()
    second = {"mlp.2.weight": solution[:-1].T, "mlp.2.bias": solution[-1]}
    fitted.load_state_dict({"mlp.0.weight": first, "mlp.0.bias": torch.zeros(width), **second})
    return fitted


def config_from_diffusers(settings: Settings) -> DiTConfig:
    """Architecture of a ``DiTTransformer2DModel`` from its ``config.json``.

    The published DiT-XL/2 of 1,000 classes was converted from the original weights. It keeps the timestep frequencies
    of their training; stock diffusers runs it with slightly different ones.
    """
    same: dict[str, Any] = {field: settings[name] for field, name in _SETTINGS.items()}  # type: ignore[literal-required]
    return DiTConfig(
        **same,
        hidden_size=settings["num_attention_heads"] * settings["attention_head_dim"],
        learn_sigma=settings["out_channels"] == 2 * settings["in_channels"],
        frequencies="original" if (same["depth"], same["num_classes"]) == (28, 1000) else "diffusers",
    )


def diffusers_settings(config: DiTConfig) -> dict[str, Any]:
    """Content of the ``config.json`` of a ``DiTTransformer2DModel``."""
    return {name: getattr(config, field) for field, name in _SETTINGS.items()} | {
        "_class_name": "DiTTransformer2DModel",
        "attention_head_dim": config.hidden_size // config.num_heads,
        "out_channels": config.out_channels,
        "norm_eps": 1e-6,
    }
