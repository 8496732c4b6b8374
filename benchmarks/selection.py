"""Time and memory of difficulty-guided sampling at the scale of ImageNet-1K, beside a plain reference in the same run.

    python benchmarks/selection.py [--preset released|paper] [--search-fraction 0.1] [--classes 1000] [--json]

Both do the same four steps for a class: thresholds (Eq. 9), smoothing (Eq. 7, 8), sampling distribution, selection.
The reference is Algorithm 1 as you would write it from the paper with NumPy and SciPy: two loops try the pairs of
thresholds one by one, and each pair smooths all scores, counts a histogram and takes two divergences. It is timed on a
few of the classes, and must choose the same images. The times of a class are medians. The search range of the preset
`paper` is a tenth of a set for each threshold: 130 times 130 pairs for 1,300 originals.
"""

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from program import parser, peak_mb, show
from scipy.stats import entropy

from dgs_lightning.selection.distribution import Floats
from dgs_lightning.selection.sampler import select_class
from dgs_lightning.selection.smoothing import PRESETS, SmoothingSettings

IPC, POOL, BINS = 50, 250, 10


def reference(pool: Floats, original: Floats, rng: np.random.Generator, settings: SmoothingSettings) -> list[int]:
    """The four steps written out plainly: chosen positions in the pool."""
    pair = reference_thresholds(pool, settings)
    smooth_pool = reference_smooth(pool, *pair, settings)
    if settings.thresholds == "separate":
        pair = reference_thresholds(original, settings)
    smooth_original = reference_smooth(original, *pair, settings)

    counts = np.histogram(smooth_original, BINS, (0, 1))[0].tolist()
    target = [count * IPC // len(original) for count in counts]
    for k in sorted(range(BINS), key=lambda k: (-(counts[k] * IPC % len(original)), k))[: IPC - sum(target)]:
        target[k] += 1

    preferred = rng.permutation(POOL).tolist()
    chosen: list[int] = []
    for k in range(BINS):
        chosen += [i for i in preferred if min(int(smooth_pool[i] * BINS), BINS - 1) == k][: target[k]]
    left = [i for i in preferred if i not in chosen]
    return sorted(chosen + left[: IPC - len(chosen)])


def reference_thresholds(scores: Floats, settings: SmoothingSettings) -> tuple[int, int]:
    """The best pair of the grid, each smoothed and counted on its own."""
    limit = IPC // 2 if settings.search_fraction is None else round(settings.search_fraction * len(scores))
    density, uniform = np.histogram(scores, BINS, (0, 1))[0] / len(scores), np.full(BINS, 1 / BINS)
    best, found = np.inf, (0, 0)
    for bottom in range(limit):
        for top in range(limit):
            smoothed = reference_smooth(scores, bottom, top, settings)
            p = density + settings.density_epsilon
            q = np.histogram(smoothed, BINS, (0, 1))[0] / len(scores) + settings.density_epsilon
            if settings.divergence == "forward":
                value = 0.5 * entropy(q, p) + 0.5 * entropy(q, uniform)
            else:
                value = 0.5 * entropy(p, q) + 0.5 * entropy(uniform, q)
            if value < best - 1e-12:
                best, found = value, (bottom, top)
    return found


def reference_smooth(scores: Floats, bottom: int, top: int, settings: SmoothingSettings) -> Floats:
    """Scores clipped to order statistics, then their logarithm."""
    epsilon = settings.epsilon
    positive = scores + epsilon if settings.zeros == "add" else np.where(scores == 0, epsilon, scores)
    ordered = np.sort(positive)
    low, high = ordered[bottom], ordered[len(scores) - 1 - top]
    smoothed: Floats = np.log(np.clip(positive, low, high) / low) / np.log(high / low)
    return np.maximum(smoothed, settings.floor)


def measure(classes: int, images: int, references: int, settings: SmoothingSettings) -> dict[str, float]:
    """Time the selection from all classes, and the reference on some of them in between.

    Raises:
        RuntimeError: If the reference chooses other images.
    """
    rng = np.random.default_rng(0)
    pools, originals = rng.beta(0.3, 1.5, (classes, POOL)), rng.beta(0.4, 0.8, (classes, images))
    compared = set(np.linspace(0, classes - 1, min(references, classes)).astype(int).tolist())
    own: list[float] = []
    plain: list[float] = []
    for k, (pool, original) in enumerate(zip(pools, originals, strict=True)):
        start = time.perf_counter()
        found = select_class(pool, original, IPC, np.random.default_rng(k), smoothing=settings)
        own.append(time.perf_counter() - start)
        if k in compared:
            start = time.perf_counter()
            expected = reference(pool, original, np.random.default_rng(k), settings)
            plain.append(time.perf_counter() - start)
            if found.draw.chosen.tolist() != expected:
                raise RuntimeError(f"class {k}: the reference chooses other images")
    seconds, per_reference = float(np.median(own)), float(np.median(plain))
    return {
        "seconds": sum(own),
        "reference_seconds_per_class": per_reference,
        "seconds_per_class": seconds,
        "ratio": per_reference / seconds,
        "peak_mb": peak_mb(),
    }


def main(argv: Sequence[str] | None = None) -> None:
    options = parser(__doc__)
    options.add_argument("--preset", choices=list(PRESETS), default="released")
    options.add_argument("--search-fraction", type=float, help="of the smoothing; by default that of the preset")
    options.add_argument("--classes", type=int, default=1000)
    options.add_argument("--originals", type=int, default=1300, help="original images in a class")
    options.add_argument("--references", type=int, default=5, help="classes on which the reference is timed")
    args = options.parse_args(argv)
    settings = PRESETS[args.preset]
    if args.search_fraction is not None:
        settings = replace(settings, search_fraction=args.search_fraction)
    show(measure(args.classes, args.originals, args.references, settings), args.json)


if __name__ == "__main__":
    main()
