"""Writing of generated images, in a thread beside the generation."""

import logging
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

import lightning as L
from lightning.pytorch.callbacks import RichProgressBar, TQDMProgressBar
from torch import Tensor
from torchvision.utils import make_grid

from dgs_lightning.bounds import AtLeast, check_bounds
from dgs_lightning.callbacks.parts import tensorboards
from dgs_lightning.callbacks.writing import ResumableWriter
from dgs_lightning.data.cards import (
    CARD,
    differences,
    hash_each,
    hash_file,
    hash_files,
    hash_json,
    read_card,
    versions,
    write_card,
)
from dgs_lightning.data.folders import IMAGES
from dgs_lightning.data.images import picture, save_png
from dgs_lightning.data.latents import latent_name, write_latent
from dgs_lightning.data.readme import DISTILLED, README, write_readme
from dgs_lightning.data.records import MANIFEST, ImageRecord, read_manifest, write_manifest
from dgs_lightning.data.unfinished import Unfinished
from dgs_lightning.datamodules.requests import RequestBatch, RequestDataModule
from dgs_lightning.errors import BrokenFile, InputError
from dgs_lightning.files import remove_leftovers
from dgs_lightning.tasks.generation import GenerationTask, Measured

_log = logging.getLogger(__name__)
_WAITING = 2  # batches that may wait for the encoder; with more, the device waits


class ImageWriter(ResumableWriter[GenerationTask, RequestDataModule]):
    """Writes generated images as an image set: ``LABEL/00000.png``, ``metadata.jsonl`` and ``dataset.json``.

    If the task has ``keep_latents``, ``LABEL/00000.safetensors`` holds the latent of an image, shape ``(C, h, w)``.
    Where the task measures something of each image, the manifest has it, and the card has the mean.

    Until all images are there, a hidden journal has the hashes of the images of each finished batch. A batch with a
    lost or altered image is generated again. A finished set has the hash of all images on its card: where one is
    altered, all are made again.

    Args:
        output: Folder of the image set.
        grid: Number of images in the sample grid for TensorBoard; 0 for no grid.

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> from dgs_lightning.examples import QUIET, write_dit
        >>> with TemporaryDirectory() as folder:
        ...     task, output = GenerationTask(write_dit(folder), steps=2), Path(folder, "pool")
        ...     trainer = L.Trainer(**QUIET, callbacks=[ImageWriter(str(output))])
        ...     nothing = trainer.predict(task, RequestDataModule(images_per_class=1))
        ...     sorted(path.relative_to(output).as_posix() for path in output.rglob("*.*"))
        ['cat/00000.png', 'dataset.json', 'dog/00000.png', 'metadata.jsonl']
    """

    TASK, DATA, KIND = GenerationTask, RequestDataModule, IMAGES

    def __init__(self, output: str, grid: Annotated[int, AtLeast(0)] = 64) -> None:
        self.output = Path(output)
        self.grid = grid
        check_bounds(type(self), vars(self))
        self._encoder: ThreadPoolExecutor | None = None  # started in the process that writes
        self._jobs: list[Future[None]] = []

    def begin(self, trainer: L.Trainer) -> None:
        """Let the datamodule ask for the finished images. Guidance and batch size are known when it asks."""
        self.data.leave_out(lambda: self._resume(trainer))
        self._encoder = ThreadPoolExecutor(1)
        self._rate = ImageRate()
        self._shown = self._done = False

    def _resume(self, trainer: L.Trainer) -> set[str]:
        """File names of the finished images, the same on each device."""
        self.unfinished = Unfinished(self.output, self.KIND)
        earlier = trainer.strategy.broadcast(self._earlier() if trainer.is_global_zero else {})
        self.data.keep_batch_size(earlier.get("requests", {}).get("batch_size"))
        self._made_with, self._device = self._settings(trainer), trainer.global_rank
        finished: set[str] = self.take(trainer, self.output)
        self._finished = finished
        self._rate.total = len(self.data.requests()) - len(finished)
        return finished

    def _earlier(self) -> dict[str, Any]:
        """Settings of the images that are in the folder; empty where there are none."""
        begun = self.unfinished.begun()
        return dict(begun if isinstance(begun, dict) else read_card(self.output).get("settings", {}))

    def check(self) -> None:
        """Refuse images that were made with other settings, or by something else."""
        earlier = self._earlier()
        if not earlier and self.unfinished.begun() is None:
            self.unfinished.check_free()
        if earlier and earlier != self._made_with:
            found = f"images made with other settings ({'; '.join(differences(earlier, self._made_with))})"
            remedy = "Restore the settings, choose another output, or delete the folder"
            raise InputError.occupied(self.output, found, "none, or images made with the same settings", remedy)

    def resume(self) -> set[str]:
        """File names of the images that are as they were made."""
        names, kept = [record.file_name for record in self.data.requests()], dict[str, str]()
        files = self._files(names)
        card, begun = read_card(self.output), self.unfinished.begun() is not None
        if begun:
            remove_leftovers(self.output)
            noted = self.unfinished.hashes()
            there = hash_each(self.output, [name for name in files if name in noted])
            kept = {name: sha256 for name, sha256 in there.items() if sha256 == noted[name]}
        elif card:
            kept = hash_each(self.output, files)
            lost = len(kept) < len(files)
            altered = not lost and self._changed(self._hashes())
            self._done = not lost and not altered and self._is_described(names)
            if altered:  # nothing tells which images are
                kept = {}
        if self._done:
            self.unfinished.end()
            return set(names)
        measures = self._measures()
        if self.task.MEASURES:
            kept = {name: sha256 for name, sha256 in kept.items() if name in measures or name not in names}
        measured = ({name: values} for name, values in measures.items() if name in kept)
        self.unfinished.begin(self._made_with, [*measured, *({name: sha256} for name, sha256 in kept.items())])
        if card and not kept:
            (self.output / CARD).unlink()
        return {name for name in names if kept.keys() >= set(self._files([name]))}

    def _files(self, names: Iterable[str]) -> list[str]:
        """Names of the files of some images: the images, and their latents if these are kept."""
        images = list(names)
        return images + [latent_name(name) for name in images] if self.task.hparams["keep_latents"] else images

    def _hashes(self) -> dict[str, str]:
        """Hash of all images, and of their latents if these are kept."""
        records = self.data.requests()
        hashes = {"images": hash_files(self.output, records)}
        if self.task.hparams["keep_latents"]:
            latents = hash_each(self.output, [latent_name(record.file_name) for record in records])
            hashes["latents"] = hash_json(latents)
        return hashes

    def _changed(self, hashes: Mapping[str, str]) -> bool:
        """Whether the card of a finished set has other hashes."""
        on_card = self._hashes_on_card()
        return any(on_card.get(name, sha256) != sha256 for name, sha256 in hashes.items())

    def _hashes_on_card(self) -> dict[str, str]:
        """Hashes on the card of a finished set; none without a card."""
        return dict(read_card(self.output).get("hashes", {}))

    def _is_described(self, names: Collection[str]) -> bool:
        """Whether there is a manifest of these images, and the README.md of a distilled set."""
        if all((self.output / name).is_file() for name in (MANIFEST, *self._readme())):
            with suppress(BrokenFile):
                return {record.file_name for record in read_manifest(self.output)} == set(names)
        return False

    def _measures(self) -> dict[str, dict[str, float]]:
        """What the task measured of the finished images, by their file names."""
        names, found = self.task.MEASURES, dict[str, dict[str, float]]()
        if names and (self.output / MANIFEST).is_file():
            with suppress(BrokenFile):
                found = {record.file_name: record.extra for record in read_manifest(self.output)}
        for part in self.unfinished.noted(dict[str, dict[str, float]]):
            found |= part
        return {file: {n: values[n] for n in names} for file, values in found.items() if values.keys() >= set(names)}

    def write(self, trainer: L.Trainer, prediction: Tensor | Measured, batch: RequestBatch) -> None:
        """Hand the 8-bit images of a batch to the encoder."""
        assert self._encoder is not None
        if self._finished.issuperset(record.file_name for record in batch.records):
            return  # another callback asked for them
        measured = prediction if isinstance(prediction, Measured) else Measured(prediction, {})
        images, values = measured.images.cpu(), {name: each.tolist() for name, each in measured.measures.items()}
        latents = self.task.latents if self.task.hparams["keep_latents"] else None
        latents = None if latents is None else latents.cpu()
        self._jobs.append(self._encoder.submit(self._write_batch, images, latents, values, batch))
        while len(self._jobs) > _WAITING:
            self._jobs.pop(0).result()
        self._rate.advance(len(images) * trainer.world_size, trainer)
        if not self._shown and trainer.is_global_zero and self.grid:
            shown = images[: self.grid]
            for board in tensorboards(trainer):
                board.add_image("samples", make_grid(shown, nrow=max(1, int(len(shown) ** 0.5))))
        self._shown = True

    def _write_batch(
        self, images: Tensor, latents: Tensor | None, values: Mapping[str, Sequence[float]], batch: RequestBatch
    ) -> None:
        """Write the images of a batch and their latents, and then note them, as the sign that all are there."""
        names = [record.file_name for record in batch.records]
        if values:
            of_each = [{name: round(values[name][place], 6) for name in values} for place in range(len(names))]
            self.unfinished.note(self._device, dict(zip(names, of_each, strict=True)))
        hashes = {name: write_png(self.output / name, image) for name, image in zip(names, images, strict=True)}
        if latents is not None:
            for name, latent in zip(map(latent_name, names), latents, strict=True):
                write_latent(self.output / name, latent)
                hashes[name] = hash_file(self.output / name)
        self.unfinished.note(self._device, hashes)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Let the encoder finish the files that it is writing."""
        if self._encoder is not None:
            self._encoder.shutdown(wait=True, cancel_futures=True)
        super().on_exception(trainer, pl_module, exception)

    def flush(self) -> None:
        """Wait until the encoder has written all images."""
        while self._jobs:
            self._jobs.pop(0).result()
        if self._encoder is not None:
            self._encoder.shutdown()

    def finish(self, trainer: L.Trainer) -> None:
        """Write manifest and card if all images are there.

        Raises:
            InputError: If lost images of a finished set were made again, and the others are not those of its card.
        """
        if self._done:
            return
        records, noted = self.data.requests(), self.unfinished.hashes()
        names = {record.file_name for record in records}
        files = self._files(names)
        if left := set(files) - noted.keys():
            lost = len({name for name in names if left & set(self._files([name]))})
            _log.info("%d of %d images are left; the same command generates them", lost, len(names))
            return
        hashes = self._hashes()
        if self._changed(hashes):
            self.unfinished.begin(self._made_with)
            (self.output / CARD).unlink()
            remedy = "Run the same command again: it makes all of them anew"
            raise InputError(self.output, "images that were changed after they were made", "those of its card", remedy)
        if self._hashes_on_card() != hashes or not self._is_described(names):
            measures = self._measures()
            records = [replace(record, extra=measures.get(record.file_name, {})) for record in records]
            card = self._card(hashes, records)
            write_manifest(self.output, records, durable=True)
            for _ in self._readme():
                write_readme(self.output, card, records)
            write_card(self.output, card, durable=True)
        self.complete([*files, MANIFEST, *self._readme(), CARD])

    def _readme(self) -> tuple[str, ...]:
        """Name of the README.md, which a distilled set has and a pool has not."""
        return (README,) if self.data.kind == DISTILLED else ()

    def _card(self, hashes: Mapping[str, str], records: Sequence[ImageRecord]) -> dict[str, Any]:
        """Card of the finished set, whose files have these hashes."""
        means = {name: round(fmean(record.extra[name] for record in records), 4) for name in self.task.MEASURES}
        if means:
            _log.info("on average over the images: %s", ", ".join(f"{name} {mean}" for name, mean in means.items()))
        return {
            "name": self.output.name,
            "kind": self.data.kind,
            "labels": {record.label: record.class_name for record in records},
            "images": len(records),
            "settings": self._made_with,
            **({"measures": means} if means else {}),
            "versions": versions(),
            "hashes": dict(hashes),
            "provenance": ["generated by a DiT with 'dgs predict'", *self.data.provenance],
            "licences": list(self.task.model.licences),
        }

    def _settings(self, trainer: L.Trainer) -> dict[str, Any]:
        """Settings that the images depend on: model, requests and precision."""
        settings = {"model": self.task.settings(), "requests": self.data.settings()}
        return settings | {"precision": str(trainer.precision)}


class ImageRate:
    """Shows images a second on the progress bar. Without a bar, logs a line with images a second and the time left.

    Args:
        total: Images to generate.
        every: Seconds between two lines of the log.
    """

    def __init__(self, total: int = 0, every: float = 30.0) -> None:
        self.total = total
        self._every = every
        self._done = 0
        self._start = self._logged = time.monotonic()

    def advance(self, images: int, trainer: L.Trainer) -> None:
        """Count images, and show the speed."""
        self._done = min(self._done + images, self.total)
        now = time.monotonic()
        rate = self._done / max(now - self._start, 1e-9)
        bar = trainer.progress_bar_callback
        if isinstance(bar, TQDMProgressBar):
            bar.predict_progress_bar.set_postfix_str(f"{rate:.1f} images/s")
        elif isinstance(bar, RichProgressBar) and bar.progress and bar.predict_progress_bar_id is not None:
            bar.progress.update(bar.predict_progress_bar_id, description=f"{rate:.1f} images/s")
        elif trainer.is_global_zero and now - self._logged >= self._every:
            self._logged = now
            left = round((self.total - self._done) / rate)
            _log.info("%d of %d images, %.1f images/s, %d s left", self._done, self.total, rate, left)


def write_png(path: Path, image: Tensor) -> str:
    """Write an 8-bit image ``(1 or 3, H, W)`` as PNG, whole or not at all, and always in the same bytes.

    Returns:
        SHA-256 of the file.
    """
    return save_png(path, picture(image))
