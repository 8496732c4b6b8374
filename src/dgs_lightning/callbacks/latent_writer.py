"""Writing of the latent cache."""

import logging
from pathlib import Path
from typing import Annotated

import lightning as L
import torch

from dgs_lightning.bounds import AtLeast, check_bounds
from dgs_lightning.callbacks.writing import ResumableWriter, hash_images
from dgs_lightning.data.editions import licences_of
from dgs_lightning.data.latents import check_space, encoded_images, finish_cache, write_shard
from dgs_lightning.datamodules.images import ImageDataModule
from dgs_lightning.tasks.encoding import Encoded, EncodingTask

_log = logging.getLogger(__name__)


class LatentWriter(ResumableWriter[EncodingTask, ImageDataModule]):
    """Writes the latents of ``EncodingTask`` as a cache of shards. Each device writes its own shards.

    The folder may not hold latents of other images, another transform or another codec.

    Args:
        output: Folder of the cache.
        shard_images: Images of a shard. A kill loses at most one shard of each device.

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> from dgs_lightning.data.latents import LatentCache
        >>> from dgs_lightning.examples import QUIET, write_images
        >>> with TemporaryDirectory() as folder:
        ...     data = ImageDataModule(predict=write_images(f"{folder}/images"))
        ...     trainer = L.Trainer(**QUIET, callbacks=[LatentWriter(f"{folder}/latents")])
        ...     nothing = trainer.predict(EncodingTask(codec="pixels"), data)
        ...     LatentCache(Path(folder, "latents")).read(torch.tensor([0, 5])).mean.shape
        torch.Size([2, 1, 4, 4])
    """

    TASK, DATA = EncodingTask, ImageDataModule

    def __init__(self, output: str, shard_images: Annotated[int, AtLeast(1)] = 1024) -> None:
        self.output = Path(output)
        self.shard_images = shard_images
        check_bounds(type(self), vars(self))
        self._waiting: list[Encoded] = []

    def begin(self, trainer: L.Trainer) -> None:
        """Leave out the batches whose latents are in the folder, and check that the others fit on the disk.

        Raises:
            InputError: If they do not fit, or the folder holds another cache.
        """
        data, self._settings = self.data, self.task.cache_settings(self.data)
        self._images = hash_images(trainer, data)
        self._key = self._settings.key(self._images)
        self.output.mkdir(parents=True, exist_ok=True)
        done = torch.zeros(len(data.predict_records), dtype=torch.bool)
        done[encoded_images(self.output, self._key, len(done))] = True
        left = int((~done).sum())
        size = self._settings.bytes_for(left)
        if trainer.is_global_zero:
            _log.info("%s: %.3g GB of latents of %d images to write", self.output, size / 1e9, left)
        check_space(self.output, size)
        data.leave_out([number for number, batch in enumerate(data.predict_batches) if done[batch].all()])
        trainer.strategy.barrier("latents listed")

    def write(self, trainer: L.Trainer, prediction: Encoded, batch: object) -> None:
        """Keep a batch until there are enough images for a shard."""
        self._waiting.append(Encoded(*(None if tensor is None else tensor.cpu() for tensor in prediction)))  # type: ignore[arg-type]
        if sum(len(encoded.images) for encoded in self._waiting) >= self.shard_images:
            self.flush()

    def flush(self) -> None:
        """Write the waiting latents as a shard."""
        if self._waiting:
            images, means, logvars = zip(*self._waiting, strict=True)
            variances = None if logvars[0] is None else torch.cat(logvars)
            write_shard(self.output, self._key, torch.cat(images), torch.cat(means), variances)
            self._waiting.clear()

    def finish(self, trainer: L.Trainer) -> None:
        """Write manifest and card of the cache, if all latents are there."""
        licences = licences_of(self.data.predict_folder, self.data.labels)
        finish_cache(self.output, self._settings, self.data.predict_records, self._images, licences)
