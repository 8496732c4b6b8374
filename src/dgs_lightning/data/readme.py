"""The README.md of an image set: its card for people, which also makes the folder a data set of the Hugging Face hub.

Its header says where the images are and which columns they have, as the library ``datasets`` reads it. The text below
says how the set was made, under which terms, and how to load and cite it. All of it comes from ``dataset.json`` and
``metadata.jsonl``.
"""

import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from dgs_lightning.data.classes import in_natural_order, with_name
from dgs_lightning.data.records import MANIFEST, ImageRecord, manifest_line
from dgs_lightning.documents.texts import yaml_text
from dgs_lightning.errors import counted
from dgs_lightning.files import write_text

README = "README.md"
DISTILLED = "distilled"  # kind of the sets that have one
IMAGE, LABEL = "image", "label"  # columns
CITATION = """\
@misc{li_difficulty_guided_sampling,
  title  = {Difficulty-guided Sampling: Bridging the Target Gap between Dataset Distillation and Downstream Tasks},
  author = {Li, Mingzhuo and Li, Guang and Ye, Linfeng and Mao, Jiafeng and Ogawa, Takahiro and
            Plataniotis, Konstantinos N. and Haseyama, Miki}
}"""
_LOAD_FOLDER = """\
from datasets import load_dataset

images = load_dataset("FOLDER", split="train")  # or USER/NAME of the hub
# torchvision.datasets.ImageFolder("FOLDER") reads the folder as well"""
_LICENCES = {"MIT": "mit", "CC BY 4.0": "cc-by-4.0"}  # of this package -> names that the hub knows
_TYPES = {str: "string", bool: "bool", int: "int64", float: "float64"}
Feature = dict[str, Any]


def write_readme(folder: Path, card: Mapping[str, Any], records: Sequence[ImageRecord], results: str = "") -> None:
    """Write the README.md of a set atomically; for the arguments see :func:`readme`."""
    write_text(folder / README, readme(card, records, results=results))


@dataclass(frozen=True)
class Use:
    """How a set is loaded.

    Args:
        files: Patterns of the files that the library ``datasets`` reads; none where it reads no file.
        code: Lines of Python.
    """

    files: Sequence[str]
    code: str


def readme(card: Mapping[str, Any], records: Sequence[ImageRecord], use: Use | None = None, results: str = "") -> str:
    """Text of the README.md of an image set.

    Args:
        card: The set's card.
        records: Its images.
        use: How it is loaded; by default as class folders with a manifest.
        results: Section with accuracies, in Markdown.
    """
    endings = sorted({PurePosixPath(record.file_name).suffix for record in records})
    use = use or Use([MANIFEST, *(f"**/*{ending}" for ending in endings)], _LOAD_FOLDER)
    header: dict[str, Any] = {
        "license": licence_id(card.get("licences", [])),
        "task_categories": ["image-classification"],
        "tags": ["dataset-distillation", "dgs-lightning"],
    }
    if use.files:
        data = {"split": "train", "path": list(use.files)}
        shown = features(records)  # in both places, as ``datasets`` takes the labels of a manifest as texts otherwise
        header["configs"] = [{"config_name": "default", "data_files": [data], "features": shown}]
        header["dataset_info"] = {"features": shown}
    settings = json.loads(json.dumps(card.get("settings", {}), sort_keys=True))  # in the order of dataset.json
    counts = Counter(record.label for record in records)
    each = sorted(set(counts.values()))
    number = f"{each[0]:,}" if len(each) == 1 else f"{each[0]:,} to {each[-1]:,}"
    name = card.get("name", "images")
    parts = [
        f"# {name}",
        f"A distilled data set: {counted(len(records), 'image')} of {counted(len(counts), 'class')}, {number} of each.",
        f"Classes: {', '.join(with_name(label) for label in in_natural_order(counts))}.",
        *([results] if results else []),
        "## How it was made",
        "\n".join(_made_from(card)),
        f"`dgs-lightning` {card.get('versions', {}).get('dgs-lightning', '')} made it. `dataset.json` has the versions "
        "of the libraries, the hashes, and the settings of each step.",
        f"Settings of the last step:\n\n```yaml\n{yaml_text(settings)}```",
        "## Licence",
        "The terms of what the images were made from:\n\n"
        + "\n".join(f"- {licence}" for licence in card.get("licences", []) or ["not known"]),
        "## How to load it",
        f"```python\n{use.code}\n```",
        "## Citation",
        f"```bibtex\n{CITATION}\n```",
        "Please cite the paper of the method, too, if it is another one.",
    ]
    return f"---\n{yaml_text(header)}---\n\n" + "\n\n".join(parts) + "\n"


def features(records: Sequence[ImageRecord]) -> list[Feature]:
    """The columns of a set as the library ``datasets`` writes them in YAML: the image, and the keys of the manifest.

    ``label`` is a ``ClassLabel`` whose names are the labels in sorted order.
    """
    columns: dict[str, list[Any]] = {}
    for record in sorted(records, key=lambda record: record.file_name):
        for name, value in json.loads(manifest_line(record)).items():
            columns.setdefault(name, []).append(value)
    found: list[Feature] = [{"name": IMAGE, "dtype": "image"}]
    for name, values in columns.items():
        if name == LABEL:
            names = {str(place): label for place, label in enumerate(sorted(set(values)))}
            found.append({"name": LABEL, "dtype": {"class_label": {"names": names}}})
        elif name != "file_name":
            found.append({"name": name, **_type_of(values)})
    return found


def _type_of(values: Collection[Any]) -> Feature:
    """The type of a column with these values."""
    there = [value for value in values if value is not None]
    kinds = {type(value) for value in there}
    if kinds == {list}:
        inner = _type_of([part for value in there for part in value])
        return {"list": inner["dtype"] if "dtype" in inner else inner.get("struct", inner)}
    if kinds == {dict}:
        names = dict.fromkeys(name for value in there for name in value)
        return {"struct": [{"name": name, **_type_of([value.get(name) for value in there])} for name in names]}
    if kinds == {int, float}:
        return {"dtype": "float64"}
    if kinds == {int} and max(there) >= 2**63:
        return {"dtype": "uint64"}
    return {"dtype": _TYPES.get(kinds.pop(), "string") if len(kinds) == 1 else "string" if kinds else "null"}


def _made_from(card: Mapping[str, Any], role: str = "", depth: int = 0) -> Iterator[str]:
    """The steps that led to a set, each with what it started from, as a nested list."""
    kind, settings = card.get("kind", "images"), card.get("settings", {})
    how = kind if kind != DISTILLED else "distilled set"
    if (rule := settings.get("method")) is not None:
        how += f", selected by the rule `{rule}` of `dgs select`"
    elif (task := settings.get("task")) is not None:
        how += f", learned by `{task['class']}`"
    yield f"{'  ' * depth}- {f'{role}: ' if role else ''}**{card.get('name', 'not named')}**, {how}"
    for source in card.get("provenance", []):
        if isinstance(source, str):
            yield f"{'  ' * (depth + 1)}- {source}"
        elif isinstance(source, dict):
            below = {"name": source.get("folder", source.get("name", "not named")), **source.get("card", {})}
            yield from _made_from(below, str(source.get("role", "")).replace("_", " "), depth + 1)


def licence_id(licences: Sequence[str]) -> str:
    """Name of the licence as the hub knows it, or ``other``."""
    return _LICENCES.get(licences[0], "other") if len(set(licences)) == 1 else "other"
