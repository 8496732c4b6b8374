"""Writing of generated images, in a thread beside the generation."""

import fcntl
import io
import logging
import shutil
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import IO, Annotated, Any

import lightning as L
from lightning.pytorch.callbacks import RichProgressBar, TQDMProgressBar
from PIL import Image
from torch import Tensor
from torchvision.utils import make_grid

from dgs_lightning.bounds import AtLeast, check_bounds
from dgs_lightning.callbacks.parts import tensorboards
from dgs_lightning.callbacks.writing import ResumableWriter
from dgs_lightning.data.cards import CardSettings, hash_files, read_card, versions, write_card
from dgs_lightning.data.folders import scan_images
from dgs_lightning.data.records import MANIFEST, ImageRecord, manifest_line, read_manifest, write_manifest
from dgs_lightning.datamodules.requests import RequestBatch, RequestDataModule
from dgs_lightning.errors import InputError
from dgs_lightning.files import replacing, write_json, write_text
from dgs_lightning.reading.documents import read_json
from dgs_lightning.tasks.generation import GenerationTask

_log = logging.getLogger(__name__)
_JOURNAL = ".generation"  # folder in an unfinished image set: settings, and the manifest lines of each finished batch
_WAITING = 2  # batches that may wait for the encoder; with more, the device waits


class ImageWriter(ResumableWriter[GenerationTask, RequestDataModule]):
    """Writes generated images as an image set: ``LABEL/00000.png``, ``metadata.jsonl`` and ``dataset.json``.

    Until all images are there, a hidden folder holds the manifest lines of each finished batch. A batch with a broken
    or lost image is generated again.

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

    TASK, DATA = GenerationTask, RequestDataModule

    def __init__(self, output: str, grid: Annotated[int, AtLeast(0)] = 64) -> None:
        self.output = Path(output)
        self.grid = grid
        check_bounds(type(self), vars(self))
        self._encoder: ThreadPoolExecutor | None = None  # started in the process that writes
        self._jobs: list[Future[None]] = []
        self._lock: IO[str] | None = None

    def begin(self, trainer: L.Trainer) -> None:
        """Let the datamodule ask for the finished images. Guidance and batch size are known when it asks."""
        self.data.leave_out(lambda: self._resume(trainer))
        self._encoder = ThreadPoolExecutor(1)
        self._rate = ImageRate()
        self._shown = False

    def _resume(self, trainer: L.Trainer) -> set[str]:
        """File names of the finished images, the same on each device. Refuse a folder with other images."""
        journal = self.output / _JOURNAL / "settings.json"
        remedy = f"Delete {self.output} and run the command again"
        earlier: dict[str, Any] = {**read_json(journal, CardSettings, "the settings of the images", remedy, default={})}
        earlier = earlier or read_card(self.output).get("settings", {})
        self.data.keep_batch_size(earlier.get("requests", {}).get("batch_size"))
        settings = self._settings(trainer)
        if earlier and earlier != settings:
            found = f"images made with other settings ({'; '.join(_differences(earlier, settings))})"
            remedy = "Restore the settings, choose another output, or delete the folder"
            raise InputError.occupied(self.output, found, "none, or images made with the same settings", remedy)
        if not earlier and _has_images(self.output):
            raise InputError.occupied(self.output, "images that this command did not make", "an empty folder")
        trainer.strategy.barrier("settings checked")
        if trainer.is_global_zero:
            write_json(journal, settings)
            self._hold()
        finished = {record.file_name for record in self._recorded() if _is_whole(self.output / record.file_name)}
        trainer.strategy.barrier("finished images listed")
        self._rate.total = len(self.data.requests()) - len(finished)
        return finished

    def _hold(self) -> None:
        """Lock the folder against a second run, until this process ends."""
        self._lock = (self.output / _JOURNAL / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError.busy(self.output) from None

    def _recorded(self) -> Iterator[ImageRecord]:
        """Records of the finished batches of this run and earlier ones, without batches that have broken lines."""
        for manifest in (self.output / MANIFEST, *sorted((self.output / _JOURNAL).glob("*/" + MANIFEST))):
            with suppress(InputError):
                yield from read_manifest(manifest.parent)

    def write(self, trainer: L.Trainer, prediction: Tensor, batch: RequestBatch) -> None:
        """Hand the 8-bit images of a batch to the encoder."""
        assert self._encoder is not None
        images = prediction.cpu()
        self._jobs.append(self._encoder.submit(self._write_batch, images, batch))
        while len(self._jobs) > _WAITING:
            self._jobs.pop(0).result()
        self._rate.advance(len(images) * trainer.world_size, trainer)
        if not self._shown and trainer.is_global_zero and self.grid:
            shown = images[: self.grid]
            for board in tensorboards(trainer):
                board.add_image("samples", make_grid(shown, nrow=max(1, int(len(shown) ** 0.5))))
        self._shown = True

    def _write_batch(self, images: Tensor, batch: RequestBatch) -> None:
        """Write the images of a batch, and then its lines, as the sign that all its images are there."""
        for image, record in zip(images, batch.records, strict=True):
            write_png(self.output / record.file_name, image)
        lines = "".join(manifest_line(record) for record in batch.records)
        write_text(self.output / _JOURNAL / f"{batch.number:06d}" / MANIFEST, lines)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Let the encoder finish the files that it is writing."""
        if self._encoder is not None:
            self._encoder.shutdown(wait=True, cancel_futures=True)
        if self._lock is not None:
            self._lock.close()

    def flush(self) -> None:
        """Wait until the encoder has written all images."""
        while self._jobs:
            self._jobs.pop(0).result()
        if self._encoder is not None:
            self._encoder.shutdown()

    def finish(self, trainer: L.Trainer) -> None:
        """Write manifest and card if all images are there, and delete the journal."""
        if self._lock is None:  # the datamodule asked for no batch
            return
        records = {record.file_name: record for record in self._recorded()}
        wanted = len(self.data.requests())
        if len(records) == wanted:
            write_manifest(self.output, records.values())
            card = {
                "name": self.output.name,
                "kind": "pool" if self.data.centers is None else "distilled",
                "labels": {record.label: record.class_name for record in records.values()},
                "images": len(records),
                "settings": self._settings(trainer),
                "versions": versions(),
                "hashes": {"images": hash_files(self.output, records.values())},
                "provenance": ["generated by a DiT with 'dgs predict'"],
                "licences": list(self.task.model.licences),
            }
            write_card(self.output, card)
            shutil.rmtree(self.output / _JOURNAL)
        else:
            _log.info("%d of %d images; the same command generates the others", len(records), wanted)
        self._lock.close()

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


def write_png(path: Path, image: Tensor) -> None:
    """Write an 8-bit image ``(1 or 3, H, W)`` as PNG, whole or not at all, and always in the same bytes."""
    pixels = image[0] if len(image) == 1 else image.permute(1, 2, 0)
    encoded = io.BytesIO()  # PIL hides the error number of a full disk
    Image.fromarray(pixels.numpy()).save(encoded, "PNG")
    with replacing(path) as partial:
        partial.write_bytes(encoded.getbuffer())


def _is_whole(path: Path) -> bool:
    """Whether an image is there and its checksums are right."""
    try:
        with Image.open(path) as image:
            image.verify()
    except (OSError, SyntaxError):
        return False
    return True


def _has_images(folder: Path) -> bool:
    with suppress(InputError):
        return bool(scan_images(folder))
    return False


def _differences(old: Mapping[str, Any], new: Mapping[str, Any], name: str = "") -> Iterator[str]:
    """Settings that differ, as ``name: old -> new``."""
    for key in sorted(old.keys() | new.keys()):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            yield from _differences(before, after, f"{name}{key}.")
        elif before != after:
            yield f"{name}{key}: {before} -> {after}"
