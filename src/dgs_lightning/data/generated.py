"""Sets of generated images whose latents can be made again, by their seeds and the settings of their pool."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dgs_lightning.data.cards import differences, hash_json, read_card
from dgs_lightning.data.classes import readable_name
from dgs_lightning.data.folders import read_set
from dgs_lightning.data.records import ImageRecord
from dgs_lightning.errors import InputError

REFINEMENT_MEASURES = ("class_loss_before", "class_loss_after", "moved_rms")  # what is measured of each refined image
_EXPECTED = "images that 'dgs predict' generated, or that 'dgs select' took from them"


@dataclass(frozen=True)
class GeneratedSet:
    """Generated images, which may be selected from a pool.

    Args:
        folder: Folder of the set.
        records: The images without their scores, which are not those of other images with the same names.
        card: Card of the set.
        made_with: Model and precision that the images were generated with, from the card of the pool.
    """

    folder: Path
    records: list[ImageRecord]
    card: Mapping[str, Any]
    made_with: Mapping[str, Any]

    @classmethod
    def read(cls, folder: Path) -> "GeneratedSet":
        """Read a set.

        Raises:
            InputError: If an image has no seed, or no card says how the images were generated.
        """
        records, card = read_set(folder), read_card(folder)
        found = _pool(card).get("settings")
        unseeded = [record.file_name for record in records if record.seed is None]
        if unseeded or not isinstance(found, dict) or "model" not in found:
            problem = f"{len(unseeded)} without a seed" if unseeded else "no card of a pool"
            remedy = "Name such a set: latents are made again from the seed of each image and the card of its pool"
            raise InputError(folder, f"images whose latents cannot be made again ({problem})", _EXPECTED, remedy)
        named = [(r.file_name, r.label, r.class_name or readable_name(r.label), r.index) for r in records]
        seeded = [ImageRecord(*names, seed=record.seed) for names, record in zip(named, records, strict=True)]
        return cls(folder, seeded, card, {name: found.get(name) for name in ("model", "precision")})

    def check(self, settings: Mapping[str, Any]) -> None:
        """Check that the images were generated with a model and precision.

        Raises:
            InputError: If they were not. The message names what differs.
        """
        if differing := "; ".join(differences(self.made_with, settings)):
            found = f"images whose latents cannot be made again, since their pool had other settings ({differing})"
            remedy = "Give the model, precision and callbacks of the pool"
            raise InputError(self.folder, found, "images of these settings", remedy)

    @property
    def identity(self) -> str:
        """Hash of the names, labels and seeds."""
        return hash_json([[record.file_name, record.label, record.seed] for record in self.records])


def _pool(card: Mapping[str, Any]) -> Mapping[str, Any]:
    """Card of the pool that the images of a set were selected from, however often; of a pool, its own."""
    sources = [source for source in card.get("provenance", []) if isinstance(source, dict)]
    pools = [source.get("card") for source in sources if source.get("role") == "pool"]
    return _pool(pools[0]) if pools and isinstance(pools[0], dict) else card
