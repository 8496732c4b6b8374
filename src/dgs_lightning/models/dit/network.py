"""The class-conditional diffusion transformer (DiT): architecture, network and initial values."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dgs_lightning.bounds import Between
from dgs_lightning.data.classes import class_list
from dgs_lightning.documents.shapes import check_shape
from dgs_lightning.documents.texts import Unreadable
from dgs_lightning.errors import InputError, listed
from dgs_lightning.models.dit import layers
from dgs_lightning.seeding import generator

Compile = bool | Literal["long"]
LONG = 1e13  # operations from which on a compilation saves time: about three minutes of a core
_SIZES = {"S": (384, 12, 6), "B": (768, 12, 12), "L": (1024, 24, 16), "XL": (1152, 28, 16)}  # width, depth, heads


@dataclass(frozen=True)
class DiTConfig:
    """Architecture of a DiT; ``input_size`` is the side of the square latent, not of the image.

    ``frequencies`` is the spacing of the timestep's sinusoids: the original release divides their range by 128, stock
    diffusers by 127. Weights need the spacing that they were trained with. New models have that of diffusers, so that
    stock diffusers runs them unchanged.

    Raises:
        InputError: If a setting has another type, is too small, or does not fit another one.
    """

    input_size: Annotated[int, Between(0, 4096)]
    num_classes: Annotated[int, Between(1, 1_000_000)]
    in_channels: Annotated[int, Between(1, 4096)] = 4
    patch_size: Annotated[int, Between(1, 4096)] = 2
    hidden_size: Annotated[int, Between(1, 65536)] = 1152
    depth: Annotated[int, Between(1, 1024)] = 28
    num_heads: Annotated[int, Between(1, 4096)] = 16
    mlp_ratio: Annotated[float, Between(0, 1024, open="left")] = 4.0
    learn_sigma: bool = True
    class_dropout_prob: Annotated[float, Between(0, 1)] = 0.1
    frequencies: Literal["original", "diffusers"] = "diffusers"

    def __post_init__(self) -> None:
        """Check that a DiT can be built."""
        try:
            check_shape(asdict(self), DiTConfig)
        except Unreadable as error:
            raise InputError.setting(f"DiT {error.place}", error.found, error.expected) from None
        if self.hidden_size % 4:
            expected = "a multiple of 4, for sines and cosines of column and row"
            raise InputError.setting("DiT hidden_size", self.hidden_size, expected)
        for size, divisor in (("input_size", "patch_size"), ("hidden_size", "num_heads")):
            length, by = getattr(self, size), getattr(self, divisor)
            if length % by:
                expected, remedy = f"a {divisor} that divides it", f"Change {size} or {divisor}"
                raise InputError.setting(f"DiT {size} {length}", f"{divisor} {by}", expected, remedy)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Shape ``(C, h, w)`` of the latents that the model takes."""
        return self.in_channels, self.input_size, self.input_size

    @property
    def out_channels(self) -> int:
        """Channels of the output: the noise, and as many again for a learned sigma."""
        return self.in_channels * (2 if self.learn_sigma else 1)

    @property
    def operations(self) -> int:
        """Floating-point operations of the blocks for one latent. A multiplication and a sum are two."""
        tokens, width = (self.input_size // self.patch_size) ** 2, self.hidden_size
        linear = (4 + 2 * self.mlp_ratio) * width**2  # attention, and the two layers after it, of a token
        return int(2 * self.depth * tokens * (linear + 2 * tokens * width))

    def is_long(self, passes: float) -> bool:
        """Whether forward passes of so many latents take so long that a compilation saves time.

        A backward pass counts as two of them.
        """
        return passes * self.operations >= LONG

    @classmethod
    def named(cls, name: str, **others: Any) -> "DiTConfig":  # noqa: ANN401  (the other fields of this class)
        """Published sizes ``DiT-{S,B,L,XL}/PATCH`` (Peebles & Xie, ICCV 2023, Table 1), with the other fields given.

        Raises:
            InputError: If the name has another form.
        """
        size, _, patch = name.removeprefix("DiT-").partition("/")
        if size not in _SIZES or not patch.isdecimal() or int(patch) == 0:
            expected = f"DiT-SIZE/PATCH with SIZE one of {', '.join(_SIZES)}"
            raise InputError.setting(f"DiT {name!r}", "no such size", expected, "Write for example DiT-S/2")
        hidden_size, depth, num_heads = _SIZES[size]
        return cls(patch_size=int(patch), hidden_size=hidden_size, depth=depth, num_heads=num_heads, **others)


def known_heads(hidden_size: int, depth: int) -> int | None:
    """Number of attention heads of the published size with this width and depth, if there is one."""
    return {(width, count): heads for width, count, heads in _SIZES.values()}.get((hidden_size, depth))


class DiT(nn.Module):
    """Diffusion transformer with adaLN-Zero blocks (Peebles & Xie, "Scalable Diffusion Models with Transformers").

    One embedder of timesteps and labels serves all blocks. In training mode, each forward pass replaces a label by
    the null label with probability ``config.class_dropout_prob``.

    Args:
        config: Architecture.
        labels: Name of each class, in the model's order; by default those of :func:`default_labels`.

    Attributes:
        labels: Name of each class, in the order of the label table.
        licences: Terms that its images inherit from its weights and from the data that it was trained on.
        checkpointing: Whether the backward pass computes the activations of each block again, to save memory.
    """

    def __init__(self, config: DiTConfig, labels: Sequence[str] | None = None) -> None:
        super().__init__()
        self.config = config
        self.labels = default_labels(config.num_classes) if labels is None else _distinct(labels, config.num_classes)
        self.licences: tuple[str, ...] = ()
        self.checkpointing = False
        hidden = config.hidden_size
        patches = nn.Conv2d(config.in_channels, hidden, config.patch_size, config.patch_size)
        self.x_embedder: Any = nn.Sequential(OrderedDict(proj=patches))  # named as in the original state dict
        self.t_embedder = layers.TimestepEmbedder(hidden, config.frequencies)
        table = nn.Embedding(config.num_classes + 1, hidden)  # the last row belongs to the null label
        self.y_embedder: Any = nn.Sequential(OrderedDict(embedding_table=table))
        self.pos_embed = nn.Parameter(layers.position_table(hidden, config.input_size // config.patch_size), False)
        blocks = [layers.Block(hidden, config.num_heads, config.mlp_ratio) for _ in range(config.depth)]
        self.blocks: Sequence[layers.Block] = nn.ModuleList(blocks)  # type: ignore[assignment]
        self.final_layer = layers.FinalLayer(hidden, config.patch_size**2 * config.out_channels)

    @property
    def null_label(self) -> int:
        """Class index that means no class."""
        return self.config.num_classes

    def compile_for(self, passes: float, when: Compile = "long") -> None:
        """Compile the network for forward passes of so many latents; with ``long`` if :meth:`DiTConfig.is_long`."""
        if when is True or (when == "long" and self.config.is_long(passes)):
            self.compile()

    @torch.no_grad()
    def relabel(self, labels: Sequence[str]) -> None:
        """Change the classes of the label table. Known labels keep their rows; new ones start as the null label's row.

        Raises:
            InputError: If a label is listed twice.
        """
        old = dict(zip(self.labels, self.y_embedder.embedding_table.weight, strict=False))  # all but the null row
        null = self.y_embedder.embedding_table.weight[self.null_label]
        self.labels = _distinct(labels, len(labels))
        self.config = replace(self.config, num_classes=len(labels))
        rows = torch.stack([*(old.get(label, null) for label in labels), null])
        self.y_embedder.embedding_table = nn.Embedding(len(rows), rows.shape[1], _weight=rows)

    def class_indices(self, labels: Sequence[str]) -> Tensor:
        """Class indices ``(B,)`` of labels.

        Raises:
            InputError: If the model does not know one of them.
        """
        position = {label: index for index, label in enumerate(self.labels)}
        if unknown := sorted(set(labels) - position.keys()):
            remedy = "Choose a model that was trained on them, or leave them out"
            raise InputError.labels("labels", f"labels of the model ({listed(self.labels)})", remedy, unknown=unknown)
        return torch.tensor([position[label] for label in labels])

    def forward(self, x: Tensor, t: Tensor, y: Tensor, drop: Tensor | None = None) -> Tensor:
        """Noise that the model predicts, ``(B, C, H, W)``.

        With learned sigma, the interpolation of its log variance follows in further channels, ``(B, 2C, H, W)``.

        Args:
            x: Noisy latents, shape ``(B, C, H, W)``.
            t: Timesteps in [0, 1000), shape ``(B,)``.
            y: Class indices, shape ``(B,)``; ``null_label`` for no class.
            drop: Which labels to replace by the null label, booleans of shape ``(B,)``. By default they are drawn in
                training mode, and none is replaced otherwise.
        """
        if drop is None and self.training:
            drop = torch.rand(y.shape, device=y.device) < self.config.class_dropout_prob
        if drop is not None:
            y = torch.where(drop, self.null_label, y)
        condition = self.t_embedder(t) + self.y_embedder(y)
        tokens = self.x_embedder(x).flatten(2).transpose(1, 2) + self.pos_embed  # (B, N, D)
        for block in self.blocks:
            if self.checkpointing and torch.is_grad_enabled():
                tokens = checkpoint(block, tokens, condition, use_reentrant=False)
            else:
                tokens = block(tokens, condition)
        return self.unpatchify(self.final_layer(tokens, condition))

    def unpatchify(self, tokens: Tensor) -> Tensor:
        """Put patches ``(B, N, P*P*C)`` in their places, ``(B, C, H, W)``."""
        patch, side = self.config.patch_size, self.config.input_size // self.config.patch_size
        grid = tokens.reshape(-1, side, side, patch, patch, self.config.out_channels)
        return grid.permute(0, 5, 1, 3, 2, 4).reshape(-1, self.config.out_channels, side * patch, side * patch)


def _distinct(labels: Sequence[str], count: int) -> tuple[str, ...]:
    if len(labels) != count or len(set(labels)) != count:
        found, expected = f"{len(set(labels))} different labels", f"{count}, one for each class"
        raise InputError.setting("labels of a DiT", found, expected, "List each class once")
    return tuple(labels)


def default_labels(num_classes: int) -> tuple[str, ...]:
    """Labels of classes without names: the WordNet ids of ImageNet in rank order for 1,000 classes, else numbers."""
    return class_list("imagenet1k") if num_classes == 1000 else tuple(str(index) for index in range(num_classes))


@torch.no_grad()
def initialise(model: DiT, seed: int) -> None:
    """Set a DiT to the initial values of training from scratch (Peebles & Xie, Section 3.2, adaLN-Zero).

    Linear maps are Xavier uniform with zero biases. Embeddings are normal with deviation 0.02. The modulations and the
    last layer are zero, so that each block starts as the identity.
    """
    random = generator("initialise", seed)
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.xavier_uniform_(module.weight.view(len(module.weight), -1), generator=random)
            if module.bias is not None:
                module.bias.zero_()
    for name, parameter in model.named_parameters():
        if name.startswith(("y_embedder.", "t_embedder.")) and name.endswith("weight"):
            nn.init.normal_(parameter, std=0.02, generator=random)
        elif "adaLN_modulation" in name or name.startswith("final_layer."):
            parameter.zero_()
