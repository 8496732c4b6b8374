"""Batches of images by position: from memory if they fit, otherwise decoded beside their use."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, pairwise
from typing import Any

import torch
from lightning import Trainer
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from dgs_lightning.data.images import ImageSet
from dgs_lightning.errors import InputError
from dgs_lightning.seeding import generator

BY_IPC = {1: 10, 10: 50, 50: 100}  # largest images per class -> images in a batch
DOUBLED_FROM = 100  # classes
Positions = Sequence[Tensor]  # for each batch, the positions of its images


class Streamed(Dataset[tuple[Any, Tensor] | InputError]):
    """Batches ``(images, label positions)`` of a set, decoded each time.

    An error is returned in place of a batch, because it would lose its type if a worker process raised it.
    """

    def __init__(self, images: ImageSet) -> None:
        self.images = images

    def __getitem__(self, positions: Tensor) -> tuple[Any, Tensor] | InputError:
        try:
            images, labels = default_collate(self._decoded(positions))
        except InputError as error:
            return error
        return images, labels

    def _decoded(self, positions: Tensor) -> list[tuple[Any, int]]:
        return [self.images[position] for position in positions.tolist()]

    def ahead(self, batches: Positions) -> Iterator[tuple[Any, Tensor]]:
        """The batches in order. While one is used, threads decode the next one, on all cores."""
        cores = len(os.sched_getaffinity(0))
        with ThreadPoolExecutor(cores) as threads:

            def begin(positions: Tensor) -> list[Future[list[tuple[Any, int]]]]:
                return [threads.submit(self._decoded, part) for part in torch.tensor_split(positions, cores)]

            for begun, _ in pairwise(chain(map(begin, batches), (None,))):  # it begins one more than it gives
                images, labels = default_collate([image for part in begun or () for image in part.result()])
                yield images, labels


class Decoded:
    """Batches ``(images, label positions)`` of a set that is decoded once, on all cores, and kept in memory.

    Args:
        images: A set of uint8 images of one size.
        device: The device that keeps the images.
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

    def __getitem__(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        positions = positions.to(self.pixels.device)
        return self.pixels[positions], self.labels[positions]


class BatchLoader:
    """Serves batches ``(images, label positions)``; uint8 pixels become float32 in [0, 1].

    Args:
        images: Gives a batch for the positions of its images.
        batches: Called when an epoch begins; returns the positions for each batch.
        num_workers: Processes that decode ``Streamed`` images; with 0, threads of this process do.
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
        """Number of batches in an epoch."""
        return len(self.batches())

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        batches = self.batches()
        loaded: Iterable[Any]
        if isinstance(self.images, Decoded):
            loaded = map(self.images.__getitem__, batches)
        elif self.num_workers:
            loaded = DataLoader(self.images, batch_size=None, sampler=batches, num_workers=self.num_workers)
        else:
            loaded = self.images.ahead(batches)
        for positions, batch in zip(batches, loaded, strict=True):
            if isinstance(batch, InputError):
                raise batch
            images, labels = batch
            if isinstance(images, Tensor) and images.dtype == torch.uint8:
                images = images.float() / 255
            yield (images, positions, labels) if self.with_positions else (images, labels)


def batch_size_by_ipc(images: int, classes: int) -> int:
    """Size of a training batch in RDED's protocol (Sun et al., CVPR 2024), from the images of the set.

    It is published for 1, 10 and 50 images per class: 10, 50 and 100, twice as much for 100 and for 1,000 classes. Here
    other numbers of images per class take the size of the next published one upward, and those above 50 that of 50. It
    is doubled from 100 classes on. A batch never has more images than the set.
    """
    published = next((size for ipc, size in BY_IPC.items() if images <= ipc * classes), max(BY_IPC.values()))
    return min(published * (2 if classes >= DOUBLED_FROM else 1), images)


def settled_batch_size(setting: int | str, images: int, classes: int) -> int:
    """Size of a training batch from the setting: the number itself, or by the images per class."""
    return setting if isinstance(setting, int) else batch_size_by_ipc(images, classes)


def place_of(trainer: Trainer | None) -> tuple[int, int]:
    """Number of this device, from 0, and number of all devices. Without a trainer, there is one device."""
    return (trainer.global_rank, trainer.world_size) if trainer else (0, 1)


def check_shareable(batch_size: int, devices: int) -> None:
    """Check that the devices can share a batch equally.

    Raises:
        InputError: If the batch size is not a multiple of the number of devices.
    """
    if batch_size % devices:
        expected = f"a multiple of the {devices} devices that share it"
        raise InputError.setting("batch_size", batch_size, expected, "Change batch_size or devices")


def shuffled_batches(
    count: int, batch_size: int, seed: int, epoch: int, rank: int = 0, devices: int = 1
) -> list[Tensor]:
    """Positions of one device's share of each batch in an epoch.

    Args:
        count: Number of images. If the devices cannot share them equally, some images are served twice.
        batch_size: Images in a batch, over all devices.
        seed: Seed of the order, together with the epoch.
        epoch: Number of the epoch.
        rank: Number of the device.
        devices: Number of devices, a divisor of ``batch_size``.

    Returns:
        One tensor of positions for each batch.
    """
    order = torch.randperm(count, generator=generator("order", seed, epoch))
    order = order[torch.arange(-(-count // devices) * devices) % count]
    return [batch[rank::devices] for batch in torch.split(order, batch_size)]
