"""The command ``dgs stitch``: a distilled set of pictures that are put together from crops (RDED)."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import Tensor

from dgs_lightning.bounds import Between
from dgs_lightning.data.cards import hash_json, read_card, versions
from dgs_lightning.data.classes import readable_name
from dgs_lightning.data.crops import places, stitch_patches
from dgs_lightning.data.folders import read_set
from dgs_lightning.data.images import encoded, load_image, picture
from dgs_lightning.data.records import ImageRecord
from dgs_lightning.data.transforms import to_bytes
from dgs_lightning.data.writing import write_set
from dgs_lightning.distil.selection import Classes, Selected, Selection, SelectionSettings
from dgs_lightning.errors import InputError
from dgs_lightning.files import write_json
from dgs_lightning.runs.layout import SELECTION


@dataclass(frozen=True, kw_only=True)
class Stitching(SelectionSettings):
    """Selects crops, and puts them together, the easiest ones at the top left.

    The rule of selection takes ``ipc`` times the patches of a picture. RDED's rule is ``easy``. With ``dgs``, the crops
    follow a target that was seen in the same view: of crops that were padded, the difficulties of all kept crops; of
    crops that were enlarged, those of the whole images. Further settings are those of
    :class:`~dgs_lightning.distil.selection.SelectionSettings`.

    Args:
        crops: Folder of the crops, which ``dgs crops`` made.
        ipc: Pictures of each class.
        quality: Quality of JPEG files, from 1 to 95; by default the pictures are PNG files.
    """

    crops: str
    ipc: Annotated[int, Between(1, 1_000_000)]
    quality: Annotated[int | None, Between(1, 95)] = None

    def run(self) -> tuple[Selected, dict[str, Any]]:
        """The selected crops, and the settings on the card of the crops.

        Raises:
            InputError: If the folder holds no crops, or too few of a class.
        """
        made = read_card(Path(self.crops)).get("settings", {})
        if not {"factor", "view", "image_size"} <= made.keys():
            raise InputError(self.crops, "no crops", "a folder that 'dgs crops' wrote", "Make the crops first")
        own = {name: value for name, value in asdict(self).items() if name not in ("crops", "ipc", "quality")}
        selection = Selection(pool=self.crops, ipc=self.ipc * made["factor"] ** 2, **own)
        pool: Classes = defaultdict(list)
        for record in read_set(Path(self.crops)):
            pool[record.label].append(record)
        target = pool
        if made["view"] == "enlarged":
            target = {label: [replace(r, difficulty=r.extra["whole"]) for r in own] for label, own in pool.items()}
        return selection.choose(dict(sorted(pool.items())), target), made


def stitch(output: str, **stitching: Any) -> Path:  # noqa: ANN401
    """Put a distilled set of pictures together from crops that ``dgs crops`` made (RDED).

    Writes the pictures in class folders with ``metadata.jsonl``, which names the source and the box of each patch, row
    by row; a card ``dataset.json``; and the report ``selection.json`` of how the crops were selected.

    Args:
        output: Folder of the set, which is returned. An earlier set there is replaced.
        stitching: Settings of :class:`Stitching`.

    Raises:
        InputError: If a setting or the crops cannot be used, or a class has too few crops.
    """
    settings = Stitching(**stitching)
    selected, made = settings.run()
    folder, factor = Path(settings.crops), made["factor"]
    ranked: dict[str, list[ImageRecord]] = defaultdict(list)
    for record in sorted(selected.records, key=lambda r: (r.difficulty, r.file_name)):
        ranked[record.label].append(record)
    ending = "png" if settings.quality is None else "jpg"
    parts = {
        f"{label}/{number:05d}.{ending}": [own[rank] for rank in ranks]
        for label, own in ranked.items()
        for number, ranks in enumerate(places(settings.ipc, factor))
    }
    records = [
        ImageRecord(
            name,
            (label := name.split("/")[0]),
            readable_name(label),
            int(name[-9:-4]),
            extra={"patches": [{key: part.extra[key] for key in ("source", "box")} for part in own]},
        )
        for name, own in parts.items()
    ]

    def stitched(record: ImageRecord) -> bytes:
        patches = [_pixels(folder / part.file_name, made["channels"]) for part in parts[record.file_name]]
        return encoded(picture(stitch_patches(patches, factor, made["image_size"])), settings.quality)

    crops = read_card(folder)
    own = {name: value for name, value in asdict(settings).items() if name not in ("crops", "features_weights")}
    target = {"padded": "the kept crops of all drawn images", "enlarged": "the whole drawn images"}[made["view"]]
    card = {
        "name": Path(output).name,
        "kind": "distilled",
        "labels": {label: readable_name(label) for label in sorted(ranked)},
        "images_per_class": Counter(record.label for record in records),
        "settings": {**own, "image_size": made["image_size"], "channels": made["channels"], "target": target},
        "versions": versions(),
        "hashes": {"selection": hash_json(selected.report)},
        "provenance": [{"role": "crops", "folder": folder.name, "card": crops}],
        "licences": crops.get("licences", []),
    }
    beside = {SELECTION: lambda place: write_json(place / SELECTION, selected.report)}
    write_set(folder, records, Path(output), card, beside, encode=stitched)
    return Path(output)


def _pixels(path: Path, channels: int) -> Tensor:
    return to_bytes(load_image(path, channels)).to(torch.uint8)


def check_combination(settings: Mapping[str, Any]) -> None:
    """Check the settings before the crops are read."""
    Stitching(**{name: value for name, value in settings.items() if name != "output"})
