"""DiffFit: fine-tuning of a DiT by its biases, its label table and added scale vectors."""

from typing import Any, Literal

import torch
from torch import nn

from dgs_lightning.models.dit.layers import Attention, Block
from dgs_lightning.models.dit.network import DiT

FineTuning = Literal["difffit", "bias", "full"]
Trained = Literal["half", "all", "bias", "full"]  # half and all: DiffFit in the first half of the blocks, or in all


def add_difffit(model: DiT, blocks: Literal["half", "all"] = "half") -> None:
    """Add four scale vectors of ones to each of the first half of a model's blocks, or to all its blocks.

    They scale the output of the query-key-value map, of the attention's projection, of the attention branch and of
    the MLP branch (Xie et al., "DiffFit", ICCV 2023; places as in Gu et al., CVPR 2024). A block that already has
    scale vectors keeps them.
    """
    count = model.config.depth // 2 if blocks == "half" else model.config.depth
    for block in model.blocks[:count]:
        add_scales(block)


def add_scales(block: Block) -> None:
    """Add the four scale vectors of ones to one block."""
    for module, name, linear in _places(block):
        if getattr(module, name) is None:
            setattr(module, name, nn.Parameter(torch.ones_like(linear.bias)))


def _places(block: Block) -> tuple[tuple[Attention | Block, str, Any], ...]:
    """The four scale vectors of a block: the module and attribute of each, and the linear map that it scales."""
    return (
        (block.attn, "gamma1", block.attn.qkv),
        (block.attn, "gamma2", block.attn.proj),
        (block, "gamma1", block.attn.proj),
        (block, "gamma2", block.mlp.fc2),
    )


def prepare_training(model: DiT, train: Trained) -> None:
    """Add scale vectors as ``train`` asks for, and mark the parameters that are trained."""
    if train == "half" or train == "all":
        add_difffit(model, train)
    mark_trainable(model, "difffit" if train == "half" or train == "all" else train)


def mark_trainable(model: DiT, mode: FineTuning) -> None:
    """Set by ``requires_grad`` which parameters are trained.

    Mode ``difffit`` trains biases, scale vectors and label table; ``bias`` trains biases and label table; ``full``
    trains all parameters except the position table.
    """
    kinds = ("bias", "gamma1", "gamma2") if mode == "difffit" else ("bias",)
    for name, parameter in model.named_parameters():
        partly = name.endswith(kinds) or name.startswith("y_embedder.")
        parameter.requires_grad_(name != "pos_embed" if mode == "full" else partly)


@torch.no_grad()
def merge_difffit(model: DiT) -> None:
    """Multiply a model's scale vectors into the linear maps before them, and remove them. The output stays the same."""
    for block in model.blocks:
        for module, name, linear in _places(block):
            if (gamma := getattr(module, name)) is not None:
                linear.weight.mul_(gamma[:, None])
                linear.bias.mul_(gamma)
                setattr(module, name, None)
