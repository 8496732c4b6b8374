"""Whether a model's step failed for lack of memory."""

import torch


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether a device, or the machine, had no memory left."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
