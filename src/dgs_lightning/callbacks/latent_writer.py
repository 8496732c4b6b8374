"""Writing of the latent cache."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import BasePredictionWriter

from dgs_lightning.bounds import Ranged
from dgs_lightning.data.cards import hash_files, licences_of
from dgs_lightning.data.latents import check_space, encoded_images, finish_cache, write_shard
from dgs_lightning.datamodules.images import ImageDataModule
from dgs_lightning.errors import InputError
from dgs_lightning.tasks.encoding import Encoded, EncodingTask

_log = logging.getLogger(__name__)


class LatentWriter(BasePredictionWriter, Ranged):
    """Writes the latents of ``EncodingTask`` as a cache, shard by shard, each device its own.

    Images whose latents are on disk are not encoded again. A folder with latents of other images, another transform
    or another codec is refused.

    Args:
        output: Folder of the cache.
        shard_images: Images of a shard; a kill loses at most one shard of each device.
    """

    RANGES: ClassVar[Mapping[str, str]] = {"shard_images": "[1, inf)"}

    def __init__(self, output: str, shard_images: int = 1024) -> None:
        super().__init__("batch")
        self.output = Path(output)
        self.shard_images = shard_images
        self.check_settings(vars(self))
        self._waiting: list[Encoded] = []

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Look at what is there, check that the rest fits on the disk, and serve no image twice.

        Raises:
            InputError: If it does not fit, or the folder holds another cache.
        """
        super().setup(trainer, pl_module, stage)
        trainer.predict_loop.return_predictions = False
        data = trainer.datamodule  # type: ignore[attr-defined]
        if not isinstance(pl_module, EncodingTask) or not isinstance(data, ImageDataModule):
            raise InputError(
                "LatentWriter",
                found=f"{type(pl_module).__name__} with {type(data).__name__}",
                expected="EncodingTask with ImageDataModule",
                remedy="Use it with 'dgs predict' of these",
            )
        self.settings = pl_module.cache_settings(data)
        records = data.predict_records
        self.images = trainer.strategy.broadcast(
            hash_files(data.predict_folder, records) if trainer.is_global_zero else ""
        )
        self.key = self.settings.key(self.images)
        self.output.mkdir(parents=True, exist_ok=True)
        done = torch.zeros(len(records), dtype=torch.bool)
        done[encoded_images(self.output, self.key)] = True
        size = self.settings.bytes_for(int((~done).sum()))
        if trainer.is_global_zero:
            _log.info("%s: %.3g GB of latents of %d images to write", self.output, size / 1e9, int((~done).sum()))
        check_space(self.output, size)
        data.leave_out([number for number, batch in enumerate(data.predict_batches) if done[batch].all()])
        trainer.strategy.barrier("cache looked at")

    def write_on_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        prediction: Encoded,
        *_: object,
    ) -> None:
        """Keep a batch until there are enough for a shard."""
        self._waiting.append(Encoded(*(None if tensor is None else tensor.cpu() for tensor in prediction)))  # type: ignore[arg-type]
        if sum(len(encoded.images) for encoded in self._waiting) >= self.shard_images:
            self._write()

    def _write(self) -> None:
        images, means, logvars = zip(*self._waiting, strict=True)
        variances = None if logvars[0] is None else torch.cat(logvars)
        write_shard(self.output, self.key, torch.cat(images), torch.cat(means), variances)
        self._waiting.clear()

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Write what is left; when all devices have, the first one finishes the cache."""
        if self._waiting:
            self._write()
        trainer.strategy.barrier("latents written")
        if trainer.is_global_zero:
            data: ImageDataModule = trainer.datamodule  # type: ignore[attr-defined]
            licences = licences_of(data.predict_folder, data.labels)
            finish_cache(self.output, self.settings, data.predict_records, self.images, licences)
        trainer.strategy.barrier("cache finished")
