"""Named randomness: every draw has a seed made from names, never from the order of calls."""

import hashlib

import torch


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


def image_seed(run_seed: int, label: str, index: int) -> int:
    """Seed of one generated image, from the run's seed, its class id and its index in the class."""
    return named_seed("image", run_seed, label, index)


def generator(*names: int | str) -> torch.Generator:
    """CPU generator seeded by :func:`named_seed`; CPU, so that every device draws the same numbers."""
    return torch.Generator().manual_seed(named_seed(*names))
