"""Training batches from a latent cache. Restarts and the number of devices do not change them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dgs_lightning.bounds import Between, save_settings
from dgs_lightning.data.classes import check_labels
from dgs_lightning.data.latents import LatentCache
from dgs_lightning.datamodules.batches import check_shareable, place_of
from dgs_lightning.errors import InputError
from dgs_lightning.seeding import generator


class LatentBatch(NamedTuple):
    """One device's share of a batch."""

    latents: Tensor  # shape (B, C, h, w)
    classes: Tensor  # positions in the datamodule's labels, shape (B,)
    number: int  # of the batch in the run, from 0, across epochs


class LatentBatches(Dataset[LatentBatch]):
    """The batches of a run, by their number. The number of a batch seeds its draws.

    Each epoch visits the images in a new order. Images that do not fill a whole batch are left out. A set that is
    smaller than a batch is repeated.

    Args:
        cache: The latents.
        batch_size: Latents of a batch, over all devices.
        sample: Whether to sample the posterior. Otherwise its mean is taken.
        flip: Whether to take flipped latents half of the time.
        seed: Seed of the order, the samples and the flips.
        rank: Number of this device. Each device gets one contiguous share of each batch.
        devices: Number of all devices.
    """

    def __init__(
        self,
        cache: LatentCache,
        batch_size: int,
        sample: bool = True,
        flip: bool = True,
        seed: int = 0,
        rank: int = 0,
        devices: int = 1,
    ) -> None:
        self.cache = cache
        self.batch_size = batch_size
        self.sample = sample and cache.settings.posterior
        self.flip = flip and cache.settings.flips == 2
        self.seed = seed
        self.share = slice(rank * batch_size // devices, (rank + 1) * batch_size // devices)
        self._order = (-1, torch.empty(0))  # epoch, and its images in order

    def __len__(self) -> int:
        """Batches of an epoch."""
        return max(1, len(self.cache) // self.batch_size)

    def _order_of(self, epoch: int) -> Tensor:
        if self._order[0] != epoch:
            random = generator("order", self.seed, epoch)
            rounds = -(-self.batch_size // len(self.cache))
            order = torch.cat([torch.randperm(len(self.cache), generator=random) for _ in range(rounds)])
            self._order = epoch, order
        return self._order[1]

    def __getitem__(self, number: int) -> LatentBatch:
        epoch, batch = divmod(number, len(self))
        images = self._order_of(epoch)[batch * self.batch_size :][: self.batch_size][self.share]
        # Each device draws for the whole batch, so that its share does not depend on the number of devices.
        random = generator("latents", self.seed, number)
        flipped = torch.rand(self.batch_size, generator=random)[self.share] < 0.5 if self.flip else None
        posterior = self.cache.read(images, flipped)
        latents = posterior.mean
        if self.sample:
            latents = posterior.sample(torch.randn(self.batch_size, *latents.shape[1:], generator=random)[self.share])
        return LatentBatch(latents, self.cache.classes[images], number)


class ResumableLoader:
    """Loads numbered batches in order. Lightning keeps its position in checkpoints."""

    def __init__(self, batches: LatentBatches, num_workers: int = 0) -> None:
        self.batches = batches
        self.num_workers = num_workers
        self.position = 0

    def __len__(self) -> int:
        """Batches of an epoch."""
        return len(self.batches)

    def __iter__(self) -> Iterator[LatentBatch]:
        numbers = range(self.position, self.position + len(self))
        for batch in DataLoader(self.batches, batch_size=None, sampler=numbers, num_workers=self.num_workers):
            self.position = batch.number + 1
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """The position, and what identifies the batches."""
        own = {"cache": self.batches.cache.key, "batch_size": self.batches.batch_size, "seed": self.batches.seed}
        return {"position": self.position, **own}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from the position of a checkpoint.

        Raises:
            InputError: If the checkpoint was made with other batches.
        """
        own = self.state_dict()
        for name in ("cache", "batch_size", "seed"):
            if state[name] != own[name]:
                raise InputError.resume(f"a checkpoint made with {name} {state[name]}", f"{name} {own[name]}")
        self.position = state["position"]


class LatentDataModule(pl.LightningDataModule):
    """Training batches of cached latents.

    Args:
        cache: Folder that ``dgs predict`` with ``EncodingTask`` wrote.
        batch_size: Latents of a batch, over all devices.
        latents: ``sample`` draws from the posterior, ``mean`` takes its mean. They are the same for a codec without
            a posterior.
        flip: ``random`` takes each orientation in the cache with the same probability, ``never`` takes the original.
        labels: Classes that the cache must have, or the name of a class list such as ``imagewoof``. By default the
            cache may have any classes.
        images: Folder of the images. If given, the cache must be of these images.
        seed: Seed of the order, the flips and the samples.
        num_workers: Worker processes. 0 is faster if the cache fits in memory.

    Raises:
        InputError: If a setting is outside its limits.

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> from dgs_lightning.examples import write_latents
        >>> with TemporaryDirectory() as folder:
        ...     data = LatentDataModule(write_latents(folder), batch_size=4)
        ...     data.setup("fit")
        ...     [(batch.number, tuple(batch.latents.shape)) for batch in data.train_dataloader()]
        [(0, (4, 1, 4, 4)), (1, (4, 1, 4, 4))]
    """

    def __init__(
        self,
        cache: str,
        batch_size: Annotated[int, Between(1, 1_000_000)] = 8,
        latents: Literal["sample", "mean"] = "sample",
        flip: Literal["random", "never"] = "random",
        labels: str | list[str] | None = None,
        images: str | None = None,
        seed: int = 0,
        num_workers: Annotated[int, Between(0, 1024)] = 0,
    ) -> None:
        super().__init__()
        save_settings(self)
        self.cache_folder = Path(cache)

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes of the latents. ``LatentBatch.classes`` holds positions in them."""
        return self.cache.labels

    @property
    def licences(self) -> tuple[str, ...]:
        """Licences of the images that the latents were made from."""
        return self.cache.licences

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Shape ``(C, h, w)`` of a latent."""
        return self.cache.settings.shape

    def setup(self, stage: str) -> None:
        """Open the cache.

        Raises:
            InputError: If the cache is not finished, has noisy latents, or has other images or classes, or the devices
                cannot share a batch equally.
        """
        self.cache = LatentCache(self.cache_folder)
        if self.cache.settings.inversion is not None:
            remedy = "Set data.cache to the latents that EncodingTask made"
            raise InputError(self.cache_folder, "latents of InversionTask, which are noisy", "clean latents", remedy)
        check_labels(set(self.cache.labels), self.hparams["labels"], self.cache_folder)
        if self.hparams["images"] is not None:
            self.cache.check_images(Path(self.hparams["images"]))
        check_shareable(self.hparams["batch_size"], place_of(self.trainer)[1])

    def train_dataloader(self) -> ResumableLoader:
        """The shares of the batches that this device gets."""
        size, seed, workers = (self.hparams[name] for name in ("batch_size", "seed", "num_workers"))
        sample, flip = self.hparams["latents"] == "sample", self.hparams["flip"] == "random"
        batches = LatentBatches(self.cache, size, sample, flip, seed, *place_of(self.trainer))
        return ResumableLoader(batches, workers)
