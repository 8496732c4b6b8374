"""Transport: the images of one class whose difficulties are nearest to those of the originals. The paper lacks it."""

import numpy as np

from dgs_lightning.selection.distribution import Counts, Floats, check_scores

TIE = 1e-12
"""Distances with a smaller difference count as equal, so that rounding errors select no image."""


def closest_set(pool: Floats, original: Floats, ipc: int, rng: np.random.Generator) -> Counts:
    r"""Images of a pool with the least Wasserstein-1 distance to the originals, exactly.

    .. math:: W_1 = \int_0^1 |X(u) - Q(u)| \, du = \sum_{j=1}^{n} \int_{(j-1)/n}^{j/n} |x_j - Q(u)| \, du

    :math:`X` and :math:`Q` are the quantile functions of the selected and of the original difficulties, and
    :math:`x_1 \le \dots \le x_n` the selected difficulties in order (Peyré and Cuturi, "Computational Optimal
    Transport", 2019, Remark 2.30). The distance is thus a sum of costs, one for each selected image and its rank
    (:func:`rank_costs`), and :func:`least_sums` finds its minimum over all sets of n images.

    Args:
        pool: Difficulties of the image pool, shape ``(N,)``, in the order of the images' names.
        original: Difficulties of the original images, shape ``(M,)``; those of the pool if there are no originals.
        ipc: Images n to select.
        rng: Source of the draw among equally near sets; images of equal difficulty are equally likely.

    Returns:
        Positions in the pool, ascending, shape ``(ipc,)``.

    Raises:
        ValueError: If the IPC is below 1 or above the size of the pool, there is no original, or a score is not in
            ``[0, 1]``.
    """
    if not 1 <= ipc <= len(pool):
        raise ValueError(f"cannot select {ipc} of {len(pool)} images; give an IPC from 1 to the size of the pool")
    if not len(original):
        raise ValueError("there are no original difficulties to come near to; give those of the pool instead")
    check_scores(pool)
    check_scores(original)
    order = rng.permutation(len(pool))
    order = order[np.argsort(pool[order], kind="stable")]  # equal difficulties in random order
    chosen, end = [], len(pool)
    for sums in least_sums(rank_costs(pool[order], original, ipc))[::-1]:  # each image is easier than the one before
        end = int(rng.choice(np.flatnonzero(sums[:end] <= sums[:end].min() + TIE)))
        chosen.append(end)
    return np.sort(order[chosen])


def rank_costs(scores: Floats, original: Floats, ipc: int) -> Floats:
    r"""Cost of each image at each rank: its mean distance from the originals' difficulties of this rank, over the IPC.

    .. math:: c_{ij} = \int_{(j-1)/n}^{j/n} |x_i - Q(u)| \, du

    :math:`Q` is a step function, so the integral is computed from its sums, without a numerical quadrature.

    Args:
        scores: Difficulties :math:`x_i`, shape ``(N,)``.
        original: Difficulties of the originals, shape ``(M,)``, in any order.
        ipc: Number n of ranks.

    Returns:
        Costs, shape ``(N, ipc)``.
    """
    count, ordered = len(original), np.sort(original)
    scale = count * ipc  # u is measured in units of 1 / (M n), so that all edges are whole numbers
    steps, sums = np.arange(0, scale + 1, ipc), np.concatenate([[0.0], np.cumsum(ordered)]) * ipc

    def area(u: Counts) -> Floats:  # under Q, from 0 to u
        found: Floats = np.interp(u, steps, sums)
        return found

    start = np.arange(0, scale, count)
    end, x = start + count, scores[:, None]
    crossing = np.searchsorted(ordered, x, side="right") * ipc  # Q is at most x before it, and above x after it
    middle = np.clip(crossing, start, end)
    costs = x * (middle - start) - (area(middle) - area(start)) + (area(end) - area(middle)) - x * (end - middle)
    return np.asarray(costs / scale)


def least_sums(costs: Floats) -> Floats:
    r"""Least sum of the costs up to a rank, for each image that may have this rank.

    .. math:: s_{ij} = c_{ij} + \min_{k < i} s_{k,j-1}

    Images of ascending ranks have ascending positions, so this is a dynamic programme of N x n steps.

    Args:
        costs: Costs of the images, from easy to hard, at each rank, shape ``(N, n)`` with ``n <= N``.

    Returns:
        Sums by rank, shape ``(n, N)``; infinite where too few images are easier.
    """
    sums = costs.T.copy()
    for rank in range(1, len(sums)):
        sums[rank, 0] = np.inf
        sums[rank, 1:] += np.minimum.accumulate(sums[rank - 1, :-1])
    return sums
