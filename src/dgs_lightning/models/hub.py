"""Models that a setting names by a path or by an id of the Hugging Face hub: their place, licence and settings."""

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, TypedDict

from dgs_lightning.bounds import AtLeast, Between
from dgs_lightning.documents.files import read_json
from dgs_lightning.documents.shapes import Filled
from dgs_lightning.errors import InputError
from dgs_lightning.files import refused, stand_in

TRANSFORMER, AUTOENCODER = ("transformer/*",), ("*.json", "*.safetensors")  # the files needed of a model on the hub
WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
_LICENCES = {"facebook/DiT": "CC BY-NC 4.0: not for commercial use", "stabilityai/sd-vae": "MIT", "madebyollin/": "MIT"}
_HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")


def is_hub_id(name: str) -> bool:
    """Whether a name has the form ``OWNER/MODEL``, and no folder here is called ``OWNER``."""
    return _HUB_ID.fullmatch(name) is not None and not Path(name).parent.is_dir()


def find_model(name: str, patterns: Sequence[str]) -> Path | None:
    """File or folder of a model on this machine, without network access; none if it is not here.

    ``name`` is a path, or a hub id, which is looked up in the local cache of the hub for files of these patterns.
    """
    if Path(name).exists():
        return Path(name)
    if not is_hub_id(name):
        return None
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    with suppress(LocalEntryNotFoundError):
        return Path(snapshot_download(name, allow_patterns=list(patterns), local_files_only=True))
    return None


def download(name: str, patterns: Sequence[str], where: str) -> Path:
    """Local copy of a model on the hub, fetched if it is not in the cache. ``where`` names the setting in errors.

    Raises:
        InputError: If the name is no hub id, or the hub does not give the model.
    """
    if not _HUB_ID.fullmatch(name):
        raise InputError.missing(where, "weights", "Correct the path")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return Path(snapshot_download(name, allow_patterns=list(patterns)))
    except (OSError, HfHubHTTPError) as error:
        found = f"neither a file or folder here nor a model that the hub gives ({type(error).__name__})"
        remedy = "Correct the path, or connect once to download it, or give the folder of a copy"
        raise refused(where, error) or InputError.weights(where, found, "weights", remedy) from None


class NotFetched(InputError):
    """A model that is not on this machine. A run fetches it from its hub, if that is allowed."""

    @classmethod
    def by(cls, where: str, fetch: str, instead: str) -> "NotFetched":
        """The error of a model that the command ``fetch`` would fetch, or that could be replaced by ``instead``."""
        remedy = f"Fetch it once with {fetch}, or {instead}"
        return cls(where, "neither a path nor a model in the cache", "a local copy", remedy)


def why_missing(role: str, name: str, patterns: Sequence[str]) -> InputError | None:
    """The error of a model that cannot be loaded from this machine; ``None`` if it can. No network is used.

    ``role`` is the setting whose value is ``name``, a path or a hub id; ``patterns`` are those of :func:`find_model`.
    """
    found, where = find_model(name, patterns), f"{role} {name}"
    if found is None and is_hub_id(name):
        return NotFetched.by(where, f"'hf download {name}'", f"set {role} to the folder of a copy")
    if found is None:
        return InputError.missing(where, "a model", f"Correct the path, or set {role} to a hub id")
    if not has_weights(found):
        expected = f"a file ending in {', '.join(WEIGHT_SUFFIXES)}"
        return InputError.weights(where, f"no weights in {found}", expected, "Fetch them again")
    return next(filter(None, (stand_in(file, "weights") for file in _weight_files(found))), None)


def has_weights(path: Path) -> bool:
    """Whether a model's file or folder contains a file of weights that is not empty."""
    return any(file.stat().st_size for file in _weight_files(path))


def _weight_files(path: Path) -> Iterator[Path]:
    """The files of weights in a model's file or folder, empty ones included."""
    return (file for file in (path, *path.rglob("*")) if file.suffix in WEIGHT_SUFFIXES and file.is_file())


def licence_of(name: str) -> str | None:
    """Licence of a published model by its hub id; none for other models."""
    return next((licence for start, licence in _LICENCES.items() if name.startswith(start)), None)


class ModelConfig(TypedDict, total=False):
    """What this package reads in the config.json of a model before it is loaded. Other keys are allowed."""

    _class_name: str
    labels: list[str]
    latent_channels: Annotated[int, Between(1, 65536)]
    block_out_channels: Annotated[list[int], Filled()]
    encoder_block_out_channels: Annotated[list[int], Filled()]
    scaling_factor: float
    shift_factor: float | None
    image_size: Annotated[int, AtLeast(1)]


def read_config(folder: Path | None) -> dict[str, Any]:
    """The config.json of a model; empty if it is missing or broken. Loading the model will raise the error."""
    with suppress(InputError):
        return {**read_json(folder / "config.json", ModelConfig, "the settings of a model")} if folder else {}
    return {}
