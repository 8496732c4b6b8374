"""What is known of a given model without loading it: where it is, its architecture, its classes."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dgs_lightning.data.classes import class_list
from dgs_lightning.experiment.plan import expand
from dgs_lightning.experiment.settings import Experiment
from dgs_lightning.models.dit.diffusers import config_of
from dgs_lightning.models.dit.network import DiTConfig
from dgs_lightning.models.estimator import IMAGENET_CLASSES, TORCHVISION_WEIGHTS
from dgs_lightning.models.registry import HUB_WEIGHTS

TRANSFORMER, AUTOENCODER = ("transformer/*",), ("*.json", "*.safetensors")  # files needed of a model on the hub
PUBLISHED = "facebook/DiT-XL-2-"  # and the size of the images


def find_model(name: str, patterns: Sequence[str]) -> Path | None:
    """File or folder of a model: the path of that name, or its copy in the local hub cache.

    Args:
        name: A path or a hub id.
        patterns: The files needed of a model on the hub.
    """
    if Path(name).exists():
        return Path(name)
    if not is_hub_id(name):
        return None
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=list(patterns), local_files_only=True))
    except LocalEntryNotFoundError:
        return None


def is_hub_id(name: str) -> bool:
    """Whether a name has the form ``OWNER/MODEL``, and its first part is no folder here."""
    return re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name) is not None and not Path(name).parent.is_dir()


def dit_config(name: str) -> DiTConfig | None:
    """Architecture of a DiT; none where no config says."""
    path = find_model(name, TRANSFORMER)
    if path is None:
        size = name.removeprefix(PUBLISHED)
        return DiTConfig.named("DiT-XL/2", input_size=int(size) // 8, num_classes=1000) if size.isdigit() else None
    own = read_json(path / "config.json")
    if "labels" in own:
        return DiTConfig(**own["config"])
    transformer = own if "num_embeds_ada_norm" in own else read_json(path / "transformer" / "config.json")
    return config_of(transformer) if transformer else None


def labels_of_dit(name: str) -> Sequence[str] | None:
    """Classes of a DiT; none where neither a config nor their number says."""
    path = find_model(name, TRANSFORMER) or Path()
    own = read_json(path / "config.json") | read_json(path / "dgs.json")
    if "labels" in own:
        return [str(label) for label in own["labels"]]
    config = dit_config(name)
    return class_list("imagenet1k") if (config.num_classes if config else _rows(path)) == IMAGENET_CLASSES else None


def _rows(path: Path) -> int | None:
    """Classes in the label table of a safetensors file, of which nothing else is read."""
    if path.suffix != ".safetensors":
        return None
    from safetensors import safe_open

    table = "y_embedder.embedding_table.weight"
    with safe_open(path, "pt") as tensors:
        return int(tensors.get_slice(table).get_shape()[0]) - 1 if table in tensors.keys() else None  # noqa: SIM118


@dataclass(frozen=True)
class EstimatorSource:
    """Where the difficulty estimator comes from.

    Args:
        source: ``torchvision``, ``timm``, or nothing for a folder of trained weights.
        network: Name of the network, or the folder.
        weights: torchvision's name of the weights.
        local: Path of local weights, if they are to be used.
    """

    source: str
    network: str
    weights: str
    local: str | None


def estimator_source(experiment: Experiment) -> EstimatorSource:
    """What the settings of the estimator mean."""
    name = experiment.estimator or ""
    in_section = expand(experiment.score).get("model", {}).get("init_args", {}).get("weights")
    weights = experiment.estimator_weights or in_section
    source, _, network = name.rpartition(":")
    if Path(name).is_dir() or source not in ("torchvision", "timm"):
        return EstimatorSource("", name, "", name)
    if weights is None or HUB_WEIGHTS.fullmatch(str(weights)):
        return EstimatorSource(source, network, weights or TORCHVISION_WEIGHTS, None)
    return EstimatorSource(source, network, "", str(weights))


def labels_of_estimator(source: EstimatorSource) -> Sequence[str] | None:
    """Classes of the estimator; none where nothing says."""
    if source.source:
        return class_list("imagenet1k")
    labels = read_json(Path(source.network) / "config.json").get("labels")
    return None if labels is None else [str(label) for label in labels]


def read_json(path: Path) -> dict[str, Any]:
    """Mapping in a JSON file; empty where there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
