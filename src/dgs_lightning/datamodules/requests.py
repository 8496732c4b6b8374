"""Requests for generated images: fixed batches, shared by the devices."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any, Literal

import lightning as L
import torch
from torch import Tensor

from dgs_lightning.bounds import AtLeast, Between, save_settings
from dgs_lightning.data.classes import labels_of, readable_name
from dgs_lightning.data.generated import GeneratedSet
from dgs_lightning.data.records import ImageRecord, check_label
from dgs_lightning.datamodules.batches import place_of
from dgs_lightning.distil.centers import hash_centers, read_centers
from dgs_lightning.errors import InputError, listed
from dgs_lightning.seeding import image_seed


@dataclass
class RequestBatch:
    """Images that are generated together."""

    number: int  # among all batches of the requests
    records: list[ImageRecord]  # lines of the manifest: label, index, seed, and file name of each image
    centers: Tensor | None = None  # of each image, shape (B, C, h, w); None if there are no centres

    def to(self, device: torch.device) -> "RequestBatch":
        """The batch with its tensor on a device; Lightning calls this."""
        return self if self.centers is None else replace(self, centers=self.centers.to(device))


class RequestBatches:
    """Batches in order. Lightning shuffles and shares only a ``DataLoader``."""

    def __init__(self, batches: Sequence[RequestBatch]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[RequestBatch]:
        return iter(self.batches)


class RequestDataModule(L.LightningDataModule):
    """Requests for a number of images of each class.

    Each image has its own seed, derived from ``seed``, its label and its index in the class. The batches depend only on
    these settings. The devices share the batches, and leave out those whose images are finished.

    Args:
        labels: Labels, or the name of a class list (``imagewoof``), or a folder with class folders. By default all
            labels of the model.
        images_per_class: Images of each class. With centres, there are images for each centre instead.
        seed: Seed of the run. Another seed gives other images.
        batch_size: Images that one device denoises at a time; ``auto`` for the largest power of two that fits in a
            GPU's memory. With ``auto``, a set that was begun goes on with its first batch size.
        centers: Safetensors file with cluster centres of each label, shape ``(n, C, h, w)``, as ``dgs centers`` writes.
            A guidance such as ``CenterGuidance`` guides each image towards its centre.
        images_per_center: Images for each centre. The first images of a class are the first of each centre, so that
            more of them make no other image of these.
        images: Folder of generated images, such as those that ``dgs select`` took from a pool. They are requested
            again, each by its own seed; ``labels``, ``images_per_class`` and ``seed`` have no effect then.

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> from dgs_lightning import GenerationTask
        >>> from dgs_lightning.examples import QUIET, write_dit
        >>> data = RequestDataModule(labels=["dog"], images_per_class=3, batch_size=2)
        >>> with TemporaryDirectory() as folder:
        ...     task = GenerationTask(write_dit(folder), steps=1)
        ...     images = L.Trainer(**QUIET, default_root_dir=folder).predict(task, data)
        >>> [[record.file_name for record in batch.records] for batch in data.batches()]
        [['dog/00000.png', 'dog/00001.png'], ['dog/00002.png']]
    """

    def __init__(
        self,
        labels: list[str] | str | None = None,
        images_per_class: Annotated[int, Between(1, 1_000_000)] = 10,
        seed: Annotated[int, AtLeast(0)] = 0,
        batch_size: Annotated[int | Literal["auto"], AtLeast(1)] = 64,
        centers: str | None = None,
        images_per_center: Annotated[int, Between(1, 1_000_000)] = 1,
        images: str | None = None,
    ) -> None:
        super().__init__()
        save_settings(self)
        self._batch_size = None if batch_size == "auto" else batch_size  # None until it is settled
        self.allow_zero_length_dataloader_with_multiple_devices = True
        self.centers: Mapping[str, Tensor] | None = None  # of each label, shape (n, C, h, w)
        self.again: GeneratedSet | None = None  # images that are generated again
        self._finished: Callable[[], Collection[str]] = frozenset
        self._asked: set[int] = set()  # batches that are generated even if they are finished
        self._rounds = False

    def setup(self, stage: str) -> None:
        """Read the images and centres of the settings. Centres and finished images of an earlier run are forgotten.

        Raises:
            InputError: If the centres do not fit the labels and the model, or the images cannot be generated again.
        """
        self.centers, self._finished, self._asked, self._rounds = None, frozenset, set(), False
        folder = self.hparams["images"]
        self.again = None if folder is None else GeneratedSet.read(Path(folder))
        if self.hparams["centers"] is not None:
            self.use_centers(Path(self.hparams["centers"]))

    # ---- called by callbacks -----------------------------------------------------------------------------------

    def use_centers(self, path: Path) -> None:
        """Request images for each cluster centre in a file.

        Raises:
            InputError: If the settings name another file, or the centres do not fit the labels and the model.
        """
        own = self.hparams["centers"]
        if own is not None and Path(own) != path:
            found, remedy = f"{own}, and {path} from the guidance", "Remove one of them"
            raise InputError("data.centers", found, "one file of centres", remedy)
        shape: tuple[int, int, int] = self.trainer.lightning_module.latent_shape  # type: ignore[assignment, union-attr]
        self.centers = read_centers(path, self.labels, shape)

    def leave_out(self, finished: Callable[[], Collection[str]]) -> None:
        """Leave out the batches whose images are all finished.

        Args:
            finished: Returns the file names of the finished images. It is called by :meth:`predict_dataloader`.
        """
        self._finished = finished

    def ask_for(self, number: int) -> None:
        """Generate the batch with this number even if its images are finished. All devices must call it."""
        self._asked.add(number)

    def keep_batch_size(self, size: int | None) -> None:
        """Use the batch size of an earlier run if the setting is ``auto``."""
        self._batch_size = self._batch_size or size

    def in_rounds(self) -> None:
        """Make a batch only after all earlier images of its classes, each class always on the same device.

        A guidance calls this whose images depend on the earlier images of their class. A batch then has images of one
        index, and the batch size changes nothing but the order of sums.
        """
        self._rounds = True

    # ---- requests ----------------------------------------------------------------------------------------------

    @property
    def centers_hash(self) -> str | None:
        """Hash of the centres; ``None`` if there are none."""
        return None if self.centers is None else hash_centers(self.centers)

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels to generate, in order.

        Raises:
            InputError: If the model does not know one of them.
        """
        known: tuple[str, ...] = self.trainer.lightning_module.labels  # type: ignore[assignment, union-attr]
        wanted: Sequence[str] | None = self.hparams["labels"]
        if self.again is not None:
            wanted = [record.label for record in self.again.records]
        if isinstance(wanted, str):
            wanted = labels_of(wanted)
        chosen = tuple(dict.fromkeys(known if wanted is None else wanted))
        unknown = sorted(set(chosen) - set(known))
        if unknown or not chosen:
            found = f"{len(unknown)} that the model does not know ({listed(unknown)})" if unknown else "none"
            remedy = "Correct the labels, or choose a model trained on them"
            raise InputError("labels", found, f"labels among its {len(known)} ({listed(known)})", remedy)
        try:
            for label in chosen:  # the labels of a model come from a file, and become folders
                check_label(label)
        except ValueError as error:
            raise InputError("labels of the model", error, "names of folders", "Rename the class") from None
        return chosen

    def settings(self) -> dict[str, Any]:
        """Settings that the requests depend on."""
        if self.again is not None:
            return {"images": self.again.identity, "batch_size": self.settled_batch_size()}
        settings = {name: self.hparams[name] for name in ("images_per_class", "seed")}
        if self.hparams["images_per_center"] > 1:
            settings["images_per_center"] = self.hparams["images_per_center"]
        return {"labels": list(self.labels), **settings, "batch_size": self.settled_batch_size()}

    @property
    def kind(self) -> str:
        """Whether the images are a ``pool``, of which some are selected, or a ``distilled`` set."""
        return "pool" if self.centers is None and self.again is None else "distilled"

    @property
    def provenance(self) -> list[dict[str, Any]]:
        """Name and card of the set that is generated again, if there is one."""
        again = self.again
        return [] if again is None else [{"role": "images", "folder": again.folder.name, "card": again.card}]

    def requests(self) -> list[ImageRecord]:
        """All images: the first of every class, then the second of every class, and so on; or those of a set."""
        if self.again is not None:
            return self.again.records
        each, seed = self.hparams["images_per_class"], self.hparams["seed"]
        of_center, centers = self.hparams["images_per_center"], self.centers
        counts = {label: each if centers is None else of_center * len(centers[label]) for label in self.labels}
        return [
            ImageRecord(
                image_name(label, index), label, readable_name(label), index, seed=image_seed(seed, label, index)
            )
            for index in range(max(counts.values()))
            for label, count in counts.items()
            if index < count
        ]

    def settled_batch_size(self) -> int:
        """Images of a batch, the same on all devices."""
        if self._batch_size is None:
            trainer = self.trainer
            assert trainer is not None
            largest = torch.tensor(trainer.lightning_module.largest_batch(), device=trainer.strategy.root_device)  # type: ignore[operator]
            self._batch_size = int(trainer.strategy.reduce(largest, reduce_op="min"))
        return self._batch_size

    def batches(self) -> list[RequestBatch]:
        """All requests in batches."""
        records, size = self.requests(), self.settled_batch_size()
        groups = [records[start : start + size] for start in range(0, len(records), size)]
        if self._rounds:
            part = self._part_of_class()
            groups = [list(group) for _, group in groupby(records, lambda record: (record.index, part[record.label]))]
        return [RequestBatch(number, group, self._centers_of(group)) for number, group in enumerate(groups)]

    def _part_of_class(self) -> dict[str, int]:
        """Number of the part of the classes that each class is in; the images of a part and an index are one batch."""
        return {label: position // self.settled_batch_size() for position, label in enumerate(self.labels)}

    def _centers_of(self, records: Sequence[ImageRecord]) -> Tensor | None:
        if self.centers is None:
            return None
        own = [(self.centers[record.label], record.index or 0) for record in records]
        return torch.stack([centers[index % len(centers)] for centers, index in own])

    def predict_dataloader(self) -> RequestBatches:
        """This device's share of the batches that are not finished, or that a callback asked for."""
        finished, (rank, devices) = self._finished(), place_of(self.trainer)
        waiting = [
            batch
            for batch in self.batches()
            if batch.number in self._asked or any(record.file_name not in finished for record in batch.records)
        ]
        if self._rounds:
            part = self._part_of_class()
            return RequestBatches([batch for batch in waiting if part[batch.records[0].label] % devices == rank])
        return RequestBatches(waiting[rank::devices])


def image_name(label: str, index: int) -> str:
    """Name of the file of a generated image, by its index in the class."""
    return f"{label}/{index:05d}.png"
