"""The command ``dgs select``: a distilled set from an image pool."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dgs_lightning.data.cards import hash_json, read_card, versions
from dgs_lightning.data.classes import readable_name
from dgs_lightning.data.editions import licences_of
from dgs_lightning.data.histograms import EVENTS, write_histograms
from dgs_lightning.data.images import load_image
from dgs_lightning.data.writing import write_set
from dgs_lightning.distil.selection import BY_ANSWER, Selection
from dgs_lightning.files import write_json
from dgs_lightning.runs.layout import SELECTION

SOURCES = ("pool", "original", "pool_scores", "original_scores")


def select(output: str, **selection: Any) -> Path:  # noqa: ANN401
    """Select a distilled set from an image pool.

    Writes the selected images in class folders with ``metadata.jsonl``, a card ``dataset.json``, and the report
    ``selection.json``: for each class the histograms of Fig. 7, the target, the selected and filled images, the
    thresholds, and the distances from the target and from the originals. The card has the number of images of each
    class. For a method that compares features, the card and the report say in words what they are.
    TensorBoard shows the difficulties of originals, pool and set.

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
    omitted = [*SOURCES, "links", "features", "features_weights"]  # paths; the report says what the features are
    omitted += ["fill"] * (settings.method not in BY_ANSWER)
    features = {name: selected.report[name] for name in ("features",) if name in selected.report}
    card = {
        "name": Path(output).name,
        "kind": "distilled",
        "labels": labels,
        "images_per_class": Counter(record.label for record in selected.records),
        "settings": {name: value for name, value in asdict(settings).items() if name not in omitted} | features,
        "versions": versions(),
        "hashes": {"selection": hash_json(selected.report)},
        "provenance": [{"role": role, "folder": f.name, "card": read_card(f)} for role, f in sources.items()],
        "licences": sorted({licence for folder in sources.values() for licence in licences_of(folder, labels)}),
    }
    groups = {f"difficulty/{part}": scores for part, scores in selected.difficulties.items()}
    write_set(
        pool,
        selected.records,
        Path(output),
        card,
        {
            SELECTION: lambda folder: write_json(folder / SELECTION, selected.report),
            EVENTS: lambda folder: write_histograms(folder, groups),
        },
    )
    return Path(output)


def check_combination(settings: Mapping[str, Any]) -> None:
    """Check the settings of the selection before a pool is read."""
    Selection(**{name: value for name, value in settings.items() if name != "output"})
