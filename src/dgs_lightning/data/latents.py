"""The latent cache: latents of an image set, in memory-mapped shards. A hash ties them to images and settings."""

import math
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, NotRequired, TypedDict, cast

import torch
from safetensors import safe_open
from torch import Tensor

from dgs_lightning.bounds import Between
from dgs_lightning.data.cards import LATENTS_CARD, hash_files, hash_json
from dgs_lightning.data.folders import read_set
from dgs_lightning.data.records import ImageRecord, read_manifest, write_manifest
from dgs_lightning.documents.files import read_json
from dgs_lightning.errors import InputError
from dgs_lightning.files import reading, write_json, write_tensors

CARD = LATENTS_CARD
FORMAT: Literal["dgs-lightning/latents"] = "dgs-lightning/latents"
Side = Annotated[int, Between(1, 65536)]
_REMEDY = "Delete it, and encode the images again"


class Posterior(NamedTuple):
    """Gaussian distribution of the latents of each image."""

    mean: Tensor  # scaled latents, shape (B, C, h, w)
    logvar: Tensor | None = None  # their log variances; none if the encoder is deterministic

    def sample(self, noise: Tensor) -> Tensor:
        """Latents at standard normal ``noise``; the mean if there are no variances."""
        return self.mean if self.logvar is None else self.mean + (self.logvar / 2).exp() * noise


@dataclass(frozen=True)
class Inversion:
    """How latents were moved to a denoising step by DDIM inversion."""

    dit: str  # hash of the DiT
    steps: Annotated[int, Between(1, 1000)]  # number of denoising steps
    index: Annotated[int, Between(0, 999)]  # of the step, from steps - 1 (most noise) down to 0
    guidance_scale: float
    guided_channels: int


@dataclass(frozen=True)
class CacheSettings:
    """The settings that the latents of a cache depend on."""

    codec: str  # identity of the codec
    transform: str  # description of the transform from file to image
    shape: tuple[Side, Side, Side]  # (C, h, w) of a latent
    posterior: bool  # whether log variances are kept beside the means
    flips: Annotated[int, Between(1, 2)]  # orientations of each image: 2 with the horizontally flipped one
    dtype: Literal["float16", "float32"]
    inversion: Inversion | None = None  # None: the latents are clean

    def plain(self) -> dict[str, Any]:
        """The settings as a card holds them."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def key(self, images: str) -> str:
        """Key of the cache: a hash of these settings and of the hash of the images."""
        return hash_json({**self.plain(), "images": images})

    def bytes_for(self, images: int) -> int:
        """Size in bytes of a cache of this number of images."""
        element: int = getattr(torch, self.dtype).itemsize
        return images * self.flips * (1 + self.posterior) * math.prod(self.shape) * element


class LatentCard(TypedDict):
    """The card of a latent cache. Other keys are allowed."""

    format: Literal["dgs-lightning/latents"]
    key: str
    images: str
    settings: CacheSettings
    licences: NotRequired[list[str]]


class Keyed(TypedDict, total=False):
    """What tells the latents of a cache from others. Other keys are allowed."""

    key: str


def check_space(folder: Path, size: int) -> None:
    """Raise an InputError if ``size`` bytes do not fit on the disk of a folder."""
    free = shutil.disk_usage(folder).free
    if size > free:
        remedy = "Free space, choose another folder, or make it smaller with flips: false"
        raise InputError(folder, f"{free / 1e9:.1f} GB free", f"{size / 1e9:.1f} GB for the latent cache", remedy)


def write_shard(folder: Path, key: str, images: Tensor, means: Tensor, logvars: Tensor | None) -> Path:
    """Write the latents of some images to a cache with this key, whole or not at all.

    ``images`` are the positions of the images in the manifest, shape ``(n,)``. ``means`` are their latents, shape
    ``(n, flips, C, h, w)``, and ``logvars`` the log variances of these, if the codec has them. Returns the file.
    """
    tensors = {"images": images, "means": means} | ({} if logvars is None else {"logvars": logvars})
    path = folder / f"{int(images[0]):08d}.safetensors"
    write_tensors(path, tensors, {"key": key})
    return path


def shard_paths(folder: Path) -> list[Path]:
    """The shards in a folder, also in that of an unfinished cache."""
    return sorted(folder.glob("[0-9]*.safetensors"))


def read_shard(path: Path, key: str, count: int) -> dict[str, Tensor]:
    """Tensors of a shard. They are mapped into memory, that is, read from the disk when they are used.

    Args:
        path: The shard.
        key: Key of its cache.
        count: Number of images of its cache.

    Raises:
        InputError: If the shard is broken, has another key, or has latents of images that the cache does not have.
    """
    with reading(path, "latents", _REMEDY), safe_open(path, "pt") as shard:
        found = (shard.metadata() or {}).get("key")
        tensors = {name: shard.get_tensor(name) for name in shard.keys()}  # noqa: SIM118  (no mapping)
        if not {"images", "means"} <= tensors.keys() or tensors["images"].ndim != 1:
            raise ValueError("no latents in it")
        images = tensors["images"]
        if images.dtype != torch.long or bool(((images < 0) | (images >= count)).any()):
            raise ValueError(f"positions of images outside 0 to {count - 1}")
    if found != key:
        raise other_latents(path, path.parent)
    return tensors


def other_latents(path: Path, folder: Path) -> InputError:
    """The error of latents with another key, in a shard or on the card of a cache."""
    found = "latents of other images, or made with another codec or transform"
    remedy = f"Delete {folder}, or choose another output"
    return InputError.occupied(path, found, "latents of the same images and settings", remedy)


def encoded_images(folder: Path, key: str, count: int) -> Tensor:
    """Positions of the images whose latents are on disk, shape ``(n,)``. Raises as :func:`read_shard` does."""
    nothing = torch.empty(0, dtype=torch.long)
    return torch.cat([nothing, *(read_shard(path, key, count)["images"] for path in shard_paths(folder))])


def finish_cache(
    folder: Path, settings: CacheSettings, records: Sequence[ImageRecord], images: str, licences: Sequence[str] = ()
) -> None:
    """Complete a folder of shards to a cache: write the manifest and, last, the card.

    ``records`` are the images, sorted by file name: the shards refer to them by their position. ``images`` is the hash
    of the images, and ``licences`` are their terms.

    Raises:
        InputError: If latents are missing.
    """
    key = settings.key(images)
    missing = len(records) - len(set(encoded_images(folder, key, len(records)).tolist()))
    if missing:
        raise _missing(folder, missing, len(records))
    write_manifest(folder, records, durable=True)
    card = {"format": FORMAT, "key": key, "images": images, "settings": settings.plain(), "licences": list(licences)}
    write_json(folder / CARD, card, durable=True)


def _missing(folder: Path, missing: int, images: int) -> InputError:
    remedy = "Run the command that encodes them again; it goes on where it stopped"
    return InputError(folder, f"{missing} of {images} images without latents", "latents of all", remedy)


class LatentCache:
    """Latents of an image set, which are read from the disk when they are needed.

    Args:
        folder: Folder that ``dgs predict`` wrote with ``EncodingTask``.

    Attributes:
        records: The images, in the order of their positions.
        labels: The classes, sorted.
        classes: Position in ``labels`` of each image, shape ``(N,)``.
        settings: The settings that the latents were made with.
        licences: Terms of the images.
        key: Hash of the images and settings.

    Raises:
        InputError: If the folder is not a finished cache.
    """

    def __init__(self, folder: Path) -> None:
        if not (folder / CARD).exists():
            remedy = "Make it with 'dgs predict --config minimax/encode.yaml'"
            raise InputError(folder, "no finished latent cache", f"a folder with {CARD}", remedy)
        card = read_json(folder / CARD, LatentCard, "a latent cache's card", _REMEDY)
        settings = cast(dict[str, Any], card["settings"])  # a mapping in the file
        inversion = Inversion(**settings["inversion"]) if settings.get("inversion") else None
        self.settings = CacheSettings(**settings | {"shape": tuple(settings["shape"]), "inversion": inversion})
        self.licences = tuple(card.get("licences", ()))
        self.folder = folder
        self.key, self._images = card["key"], card["images"]
        self.records = read_manifest(folder)
        self.labels = tuple(sorted({record.label for record in self.records}))
        position = {label: index for index, label in enumerate(self.labels)}
        self.classes = torch.tensor([position[record.label] for record in self.records])
        self._tensors = ["means", "logvars"] if self.settings.posterior else ["means"]
        self._shards = [self._shard(path) for path in shard_paths(folder)]
        self._shard_of = torch.full((len(self.records),), -1)
        self._row_of = torch.zeros(len(self.records), dtype=torch.long)
        for number, shard in enumerate(self._shards):
            self._shard_of[shard["images"]] = number
            self._row_of[shard["images"]] = torch.arange(len(shard["images"]))
        if missing := int((self._shard_of < 0).sum()):
            raise _missing(folder, missing, len(self.records))

    def _shard(self, path: Path) -> dict[str, Tensor]:
        """Read a shard and check that its latents have this cache's shape."""
        shard = read_shard(path, self.key, len(self.records))
        shape = (len(shard["images"]), self.settings.flips, *self.settings.shape)
        if any(name not in shard or shard[name].shape != shape for name in self._tensors):
            raise InputError(path, "latents of another shape", f"shape {shape}", _REMEDY)
        return shard

    def __len__(self) -> int:
        return len(self.records)

    def read(self, images: Tensor, flipped: Tensor | None = None) -> Posterior:
        """Posteriors, in float32, of the images at positions ``(B,)``.

        ``flipped`` says which of them to read flipped, booleans of shape ``(B,)``; by default, none.
        """
        orientation = torch.zeros_like(images) if flipped is None else flipped.long()
        read = [torch.empty(len(images), *self.settings.shape) for _ in self._tensors]
        shard_of, row_of = self._shard_of[images], self._row_of[images]
        for number in set(shard_of.tolist()):
            here = shard_of == number
            for name, tensor in zip(self._tensors, read, strict=True):
                tensor[here] = self._shards[number][name][row_of[here], orientation[here]].float()
        return Posterior(*read)

    def check_images(self, folder: Path) -> None:
        """Raise an InputError if images of a folder were changed, added or removed since they were encoded."""
        if hash_files(folder, read_set(folder, links="follow")) != self._images:  # nothing else is read from them
            found = f"latents of other images than {folder} has now"
            raise InputError(self.folder, found, "latents of the same images", "Encode the images again")


def latent_name(image: str) -> str:
    """Name of the file of a generated image's latent, beside the image."""
    return str(Path(image).with_suffix(".safetensors"))


def write_latent(path: Path, latent: Tensor) -> None:
    """Write the latent of a generated image, shape ``(C, h, w)``, whole or not at all."""
    write_tensors(path, {"latent": latent})


def read_latent(path: Path, shape: tuple[int, ...]) -> Tensor:
    """The latent of a generated image.

    Raises:
        InputError: If there is none of this shape in the file.
    """
    expected, remedy = f"the latent of an image, of shape {shape}", "Delete it, and run the command again"
    with reading(path, expected, remedy), safe_open(path, "pt") as file:
        latent: Tensor = file.get_tensor("latent")
    if latent.shape != shape:
        raise InputError(path, f"a latent of shape {tuple(latent.shape)}", expected, remedy)
    return latent
