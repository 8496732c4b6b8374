"""What to generate: requests in fixed batches, shared out over the devices."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import lightning as L
import torch
from torch import Tensor

from dgs_lightning.bounds import Ranged
from dgs_lightning.data.classes import CLASS_LISTS, class_list, labels_of, readable_name
from dgs_lightning.data.records import ImageRecord, check_label
from dgs_lightning.errors import InputError
from dgs_lightning.seeding import image_seed


@dataclass
class RequestBatch:
    """Images that are generated together.

    Args:
        number: Place among the batches of the whole request list.
        records: Lines of the manifest that the images will get: label, index, seed, and where each image goes.
        centers: Cluster centre of each image, shape ``(B, C, h, w)``, if they are guided towards one.
    """

    number: int
    records: list[ImageRecord]
    centers: Tensor | None = None

    def to(self, device: torch.device) -> "RequestBatch":
        """The batch with its tensor on a device; Lightning calls this."""
        return self if self.centers is None else replace(self, centers=self.centers.to(device))


class RequestBatches:
    """Batches in order, as Lightning iterates over them; it leaves anything but a DataLoader alone."""

    def __init__(self, batches: Sequence[RequestBatch]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[RequestBatch]:
        return iter(self.batches)


class RequestDataModule(L.LightningDataModule, Ranged):
    """Requests for so many images of each class.

    Image ``i`` of a class has a seed of its own, derived from ``seed``, the label and ``i``. The batches depend on
    these settings alone: they are dealt out to the devices, and a batch that is complete on disk is left out.

    Args:
        labels: Labels, or the name of a class list (``imagewoof``), or a folder with class folders. By default all
            labels of the model.
        images_per_class: Images of each class. Under guidance towards cluster centres there are as many as centres.
        seed: Seed of the run; another one gives another pool.
        batch_size: Images denoised at a time by one device; ``auto`` for as many as fit in a GPU's memory, a power of
            two. A set that was begun goes on with the number it was begun with.
    """

    RANGES: ClassVar[Mapping[str, str]] = {
        "images_per_class": "[1, 1000000]",
        "seed": "[0, inf)",
        "batch_size": "[1, inf)",
    }

    def __init__(
        self,
        labels: list[str] | str | None = None,
        images_per_class: int = 10,
        seed: int = 0,
        batch_size: int | Literal["auto"] = 64,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.check_settings(self.hparams)
        self.batch_size = None if batch_size == "auto" else batch_size  # None until a device has tried
        self.allow_zero_length_dataloader_with_multiple_devices = True
        self.centers: Mapping[str, Tensor] | None = None
        self.finished: Callable[[], Collection[str]] = frozenset

    def setup(self, stage: str) -> None:
        """Forget the centres and the writer of an earlier run; callbacks set those of this one."""
        self.centers, self.finished = None, frozenset

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels to generate, in order.

        Raises:
            InputError: If the model does not know one of them.
        """
        known: tuple[str, ...] = self.trainer.lightning_module.labels  # type: ignore[assignment, union-attr]
        wanted: Sequence[str] | None = self.hparams["labels"]
        if isinstance(wanted, str):
            wanted = class_list(wanted) if wanted in CLASS_LISTS else labels_of(Path(wanted))
        chosen = tuple(dict.fromkeys(known if wanted is None else wanted))
        unknown = sorted(set(chosen) - set(known))
        if unknown or not chosen:
            raise InputError(
                "labels",
                found=f"{len(unknown)} that the model does not know ({', '.join(unknown[:5])})" if unknown else "none",
                expected=f"labels among its {len(known)} ({', '.join(known[:5])}, ...)",
                remedy="Correct the labels, or choose a model trained on them",
            )
        for label in chosen:  # a model's labels come from a file, and become folders
            try:
                check_label(label)
            except ValueError as error:
                raise InputError(
                    "labels of the model", found=str(error), expected="names of folders", remedy="Rename the class"
                ) from None
        return chosen

    def settings(self) -> dict[str, Any]:
        """What the request list depends on."""
        return {
            "labels": list(self.labels),
            "images_per_class": self.hparams["images_per_class"],
            "seed": self.hparams["seed"],
            "batch_size": self.settled_batch_size(),
        }

    def requests(self) -> list[ImageRecord]:
        """All images: the first of every class, then the second of every class, and so on."""
        labels, each, seed = self.labels, self.hparams["images_per_class"], self.hparams["seed"]
        counts = {label: each if self.centers is None else len(self.centers[label]) for label in labels}
        return [
            ImageRecord(
                file_name=f"{label}/{index:05d}.png",
                label=label,
                class_name=readable_name(label),
                index=index,
                seed=image_seed(seed, label, index),
            )
            for index in range(max(counts.values()))
            for label in labels
            if index < counts[label]
        ]

    def settled_batch_size(self) -> int:
        """Images of a batch, the same on all devices."""
        if self.batch_size is None:
            trainer = self.trainer
            assert trainer is not None
            largest = torch.tensor(trainer.lightning_module.largest_batch(), device=trainer.strategy.root_device)  # type: ignore[operator]
            self.batch_size = int(trainer.strategy.reduce(largest, reduce_op="min"))
        return self.batch_size

    def batches(self) -> list[RequestBatch]:
        """The request list, cut into batches."""
        records, size = self.requests(), self.settled_batch_size()
        groups = [records[start : start + size] for start in range(0, len(records), size)]
        return [RequestBatch(number, group, self._centers_of(group)) for number, group in enumerate(groups)]

    def _centers_of(self, records: Sequence[ImageRecord]) -> Tensor | None:
        if self.centers is None:
            return None
        return torch.stack([self.centers[record.label][record.index or 0] for record in records])

    def predict_dataloader(self) -> RequestBatches:
        """This device's share of the batches that are not finished."""
        finished, trainer = self.finished(), self.trainer
        waiting = [batch for batch in self.batches() if any(r.file_name not in finished for r in batch.records)]
        share = waiting[trainer.global_rank :: trainer.world_size] if trainer else waiting
        return RequestBatches(share)


def request_datamodule(datamodule: object, user: str) -> RequestDataModule:
    """The datamodule as the one that a callback named ``user`` works with.

    Raises:
        InputError: If it is another one.
    """
    if not isinstance(datamodule, RequestDataModule):
        raise InputError(
            user,
            found=type(datamodule).__name__,
            expected="RequestDataModule",
            remedy="Set data to RequestDataModule",
        )
    return datamodule
