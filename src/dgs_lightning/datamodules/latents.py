"""Training batches from a latent cache, the same whatever the number of devices and wherever a run was stopped."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dgs_lightning.bounds import Ranged
from dgs_lightning.data.classes import check_labels
from dgs_lightning.data.latents import LatentCache
from dgs_lightning.datamodules.batches import check_shareable
from dgs_lightning.errors import InputError
from dgs_lightning.seeding import generator


class LatentBatch(NamedTuple):
    """One device's share of a batch.

    Attributes:
        latents: Shape ``(B, C, h, w)``.
        classes: Positions in the datamodule's ``labels``, shape ``(B,)``.
        number: Number of the batch in the run, from 0, across epochs.
    """

    latents: Tensor
    classes: Tensor
    number: int


class LatentBatches(Dataset[LatentBatch]):
    """The batches of a run by their number: every draw is seeded by it.

    Each epoch visits the images in an order of its own and leaves out those that do not fill a batch; a set smaller
    than a batch is repeated.

    Args:
        cache: The latents.
        batch_size: Latents of a batch, over all devices.
        sample: Whether to sample the posterior, or to take its mean.
        flip: Whether to take flipped latents half of the time.
        seed: Seed of the order and of these draws.
        rank: Number of this device, which gets one contiguous share of each batch.
        devices: Number of devices.
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
        self._order = (-1, torch.empty(0))  # epoch, and the images in its order

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
        # Drawn for the whole batch on each device: its share is then the same, however many devices there are.
        random = generator("latents", self.seed, number)
        flipped = torch.rand(self.batch_size, generator=random)[self.share] < 0.5 if self.flip else None
        posterior = self.cache.read(images, flipped)
        latents = posterior.mean
        if self.sample:
            latents = posterior.sample(torch.randn(self.batch_size, *latents.shape[1:], generator=random)[self.share])
        return LatentBatch(latents, self.cache.classes[images], number)


class ResumableLoader:
    """Serves numbered batches in order; its position goes into Lightning's checkpoints.

    Args:
        batches: The batches.
        num_workers: Worker processes; 0 reads in the training process, which is faster for caches in memory.
    """

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
        """Position, and what it is a position in."""
        batches = self.batches
        return {
            "position": self.position,
            "cache": batches.cache.key,
            "batch_size": batches.batch_size,
            "seed": batches.seed,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where a checkpoint stopped.

        Raises:
            InputError: If the batches are others.
        """
        own = self.state_dict()
        for name in ("cache", "batch_size", "seed"):
            if state[name] != own[name]:
                raise InputError(
                    f"resume with {name} {own[name]}",
                    found=f"a checkpoint made with {name} {state[name]}",
                    expected="the same, so that the data go on in order",
                    remedy="Resume with the old settings, or start in a new folder",
                )
        self.position = state["position"]


class LatentDataModule(pl.LightningDataModule, Ranged):
    """Training batches of cached latents.

    Args:
        cache: Folder that ``dgs predict`` with ``EncodingTask`` wrote.
        batch_size: Latents of a batch, over all devices.
        latents: ``sample`` draws from the posterior, ``mean`` takes its mean; the same where the codec has none.
        flip: ``random`` takes each orientation that the cache holds with the same probability, ``never`` the original.
        labels: The classes that the cache must have, or the name of a class list (``imagewoof``); by default any.
        images: Folder of the images, to check that the cache is theirs; by default unchecked.
        seed: Seed of the order, of flips and of samples.
        num_workers: Worker processes; 0 is faster for a cache that fits in memory.
    """

    RANGES: ClassVar[Mapping[str, str]] = {"batch_size": "[1, 1000000]", "num_workers": "[0, 1024]"}

    def __init__(
        self,
        cache: str,
        batch_size: int = 8,
        latents: Literal["sample", "mean"] = "sample",
        flip: Literal["random", "never"] = "random",
        labels: str | list[str] | None = None,
        images: str | None = None,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.check_settings(self.hparams)
        self.cache_folder = Path(cache)

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes of the latents, in the order of the batches' positions."""
        return self.cache.labels

    @property
    def licences(self) -> tuple[str, ...]:
        """Terms of the images that the latents were made of."""
        return self.cache.licences

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Shape ``(C, h, w)`` of a latent."""
        return self.cache.settings.shape

    def setup(self, stage: str) -> None:
        """Open the cache.

        Raises:
            InputError: If it is not finished, or of other images or classes, or the devices cannot share a batch
                equally.
        """
        self.cache = LatentCache(self.cache_folder)
        check_labels(set(self.cache.labels), self.hparams["labels"], self.cache_folder)
        if self.hparams["images"] is not None:
            self.cache.check_images(Path(self.hparams["images"]))
        check_shareable(self.hparams["batch_size"], self.trainer.world_size if self.trainer else 1)

    def train_dataloader(self) -> ResumableLoader:
        """Batches of this device."""
        batches = LatentBatches(
            self.cache,
            self.hparams["batch_size"],
            self.hparams["latents"] == "sample",
            self.hparams["flip"] == "random",
            self.hparams["seed"],
            self.trainer.global_rank if self.trainer else 0,
            self.trainer.world_size if self.trainer else 1,
        )
        return ResumableLoader(batches, self.hparams["num_workers"])
