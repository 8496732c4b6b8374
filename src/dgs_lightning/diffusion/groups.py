"""Groups of latents that are distributed as those of a class: the group sampling of D3HR (ICML 2025)."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from dgs_lightning.diffusion.sampler import draw_noise

SKEWNESS_WEIGHT = 0.1
VALUES = 2**18  # that are in memory at a time


class Gaussian(NamedTuple):
    """A normal distribution of latents whose values are independent of each other."""

    mean: Tensor  # (C, h, w)
    std: Tensor  # (C, h, w)


class Groups(NamedTuple):
    """The best groups of latents among many."""

    latents: Tensor  # of the groups, the best one first, (kept, n, C, h, w)
    scores: Tensor  # of all groups in the order of their numbers, float64, (count,)


def fit_gaussian(latents: Tensor) -> Gaussian:
    """Mean and standard deviation (with N - 1) of each value of the latents of a class, shape ``(N, C, h, w)``.

    Raises:
        ValueError: If there are fewer than two latents.
    """
    if len(latents) < 2:
        raise ValueError(f"{len(latents)} latents have no standard deviation")
    return Gaussian(latents.mean(0), latents.std(0))


def group_scores(groups: Tensor, of: Gaussian) -> Tensor:
    r"""How far the latents of each group are from a distribution; the lowest score is the best.

    .. math:: \lVert m - \mu \rVert + \lVert s - \sigma \rVert + 0.1\, \lVert g \rVert

    Mean :math:`m`, standard deviation :math:`s` (with n - 1) and skewness :math:`g` are those of each value over the
    latents of the group. Skewness is the third central moment over the third power of the standard deviation with n,
    and 0 for a value that is the same in all latents. A single latent has deviation 0.

    Args:
        groups: Groups of n latents, shape ``(G, n, C, h, w)``.
        of: The distribution.

    Returns:
        Scores in float64, shape ``(G,)``.
    """
    mean = groups.mean(1)
    centred = groups - mean.unsqueeze(1)
    squares = centred.square()
    variance, third = squares.mean(1), (squares * centred).mean(1)
    skewness = torch.where(variance > 0, third / (variance * variance.sqrt()), 0)
    std = (variance * (groups.shape[1] / max(1, groups.shape[1] - 1))).sqrt()
    parts = (mean - of.mean, std - of.std, SKEWNESS_WEIGHT * skewness)
    return torch.stack([part.flatten(1).double().norm(dim=1) for part in parts]).sum(0)


def best_groups(
    of: Gaussian,
    size: int,
    random: Callable[[int], torch.Generator],
    *,
    count: int,
    kept: int = 1,
    values: int = VALUES,
) -> Groups:
    """Draw groups of latents from a distribution, and keep those with the lowest scores.

    The time is that of drawing ``count * size`` latents.

    Args:
        of: The distribution.
        size: Number n of latents of a group.
        random: Gives the generator of a group by its number, from 0: the same at each call.
        count: Number of groups.
        kept: Number of groups that are kept.
        values: Values of latents that are in memory at a time; this does not change the result.
    """
    shape = (size, *of.mean.shape)

    def draw(numbers: list[int]) -> Tensor:
        return of.mean + of.std * draw_noise([random(number) for number in numbers], shape)

    together = max(1, values // (size * of.mean.numel()))
    chunks = torch.split(torch.arange(count), together)
    scores = torch.cat([group_scores(draw(chunk.tolist()), of) for chunk in chunks])
    best = scores.sort(stable=True).indices[:kept]
    return Groups(draw(best.tolist()), scores)
