"""The command ``dgs select``: a distilled set from an image pool."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dgs_lightning.data.cards import hash_json, read_card, versions
from dgs_lightning.data.classes import readable_name
from dgs_lightning.data.editions import licences_of
from dgs_lightning.data.images import load_image
from dgs_lightning.data.writing import write_set
from dgs_lightning.distil.selection import Selection
from dgs_lightning.runs.layout import SELECTION

SOURCES = ("pool", "original", "pool_scores", "original_scores")


def select(output: str, **selection: Any) -> Path:  # noqa: ANN401
    """Select a distilled set from an image pool.

    Writes the selected images in class folders with ``metadata.jsonl``, a card ``dataset.json``, and the report
    ``selection.json``: for each class the histograms of Fig. 7, the target, the selected and filled images, the
    thresholds, and the distances from the target.

    Args:
        output: Folder of the distilled set, which is returned. An earlier set there is replaced.
        selection: Settings of :class:`~dgs_lightning.distil.selection.Selection`.

    Raises:
        InputError: If a setting, the pool or its scores cannot be used, or a selected image is unreadable.
    """
    settings = Selection(**selection)
    selected = settings.run()
    pool = Path(settings.pool)
    for record in selected.records:
        record.class_name = record.class_name or readable_name(record.label)
        load_image(pool / record.file_name)  # an unreadable image is an error before anything is written
    sources = {role: Path(place) for role in SOURCES if (place := getattr(settings, role)) is not None}
    labels = {record.label: record.class_name for record in selected.records}
    paths = (*SOURCES, "features_weights")
    card = {
        "name": Path(output).name,
        "kind": "distilled",
        "labels": labels,
        "settings": {name: value for name, value in asdict(settings).items() if name not in paths},
        "versions": versions(),
        "hashes": {"selection": hash_json(selected.report)},
        "provenance": [{"role": role, "folder": f.name, "card": read_card(f)} for role, f in sources.items()],
        "licences": sorted({licence for folder in sources.values() for licence in licences_of(folder, labels)}),
    }
    write_set(pool, selected.records, Path(output), card, {SELECTION: selected.report})
    return Path(output)


def check_combination(settings: Mapping[str, Any]) -> None:
    """Check the settings of the selection before a pool is read."""
    Selection(**{name: value for name, value in settings.items() if name != "output"})
