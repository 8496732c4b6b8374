"""Coresets: selection without a target distribution, which difficulty-guided sampling is compared with.

Each function selects from one class. Give it the images in the order of their names, so that ties do not depend on the
order of the files on disk. All raise a ``ValueError`` if ``ipc``, the number of images to select, is below 1 or above
N, the number of images.
"""

import numpy as np
from numpy.typing import NDArray

from dgs_lightning.selection.clustering import Points, kmeans_centers
from dgs_lightning.selection.distribution import Counts, Floats, interval_of

Flags = NDArray[np.bool_]


def random_coreset(count: int, ipc: int, rng: np.random.Generator) -> Counts:
    """Positions of ``ipc`` of ``count`` images, drawn with equal probability without replacement, ascending."""
    _check(count, ipc)
    return np.sort(rng.permutation(count)[:ipc])


def right_first(
    right: Flags, confidence: Floats, ipc: int, *, unsure: bool = False, fill: Floats | None = None
) -> Counts:
    """The images that a classifier recognises, the most or the least confident first; then the others.

    This is the first stage of CaO2 (Wang et al., ICCV 2025). Where too few images are recognised, its code adds the
    others in the same order of confidence, which may begin with the most confidently wrong one.

    Args:
        right: Whether an image is recognised, shape ``(N,)``.
        confidence: Largest probability of any class, shape ``(N,)``: that of its own class for a recognised image.
        ipc: Images to select.
        unsure: Take the least confident of the recognised images first.
        fill: Add the others by this number, the largest first, instead of by their confidence, shape ``(N,)``.

    Returns:
        Positions in the order of selection, shape ``(ipc,)``.
    """
    _check(len(right), ipc)
    falling = -confidence if not unsure else confidence
    if fill is not None:
        falling = np.where(right, falling, -fill)
    return np.lexsort((falling, ~right))[:ipc]


def k_center_greedy(features: Points, ipc: int) -> Counts:
    """Greedy k-center: each next image is the one farthest from its nearest selected image.

    The first image is the one nearest to the mean, so that nothing is random. Sener and Savarese, "Active Learning for
    Convolutional Neural Networks: A Core-Set Approach", ICLR 2018.

    Args:
        features: One row for each image, shape ``(N, D)``.
        ipc: Images to select.

    Returns:
        Positions in the order of selection, shape ``(ipc,)``.
    """
    points = _points(features, ipc)
    distance = _square_distances(points, points.mean(axis=0))
    chosen = [int(np.argmin(distance))]
    distance[:] = np.inf
    while len(chosen) < ipc:
        distance = np.minimum(distance, _square_distances(points, points[chosen[-1]]))
        distance[chosen] = -np.inf
        chosen.append(int(np.argmax(distance)))
    return np.array(chosen)


def herding(features: Points, ipc: int) -> Counts:
    """Herding: each next image is the one that brings the mean of the selected images nearest to the mean of the class.

    Welling, "Herding Dynamical Weights to Learn", ICML 2009, in the form in which Rebuffi et al., CVPR 2017, choose
    exemplars. Arguments and result are those of :func:`k_center_greedy`.
    """
    points = _points(features, ipc)
    mean, total = points.mean(axis=0), np.zeros(points.shape[1])
    chosen: list[int] = []
    for size in range(1, ipc + 1):
        distance = _square_distances(points, size * mean - total)
        distance[chosen] = np.inf
        chosen.append(int(np.argmin(distance)))
        total += points[chosen[-1]]
    return np.array(chosen)


def kmeans_coreset(features: Points, ipc: int, seed: int = 0) -> Counts:
    """For each k-means centre, the nearest image that no earlier centre has taken.

    Arguments and result are those of :func:`k_center_greedy`; ``seed`` is that of the k-means.
    """
    points = _points(features, ipc)
    free = np.ones(len(points), dtype=bool)
    chosen = []
    for center in kmeans_centers(points, ipc, seed):
        chosen.append(int(np.argmin(np.where(free, _square_distances(points, center), np.inf))))
        free[chosen[-1]] = False
    return np.array(chosen)


def coverage_centric(
    scores: Floats, ipc: int, rng: np.random.Generator, *, hard_cutoff: float = 0.3, strata: int = 50
) -> Counts:
    """Coverage-centric coreset selection (CCS): drop the hardest images, and share the IPC over strata of difficulty.

    The strata have equal widths between the smallest and the largest of the remaining scores. The stratum with the
    fewest images is served first, and the images that it lacks are taken from the others. The authors select from a
    whole training set by the area under the margin; this function selects from one class by any difficulty. Zheng et
    al., "Coverage-centric Coreset Selection for High Pruning Rates", ICLR 2023, Algorithm 1.

    Args:
        scores: Difficulties in ``[0, 1]``, shape ``(N,)``.
        ipc: Images to select.
        rng: Source of the draw within a stratum.
        hard_cutoff: Share of the hardest images to drop; fewer are dropped if fewer than ``ipc`` images would remain.
        strata: Number of strata.

    Returns:
        Positions, ascending, shape ``(ipc,)``.

    Raises:
        ValueError: If ``ipc`` is below 1 or above N, or ``hard_cutoff`` is not in ``[0, 1)``.
    """
    _check(len(scores), ipc)
    if not 0 <= hard_cutoff < 1:
        raise ValueError(f"hard_cutoff must lie in [0, 1), got {hard_cutoff}; it is the share of images dropped")
    order = rng.permutation(len(scores))
    by_score = order[np.argsort(scores[order], kind="stable")]  # equal scores in random order
    kept = by_score[: max(len(scores) - int(hard_cutoff * len(scores)), ipc)]
    low, high = scores[kept[0]], scores[kept[-1]]
    stratum = np.full(len(scores), -1)
    stratum[kept] = interval_of((scores[kept] - low) / ((high - low) or 1.0), strata)
    sizes = np.bincount(stratum[kept], minlength=strata)
    waiting, budget = np.flatnonzero(sizes), ipc
    chosen: list[Counts] = []
    for served, k in enumerate(waiting[np.argsort(sizes[waiting], kind="stable")]):
        chosen.append(order[stratum[order] == k][: budget // (len(waiting) - served)])
        budget -= len(chosen[-1])
    return np.sort(np.concatenate(chosen))


def _check(count: int, ipc: int) -> None:
    if not 1 <= ipc <= count:
        raise ValueError(f"cannot select {ipc} of {count} images; give an IPC from 1 to the size of the class")


def _points(features: Points, ipc: int) -> Floats:
    _check(len(features), ipc)
    return features.reshape(len(features), -1).astype(np.float64)


def _square_distances(points: Floats, center: Floats) -> Floats:
    distances: Floats = np.square(points - center).sum(axis=1)
    return distances
