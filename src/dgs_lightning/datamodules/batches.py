"""Batches of images by the positions in them: from memory where they fit, else decoded by worker processes."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from dgs_lightning.data.images import ImageSet
from dgs_lightning.errors import InputError
from dgs_lightning.seeding import generator

Positions = Sequence[Tensor]  # of the images of each batch


class Streamed(Dataset[tuple[Any, Tensor] | InputError]):
    """Batches of a set, decoded anew each time.

    An error comes in place of a batch: raised in a worker process it would lose its type.

    Args:
        images: The set.
    """

    def __init__(self, images: ImageSet) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, positions: Tensor) -> tuple[Any, Tensor] | InputError:
        """Images and positions of their labels."""
        try:
            images, labels = default_collate([self.images[position] for position in positions.tolist()])
        except InputError as error:
            return error
        return images, labels


class Decoded(Dataset[tuple[Any, Tensor]]):
    """Batches of a set that is decoded once, on all cores, and kept in memory.

    Args:
        images: A set of uint8 pixels of one size.
        device: Where to keep them.
    """

    def __init__(self, images: ImageSet, device: torch.device) -> None:
        first, _ = images[0]
        pixels = torch.empty(len(images), *first.shape, dtype=torch.uint8)
        labels = torch.empty(len(images), dtype=torch.int64)

        def decode(position: int) -> None:
            pixels[position], labels[position] = images[position]

        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
            for _ in threads.map(decode, range(len(images))):
                pass
        self.pixels, self.labels = pixels.to(device), labels.to(device)

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Images and positions of their labels."""
        positions = positions.to(self.pixels.device)
        return self.pixels[positions], self.labels[positions]


class BatchLoader:
    """Serves batches ``(images, label positions)``, pixels as float32 in [0, 1].

    Args:
        images: Images by their positions.
        batches: Positions of the images of each batch of the epoch that begins.
        num_workers: Processes that decode streamed images.
        with_positions: Serve ``(images, image positions, label positions)``.
    """

    def __init__(
        self,
        images: Streamed | Decoded,
        batches: Callable[[], Positions],
        num_workers: int = 0,
        with_positions: bool = False,
    ) -> None:
        self.images = images
        self.batches = batches
        self.num_workers = num_workers
        self.with_positions = with_positions

    def __len__(self) -> int:
        """Batches of an epoch."""
        return len(self.batches())

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        batches = self.batches()
        for positions, (images, labels) in zip(batches, self._load(batches), strict=True):
            if isinstance(images, Tensor) and images.dtype == torch.uint8:
                images = images.float() / 255
            yield (images, positions, labels) if self.with_positions else (images, labels)

    def _load(self, batches: Positions) -> Iterator[tuple[Any, Tensor]]:
        if isinstance(self.images, Decoded):
            return map(self.images.__getitem__, batches)
        loader = DataLoader(self.images, batch_size=None, sampler=batches, num_workers=self.num_workers)
        return map(_raised, loader)


def _raised(batch: tuple[Any, Tensor] | InputError) -> tuple[Any, Tensor]:
    if isinstance(batch, InputError):
        raise batch
    return batch


def check_shareable(batch_size: int, devices: int) -> None:
    """Check that devices can share a batch equally.

    Raises:
        InputError: If they cannot.
    """
    if batch_size % devices:
        raise InputError(
            "batch_size",
            found=str(batch_size),
            expected=f"a multiple of the {devices} devices that share it",
            remedy="Change batch_size or devices",
        )


def shuffled_batches(
    count: int, batch_size: int, seed: int, epoch: int, rank: int = 0, devices: int = 1
) -> list[Tensor]:
    """Positions of one device's share of each batch of an epoch, in an order that seed and epoch decide.

    Args:
        count: Number of images; where the devices cannot share them equally, some come twice.
        batch_size: Images of a batch, over all devices.
        seed: Seed of the order.
        epoch: Number of the epoch.
        rank: Number of the device.
        devices: Number of devices, a divisor of ``batch_size``.
    """
    order = torch.randperm(count, generator=generator("order", seed, epoch))
    order = order[torch.arange(-(-count // devices) * devices) % count]
    return [batch[rank::devices] for batch in torch.split(order, batch_size)]
