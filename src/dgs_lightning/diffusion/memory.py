"""The memory of the Minimax criteria: the last latents of each class."""

import torch
from torch import Tensor
from torch.nn.functional import normalize


class Memory:
    """First-in-first-out memory of the last latents of each class, stored as unit vectors.

    The criteria are cosines, so only the direction of a latent matters. It is normalised once, when it is pushed.

    The class is not an ``nn.Module``, because distributed training would broadcast its buffers before every forward
    pass. All devices push the same global batches, so their memories are the same anyway.

    Args:
        classes: Number of classes.
        size: Latents that are kept of each class.
        dimensions: Elements of a latent.
        dtype: Type that the directions are stored in.

    Attributes:
        directions: Unit vectors, shape ``(classes, size, dimensions)``.
        pushed: Number of latents pushed so far of each class, shape ``(classes,)``.

    Raises:
        ValueError: If a size is below 1.
    """

    def __init__(self, classes: int, size: int, dimensions: int, dtype: torch.dtype = torch.float32) -> None:
        if min(classes, size, dimensions) < 1:
            raise ValueError("a memory needs at least one class, slot and dimension; give sizes of 1 or more")
        self.directions = torch.zeros(classes, size, dimensions, dtype=dtype)
        self.pushed = torch.zeros(classes, dtype=torch.long)

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.pushed)

    @property
    def filled(self) -> Tensor:
        """Whether each slot holds a latent, shape ``(classes, size)``."""
        return torch.arange(self.directions.shape[1], device=self.pushed.device) < self.pushed[:, None]

    @torch.no_grad()
    def push(self, latents: Tensor, labels: Tensor) -> None:
        """Add latents to the memories of their classes, in the order of the batch.

        Args:
            latents: Latents, shape ``(B, ...)`` with ``dimensions`` elements each.
            labels: Class of each latent, shape ``(B,)``.
        """
        size = self.directions.shape[1]
        earlier = (labels[:, None] == labels).tril(-1).sum(1)  # in the batch, of the same class
        slots = labels * size + (self.pushed[labels] + earlier) % size
        # A batch can have more latents of a class than there are slots. The last latent of each slot is kept then.
        positions = torch.arange(len(labels), device=labels.device)
        last = torch.where(slots[:, None] == slots, positions, -1).amax(1)
        directions = normalize(latents.flatten(1), dim=1).to(self.directions.dtype)
        self.directions.view(-1, self.directions.shape[2])[slots] = directions[last]
        self.pushed += torch.zeros_like(self.pushed).scatter_add_(0, labels, torch.ones_like(labels))

    def to(self, device: torch.device) -> None:
        """Move the memory to a device."""
        self.directions, self.pushed = self.directions.to(device), self.pushed.to(device)

    def state_dict(self) -> dict[str, Tensor]:
        """The memory as tensors."""
        return {"directions": self.directions, "pushed": self.pushed}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Load a memory of the same shape.

        Raises:
            ValueError: If the memory has another shape.
        """
        if state["directions"].shape != self.directions.shape:
            found, expected = tuple(state["directions"].shape), tuple(self.directions.shape)
            remedy = "resume with the same classes, memory size and latents"
            raise ValueError(f"a memory of shape {found} in place of {expected}; {remedy}")
        self.directions.copy_(state["directions"])
        self.pushed.copy_(state["pushed"])


def memory_bytes(classes: int, size: int, dimensions: int, dtype: torch.dtype) -> int:
    """Bytes of the directions of a :class:`Memory` with these arguments."""
    return classes * size * dimensions * dtype.itemsize
