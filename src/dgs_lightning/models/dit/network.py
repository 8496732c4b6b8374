"""The class-conditional diffusion transformer (DiT), in the state-dict naming of its original release."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from dgs_lightning.errors import InputError
from dgs_lightning.seeding import generator

_SINUSOIDS = 256  # of a timestep: a cosine and a sine of each frequency
_SIZES = {"S": (384, 12, 6), "B": (768, 12, 12), "L": (1024, 24, 16), "XL": (1152, 28, 16)}  # width, depth, heads


@dataclass(frozen=True)
class DiTConfig:
    """Architecture of a DiT; ``input_size`` is the side of the square latent, not of the image.

    ``frequencies`` says how the sinusoids of the timestep are spaced: the original release divides their range by
    128, stock diffusers by 127. Weights work with the spacing they were trained with; new models take diffusers', so
    that stock diffusers runs them as they are.
    """

    input_size: int
    num_classes: int
    in_channels: int = 4
    patch_size: int = 2
    hidden_size: int = 1152
    depth: int = 28
    num_heads: int = 16
    mlp_ratio: float = 4.0
    learn_sigma: bool = True
    class_dropout_prob: float = 0.1
    frequencies: Literal["original", "diffusers"] = "diffusers"

    def __post_init__(self) -> None:
        """Refuse what no DiT is built of.

        Raises:
            InputError: If a setting is of another type, or too small, or two do not fit.
        """
        for part in fields(self):
            value, least = getattr(self, part.name), 0 if part.name == "input_size" else 1
            if part.type is int and (type(value) is not int or value < least):
                expected = f"at least {least}"
            elif part.type is float and not isinstance(value, int | float):
                expected = "a number"
            elif part.name == "frequencies" and value not in ("original", "diffusers"):
                expected = "original or diffusers"
            elif part.name == "hidden_size" and value % 4:
                expected = "a multiple of 4, for sines and cosines of column and row"
            else:
                continue
            raise InputError(f"DiT {part.name}", found=repr(value), expected=expected, remedy="Correct it")
        for size, divisor in (("input_size", "patch_size"), ("hidden_size", "num_heads")):
            if getattr(self, size) % getattr(self, divisor):
                raise InputError(
                    f"DiT {size} {getattr(self, size)}",
                    found=f"{divisor} {getattr(self, divisor)}",
                    expected=f"a {divisor} that divides it",
                    remedy=f"Change {size} or {divisor}",
                )

    @property
    def out_channels(self) -> int:
        """Channels of the output: the noise, and as many again for a learned sigma."""
        return self.in_channels * (2 if self.learn_sigma else 1)

    @classmethod
    def named(
        cls, name: str, *, input_size: int, num_classes: int, in_channels: int = 4, learn_sigma: bool = True
    ) -> "DiTConfig":
        """Published sizes ``DiT-{S,B,L,XL}/PATCH`` (Peebles & Xie, ICCV 2023, Table 1).

        Raises:
            InputError: If the name is of another form.
        """
        size, _, patch = name.removeprefix("DiT-").partition("/")
        if size not in _SIZES or not patch.isdecimal() or int(patch) == 0:
            raise InputError(
                f"DiT {name!r}",
                found="no such size",
                expected=f"DiT-SIZE/PATCH with SIZE one of {', '.join(_SIZES)}",
                remedy="Write for example DiT-S/2",
            )
        hidden_size, depth, num_heads = _SIZES[size]
        return cls(
            input_size=input_size,
            num_classes=num_classes,
            in_channels=in_channels,
            patch_size=int(patch),
            hidden_size=hidden_size,
            depth=depth,
            num_heads=num_heads,
            learn_sigma=learn_sigma,
        )


def known_heads(hidden_size: int, depth: int) -> int | None:
    """Number of attention heads of the published size with this width and depth, if there is one."""
    return next((heads for width, layers, heads in _SIZES.values() if (width, layers) == (hidden_size, depth)), None)


class DiT(nn.Module):
    """Diffusion transformer with adaLN-Zero blocks (Peebles & Xie, "Scalable Diffusion Models with Transformers").

    One embedder of timesteps and labels serves all blocks. In training mode a label is dropped, that is, replaced
    by the null label, once a forward with probability ``config.class_dropout_prob``.

    Args:
        config: Architecture.
        labels: Name of each class, in the model's order. By default the 1,000 WordNet ids of ImageNet in rank order
            where there are 1,000 classes, otherwise ``"0", "1", ...``.

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
        self.x_embedder = PatchEmbedder(config)
        self.t_embedder = TimestepEmbedder(hidden, config.frequencies)
        self.y_embedder = LabelEmbedder(config.num_classes, hidden)
        self.pos_embed = nn.Parameter(position_table(hidden, config.input_size // config.patch_size), False)
        blocks = [Block(hidden, config.num_heads, config.mlp_ratio) for _ in range(config.depth)]
        self.blocks: Sequence[Block] = nn.ModuleList(blocks)  # type: ignore[assignment]
        self.final_layer = FinalLayer(hidden, config.patch_size**2 * config.out_channels)

    @property
    def null_label(self) -> int:
        """Class index that stands for no label."""
        return self.config.num_classes

    @torch.no_grad()
    def relabel(self, labels: Sequence[str]) -> None:
        """Make the label table one of other classes: known labels keep their rows, new ones start as the null label's.

        So a list with all the old labels extends the table, and a list of others replaces it.

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
        unknown = sorted(set(labels) - position.keys())
        if unknown:
            raise InputError(
                "labels",
                found=f"{', '.join(unknown[:5])}{' ...' if len(unknown) > 5 else ''}",
                expected=f"labels of the model ({', '.join(self.labels[:5])}{' ...' if len(self.labels) > 5 else ''})",
                remedy="Choose a model that was trained on them, or leave them out",
            )
        return torch.tensor([position[label] for label in labels])

    def forward(self, x: Tensor, t: Tensor, y: Tensor, drop: Tensor | None = None) -> Tensor:
        """Predict the noise in latents and, where sigma is learned, the interpolation of its log variance.

        Args:
            x: Noisy latents, shape ``(B, C, H, W)``.
            t: Timesteps of the 1,000 of training, shape ``(B,)``.
            y: Class indices, shape ``(B,)``; ``null_label`` for none.
            drop: Which labels to drop, booleans of shape ``(B,)``. By default drawn in training mode, none otherwise.

        Returns:
            Shape ``(B, C, H, W)``, or ``(B, 2C, H, W)`` with learned sigma.
        """
        if drop is None and self.training:
            drop = torch.rand(y.shape, device=y.device) < self.config.class_dropout_prob
        if drop is not None:
            y = torch.where(drop, self.null_label, y)
        condition = self.t_embedder(t) + self.y_embedder(y)
        tokens = self.x_embedder(x) + self.pos_embed
        for block in self.blocks:
            if self.checkpointing and torch.is_grad_enabled():
                tokens = checkpoint(block, tokens, condition, use_reentrant=False)
            else:
                tokens = block(tokens, condition)
        return self.unpatchify(self.final_layer(tokens, condition))

    def unpatchify(self, tokens: Tensor) -> Tensor:
        """Put patches ``(B, N, P*P*C)`` back in their places, ``(B, C, H, W)``."""
        patch, side = self.config.patch_size, self.config.input_size // self.config.patch_size
        grid = tokens.reshape(-1, side, side, patch, patch, self.config.out_channels)
        return grid.permute(0, 5, 1, 3, 2, 4).reshape(-1, self.config.out_channels, side * patch, side * patch)


class PatchEmbedder(nn.Module):
    """Linear embedding of patches, as a convolution with stride."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.proj = nn.Conv2d(config.in_channels, config.hidden_size, config.patch_size, config.patch_size)

    def forward(self, x: Tensor) -> Tensor:
        """Latents ``(B, C, H, W)`` to tokens ``(B, N, D)``."""
        tokens: Tensor = self.proj(x)
        return tokens.flatten(2).transpose(1, 2)


class TimestepEmbedder(nn.Module):
    """Sinusoids of the timestep through a small MLP."""

    def __init__(self, hidden_size: int, frequencies: Literal["original", "diffusers"]) -> None:
        super().__init__()
        self.divisor = _SINUSOIDS // 2 - (frequencies == "diffusers")
        self.mlp = nn.Sequential(nn.Linear(_SINUSOIDS, hidden_size), nn.SiLU(), nn.Linear(hidden_size, hidden_size))

    def forward(self, t: Tensor) -> Tensor:
        """Timesteps ``(B,)`` to embeddings ``(B, D)``."""
        embedding: Tensor = self.mlp(self.sinusoids(t).to(next(self.parameters()).dtype))
        return embedding

    def sinusoids(self, t: Tensor) -> Tensor:
        """Timesteps ``(B,)`` to cosines and sines ``(B, 256)``."""
        index = torch.arange(_SINUSOIDS // 2, device=t.device, dtype=torch.float32)
        angles = t.float()[:, None] * torch.exp(-math.log(10_000) * index / self.divisor)
        return torch.cat([angles.cos(), angles.sin()], 1)


class LabelEmbedder(nn.Module):
    """Table of label embeddings; its last row is the null label's."""

    def __init__(self, num_classes: int, hidden_size: int) -> None:
        super().__init__()
        self.embedding_table = nn.Embedding(num_classes + 1, hidden_size)

    def forward(self, y: Tensor) -> Tensor:
        """Class indices ``(B,)`` to embeddings ``(B, D)``."""
        embedding: Tensor = self.embedding_table(y)
        return embedding


class Attention(nn.Module):
    """Multi-head self-attention, with DiffFit's scales after either projection where they were added."""

    gamma1: nn.Parameter | None
    gamma2: nn.Parameter | None

    def __init__(self, hidden_size: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(hidden_size, 3 * hidden_size)
        self.proj = nn.Linear(hidden_size, hidden_size)
        self.register_parameter("gamma1", None)
        self.register_parameter("gamma2", None)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens ``(B, N, D)`` to tokens."""
        batch, length, width = x.shape
        qkv = _scaled(self.qkv(x), self.gamma1).reshape(batch, length, 3, self.num_heads, width // self.num_heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        return _scaled(self.proj(mixed.transpose(1, 2).reshape(batch, length, width)), self.gamma2)


class Mlp(nn.Module):
    """Two layers with the tanh form of GELU between them."""

    def __init__(self, hidden_size: int, mlp_ratio: float) -> None:
        super().__init__()
        inner = int(hidden_size * mlp_ratio)
        self.fc1 = nn.Linear(hidden_size, inner)
        self.fc2 = nn.Linear(inner, hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens ``(B, N, D)`` to tokens."""
        out: Tensor = self.fc2(functional.gelu(self.fc1(x), approximate="tanh"))
        return out


class Block(nn.Module):
    """Transformer block whose norms are shifted and scaled, and whose branches are gated, by the condition."""

    gamma1: nn.Parameter | None
    gamma2: nn.Parameter | None

    def __init__(self, hidden_size: int, num_heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden_size, eps=1e-6, elementwise_affine=False)
        self.attn = Attention(hidden_size, num_heads)
        self.mlp = Mlp(hidden_size, mlp_ratio)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(hidden_size, 6 * hidden_size))
        self.register_parameter("gamma1", None)
        self.register_parameter("gamma2", None)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Tokens ``(B, N, D)`` and conditions ``(B, D)`` to tokens."""
        modulation = self.adaLN_modulation(condition)[:, None].chunk(6, dim=2)
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = modulation
        attended = self.attn(torch.addcmul(shift, self.norm(x), 1 + scale))
        x = torch.addcmul(x, _scaled(gate, self.gamma1), attended)
        processed = self.mlp(torch.addcmul(mlp_shift, self.norm(x), 1 + mlp_scale))
        return torch.addcmul(x, _scaled(mlp_gate, self.gamma2), processed)


class FinalLayer(nn.Module):
    """Modulated norm and the linear map from tokens to patches."""

    def __init__(self, hidden_size: int, patch_values: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden_size, eps=1e-6, elementwise_affine=False)
        self.linear = nn.Linear(hidden_size, patch_values)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(hidden_size, 2 * hidden_size))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Tokens ``(B, N, D)`` and conditions ``(B, D)`` to patches ``(B, N, P*P*C)``."""
        shift, scale = self.adaLN_modulation(condition)[:, None].chunk(2, dim=2)
        patches: Tensor = self.linear(torch.addcmul(shift, self.norm(x), 1 + scale))
        return patches


def _scaled(x: Tensor, gamma: Tensor | None) -> Tensor:
    return x if gamma is None else x * gamma


def _distinct(labels: Sequence[str], count: int) -> tuple[str, ...]:
    if len(labels) != count or len(set(labels)) != count:
        raise InputError(
            "labels of a DiT",
            found=f"{len(set(labels))} different labels",
            expected=f"{count}, one for each class",
            remedy="List each class once",
        )
    return tuple(labels)


def default_labels(num_classes: int) -> tuple[str, ...]:
    """Names of classes that nobody named: ImageNet's WordNet ids where there are 1,000, else their numbers."""
    if num_classes != 1000:
        return tuple(str(index) for index in range(num_classes))
    from timm.data.imagenet_info import ImageNetInfo  # only here: timm takes seconds to import

    return tuple(ImageNetInfo().label_names())  # type: ignore[no-untyped-call]


def position_table(hidden_size: int, side: int) -> Tensor:
    """Fixed 2D sine-cosine position table of a square grid, shape ``(1, side * side, hidden_size)``.

    The width is a multiple of 4. The first half of a row encodes the column, the second the row of the grid, each as
    sines, then cosines.
    """
    quarter = hidden_size // 4
    rates = 10_000.0 ** -(torch.arange(quarter, dtype=torch.float64) / quarter)
    angles = torch.arange(side, dtype=torch.float64)[:, None] * rates
    line = torch.cat([angles.sin(), angles.cos()], 1)
    column, row = line[None].expand(side, -1, -1), line[:, None].expand(-1, side, -1)
    return torch.cat([column, row], 2).reshape(1, side * side, hidden_size).float()


@torch.no_grad()
def initialise(model: DiT, seed: int) -> None:
    """Fill a DiT with the start values of training from scratch (Peebles & Xie, Section 3.2, adaLN-Zero).

    Linear maps start as Xavier uniform with zero biases, embeddings normal with deviation 0.02, and the modulations
    and the last layer at zero, so that each block starts as the identity.
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
