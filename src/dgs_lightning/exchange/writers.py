"""Image sets in the forms in which others load them: parquet, the tar files of WebDataset, tensors of torch and NumPy.

The file has the card of the set inside, so that licences and provenance travel with it. Beside it lie the same card
as ``dataset.json`` and a README.md. Class ``i`` is the ``i``-th label in sorted order.
"""

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from tarfile import TarInfo
from typing import Any, Literal

import numpy as np
import torch
import yaml
from torch import Tensor

from dgs_lightning.data.cards import CARD, read_card, write_card
from dgs_lightning.data.folders import read_set
from dgs_lightning.data.images import channels_of, load_image
from dgs_lightning.data.readme import IMAGE, README, Use, readme
from dgs_lightning.data.records import ImageRecord, manifest_line
from dgs_lightning.data.transforms import to_bytes
from dgs_lightning.errors import InputError
from dgs_lightning.exchange.archives import CARD_KEY as ARCHIVE_CARD_KEY
from dgs_lightning.exchange.tables import CARD_KEY
from dgs_lightning.files import replacing, write_text

Form = Literal["parquet", "webdataset", "pt", "npz"]


@dataclass(frozen=True)
class Contents:
    """What is written of an image set.

    Args:
        folder: Its folder.
        card: Its card.
        records: Its images, sorted by file name.
        labels: Labels in sorted order.
    """

    folder: Path
    card: Mapping[str, Any]
    records: Sequence[ImageRecord]
    labels: Sequence[str]

    @classmethod
    def read(cls, folder: Path) -> "Contents":
        """The set in a folder that has a card.

        Raises:
            InputError: If it is broken.
        """
        records = read_set(folder)
        return cls(folder, read_card(folder), records, sorted({record.label for record in records}))

    def bytes_of(self, record: ImageRecord) -> bytes:
        """The file of an image, as it is."""
        return (self.folder / record.file_name).read_bytes()

    def class_numbers(self) -> list[int]:
        """The number of each image's class."""
        number = {label: place for place, label in enumerate(self.labels)}
        return [number[record.label] for record in self.records]

    def pixels(self) -> Tensor:
        """All images as uint8, shape ``(N, C, H, W)``; one channel if none has colour.

        Raises:
            InputError: If they have several sizes.
        """
        images = [load_image(self.folder / record.file_name) for record in self.records]
        if len(sizes := sorted({image.size for image in images})) > 1:
            found = (
                f"images of several sizes ({' x '.join(map(str, sizes[0]))}, {' x '.join(map(str, sizes[-1]))}, ...)"
            )
            remedy = "Write it --to parquet or --to webdataset, which keep the files as they are"
            raise InputError(self.folder, found, "images of one size", remedy)
        return torch.stack([to_bytes(image) for image in images])[:, : channels_of(images)]

    def card_text(self) -> str:
        """The card as JSON."""
        return json.dumps(self.card, sort_keys=True, ensure_ascii=False)


def write_form(source: Path, output: Path, form: Form) -> Path:
    """Write an image set in another form into a folder that is new or empty.

    Args:
        source: Folder of the set.
        output: Folder to write. It gets the file ``set.parquet``, ``set.tar``, ``set.pt`` or ``set.npz``.
        form: The form.

    Returns:
        The file.

    Raises:
        InputError: If the set is broken or cannot have this form, a package is missing, or the folder has files.
    """
    ending, packages, write, how = FORMS[form]
    for package in packages:
        if find_spec(package) is None:
            raise InputError.not_installed(package, f"--to {form}")
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise InputError.occupied(output, "files", "a folder that is new or empty")
    images, file = Contents.read(source), output / f"set.{ending}"
    with replacing(file) as partial:
        write(images, partial)
    use = Use([file.name] if form == "parquet" else [], how)
    write_text(output / README, readme(images.card, images.records, use))
    write_card(output, images.card)
    return file


def _parquet(images: Contents, path: Path) -> None:
    """One row an image, with the columns of the manifest; types are those that ``datasets`` writes."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from datasets.info import DatasetInfosDict
    from huggingface_hub import DatasetCardData

    header = yaml.safe_load(readme(images.card, images.records).split("---\n")[1])
    columns = DatasetInfosDict.from_dataset_card_data(DatasetCardData(**header))["default"].features
    rows = []
    for record in images.records:
        row = json.loads(manifest_line(record))
        row[IMAGE] = {"bytes": images.bytes_of(record), "path": row.pop("file_name")}
        rows.append(columns.encode_example({name: row.get(name) for name in columns}))
    schema = columns.arrow_schema
    notes = {**schema.metadata, CARD_KEY: images.card_text().encode()}
    pq.write_table(pa.Table.from_pylist(rows, schema.with_metadata(notes)), path)


def _webdataset(images: Contents, path: Path) -> None:
    """Of each image: its file, its class number ``.cls``, and its line of the manifest as ``.json``."""
    from webdataset import TarWriter

    with path.open("wb") as file, TarWriter(file, user="", group="", mtime=0) as archive:
        file.write(TarInfo.create_pax_global_header({ARCHIVE_CARD_KEY: images.card_text()}))
        for place, (record, number) in enumerate(zip(images.records, images.class_numbers(), strict=True)):
            ending = PurePosixPath(record.file_name).suffix.lower().removeprefix(".")
            note = {"cls": str(number), "json": manifest_line(record).encode()}
            archive.write({"__key__": f"{place:06d}", ending: images.bytes_of(record), **note})


def _tensors(images: Contents, path: Path) -> None:
    """Images as float32 in [0, 1], ``(N, C, H, W)``, and class numbers ``(N,)``: what DD-Ranking takes."""
    parts = {"images": images.pixels().float() / 255, "labels": torch.tensor(images.class_numbers())}
    torch.save({**parts, "classes": list(images.labels), "card": images.card_text()}, path)


def _arrays(images: Contents, path: Path) -> None:
    """Images as uint8, ``(N, H, W, C)``, and class numbers ``(N,)``."""
    content = io.BytesIO()  # since NumPy adds an ending to the names of files
    np.savez_compressed(
        content,
        images=images.pixels().permute(0, 2, 3, 1).numpy(),
        labels=np.array(images.class_numbers(), np.int64),
        classes=np.array(images.labels),
        card=np.array(images.card_text()),
    )
    path.write_bytes(content.getvalue())


_LOAD_PARQUET = 'from datasets import load_dataset\n\nimages = load_dataset("FOLDER", split="train")'
_LOAD_TAR = 'from webdataset import WebDataset\n\nimages = WebDataset("set.tar", shardshuffle=False).decode("pil")'
_LOAD_PT = """\
import torch

content = torch.load("set.pt")  # images: float32 in [0, 1], not normalised, (N, C, H, W); labels: (N,); classes: names
# DD-Ranking: metric.compute_metrics(image_tensor=content["images"], hard_labels=content["labels"])"""
_LOAD_NPZ = """\
import numpy as np

content = np.load("set.npz")  # images: uint8, (N, H, W, C); labels: (N,); classes: names"""
# Of each form: ending of the file, packages that it needs, its writer, and how it is loaded.
FORMS: Mapping[Form, tuple[str, Sequence[str], Callable[[Contents, Path], None], str]] = {
    "parquet": ("parquet", ("datasets", "pyarrow"), _parquet, _LOAD_PARQUET),
    "webdataset": ("tar", ("webdataset",), _webdataset, _LOAD_TAR),
    "pt": ("pt", (), _tensors, _LOAD_PT),
    "npz": ("npz", (), _arrays, _LOAD_NPZ),
}


def is_image_set(folder: Path) -> bool:
    """Whether a folder has the card of an image set."""
    return (folder / CARD).is_file()
