"""The layers of a DiT, in the state-dict naming of its original release."""

import math
from collections import OrderedDict
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

_SINUSOIDS = 256  # of a timestep: a cosine and a sine of each frequency


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


class Attention(nn.Module):
    """Multi-head self-attention. DiffFit may add scales after each of the two projections."""

    def __init__(self, hidden_size: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(hidden_size, 3 * hidden_size)
        self.proj = nn.Linear(hidden_size, hidden_size)
        self.gamma1: nn.Parameter | None = None
        self.gamma2: nn.Parameter | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Tokens ``(B, N, D)`` to tokens."""
        batch, length, width = x.shape
        qkv = _scaled(self.qkv(x), self.gamma1).reshape(batch, length, 3, self.num_heads, width // self.num_heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        return _scaled(self.proj(mixed.transpose(1, 2).reshape(batch, length, width)), self.gamma2)


class Block(nn.Module):
    """Transformer block. The condition shifts and scales its norms and gates its branches (adaLN-Zero)."""

    def __init__(self, hidden_size: int, num_heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden_size, eps=1e-6, elementwise_affine=False)
        self.attn = Attention(hidden_size, num_heads)
        inner = int(hidden_size * mlp_ratio)
        layers = {"fc1": nn.Linear(hidden_size, inner), "act": nn.GELU("tanh"), "fc2": nn.Linear(inner, hidden_size)}
        self.mlp = nn.Sequential(OrderedDict(layers))
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(hidden_size, 6 * hidden_size))
        self.gamma1: nn.Parameter | None = None
        self.gamma2: nn.Parameter | None = None

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Tokens ``(B, N, D)`` and conditions ``(B, D)`` to tokens."""
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = self.adaLN_modulation(condition)[:, None].chunk(6, dim=2)
        attended = self.attn(torch.addcmul(shift, self.norm(x), 1 + scale))
        x = torch.addcmul(x, _scaled(gate, self.gamma1), attended)
        processed = self.mlp(torch.addcmul(mlp_shift, self.norm(x), 1 + mlp_scale))
        return torch.addcmul(x, _scaled(mlp_gate, self.gamma2), processed)


class FinalLayer(nn.Module):
    """Norm that the condition shifts and scales, then the linear map from tokens to patches."""

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


def position_table(hidden_size: int, side: int) -> Tensor:
    """Fixed 2D sine-cosine position table of a square grid, shape ``(1, side * side, hidden_size)``.

    ``hidden_size`` is a multiple of 4. The first half of each position's values encodes the column, the second half
    the row, each as sines, then cosines.
    """
    quarter = hidden_size // 4
    rates = 10_000.0 ** -(torch.arange(quarter, dtype=torch.float64) / quarter)
    angles = torch.arange(side, dtype=torch.float64)[:, None] * rates
    line = torch.cat([angles.sin(), angles.cos()], 1)
    column, row = line[None].expand(side, -1, -1), line[:, None].expand(-1, side, -1)
    return torch.cat([column, row], 2).reshape(1, side * side, hidden_size).float()
