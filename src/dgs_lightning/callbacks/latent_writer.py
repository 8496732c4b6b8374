"""Writing of the latent cache."""

import logging
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import lightning as L
import torch

from dgs_lightning.bounds import AtLeast, check_bounds
from dgs_lightning.callbacks.writing import ResumableWriter, hash_images
from dgs_lightning.data.cards import hash_each, hash_file
from dgs_lightning.data.editions import licences_of
from dgs_lightning.data.latents import (
    CARD,
    Keyed,
    LatentCache,
    check_space,
    encoded_images,
    finish_cache,
    other_latents,
    read_shard,
    shard_paths,
    write_shard,
)
from dgs_lightning.data.records import MANIFEST
from dgs_lightning.data.unfinished import ADOPTED
from dgs_lightning.datamodules.images import ImageDataModule
from dgs_lightning.documents.files import read_json
from dgs_lightning.errors import BrokenFile, InputError
from dgs_lightning.files import remove_leftovers
from dgs_lightning.tasks.encoding import Encoded, EncodingTask

_log = logging.getLogger(__name__)


class LatentWriter(ResumableWriter[EncodingTask, ImageDataModule]):
    """Writes the latents of ``EncodingTask`` as a cache of shards. Each device writes its own shards.

    The folder may not hold latents of other images, another transform or another codec. Until all latents are there, a
    hidden journal has the hash of each shard. A lost or altered shard is made again.

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

    TASK, DATA, KIND = EncodingTask, ImageDataModule, "latents"

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
        self._images, self._device = hash_images(trainer, data), trainer.global_rank
        self._key = self._settings.key(self._images)
        done = torch.zeros(len(data.predict_records), dtype=torch.bool)
        done[self.take(trainer, self.output)] = True
        left = int((~done).sum())
        size = self._settings.bytes_for(left)
        if trainer.is_global_zero:
            _log.info("%s: %.3g GB of latents of %d images to write", self.output, size / 1e9, left)
        check_space(self.output, size)
        data.leave_out([number for number, batch in enumerate(data.predict_batches) if done[batch].all()])

    def check(self) -> None:
        """Refuse latents of other images, of another codec or transform, or of something else."""
        key = self.unfinished.begun()
        if key is None:
            key = read_json(self.output / CARD, Keyed, "a latent cache's card", default={}).get("key")
        if key is None:
            self.unfinished.check_free()
        elif key not in (self._key, ADOPTED):
            raise other_latents(self.output, self.output)

    def resume(self) -> list[int]:
        """Positions of the images whose latents are as they were written. Other shards are removed."""
        begun, paths = self.unfinished.begun() is not None, shard_paths(self.output)
        self._done = not begun and self._is_finished()
        if self._done:
            self.unfinished.end()
        else:
            if begun:
                remove_leftovers(self.output)
                noted = self.unfinished.hashes()
            else:
                noted = hash_each(self.output, [path.name for path in paths if self._is_readable(path)])
            there = hash_each(self.output, [path.name for path in paths])
            kept = [name for name, sha256 in there.items() if noted.get(name) == sha256]
            self.unfinished.begin(self._key, ({name: there[name]} for name in kept))
            for name in there.keys() - kept:
                (self.output / name).unlink()
        found: list[int] = encoded_images(self.output, self._key, len(self.data.predict_records)).tolist()
        return found

    def _is_finished(self) -> bool:
        """Whether the folder is a cache that can be used."""
        with suppress(InputError):
            LatentCache(self.output)
            return True
        return False

    def _is_readable(self, path: Path) -> bool:
        """Whether a shard is not broken. Where that cannot be told, such as for lack of memory, an error is raised."""
        with suppress(BrokenFile):
            read_shard(path, self._key, len(self.data.predict_records))
            return True
        return False

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
            path = write_shard(self.output, self._key, torch.cat(images), torch.cat(means), variances)
            self.unfinished.note(self._device, {path.name: hash_file(path)})
            self._waiting.clear()

    def finish(self, trainer: L.Trainer) -> None:
        """Write manifest and card of the cache, if all latents are there."""
        if self._done:
            return
        licences = licences_of(self.data.predict_folder, self.data.labels)
        finish_cache(self.output, self._settings, self.data.predict_records, self._images, licences)
        self.complete([*(path.name for path in shard_paths(self.output)), MANIFEST, CARD])
