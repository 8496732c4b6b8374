"""Named randomness: every draw has a seed made from names, never from the order of calls."""

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

REPEATS = 1000  # most trainings for each draw


def named_seed(*names: int | str) -> int:
    """Derive a seed from names, the same on every machine and in every process.

    Args:
        names: What the draw is for, from the general to the particular, for example
            ``(0, "n02086240", 17)``: run seed, class id, image index.

    Returns:
        An integer in ``[0, 2**63)``.
    """
    text = "\x1f".join(f"{type(name).__name__}:{name}" for name in names)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def draw_seed(run_seed: int, draw: int) -> int:
    """Seed of one draw of a run: of its image pools, cluster centres and selections.

    Draw 0 has the run's seed. The seed of another draw is below 2**32, as scikit-learn requires it.
    """
    return run_seed if draw == 0 else named_seed("draw", run_seed, draw) % 2**32


def training_seed(run_seed: int, draw: int, repeat: int) -> int:
    """Seed of one downstream training, the same for all methods: ``run_seed + 1000 * draw + repeat``."""
    return run_seed + REPEATS * draw + repeat


def draw_and_repeat(run_seed: int, seed: int) -> tuple[int, int]:
    """Draw and repeat of the training with a seed; the inverse of :func:`training_seed`."""
    return divmod(seed - run_seed, REPEATS)


def image_seed(run_seed: int, label: str, index: int) -> int:
    """Seed of one generated image, from the run's seed, its class id and its index in the class."""
    return named_seed("image", run_seed, label, index)


def generator(*names: int | str) -> "torch.Generator":
    """CPU generator seeded by :func:`named_seed`; CPU, so that every device draws the same numbers."""
    import torch  # only here: to plan a run takes names of seeds alone, and torch takes seconds to import

    return torch.Generator().manual_seed(named_seed(*names))
