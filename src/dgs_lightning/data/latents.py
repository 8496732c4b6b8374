"""The latent cache: latents of an image set, in memory-mapped shards. A hash ties them to images and settings."""

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from dgs_lightning.data.cards import hash_files, hash_json
from dgs_lightning.data.folders import read_set
from dgs_lightning.data.records import ImageRecord, read_manifest, write_manifest
from dgs_lightning.errors import InputError
from dgs_lightning.files import read_json, write_json, write_tensors

CARD = "latents.json"
FORMAT = "dgs-lightning/latents"
_ITS_CARD = ("a latent cache's card", "Encode the images again")  # expected and remedy of an error


class Posterior(NamedTuple):
    """Gaussian distribution of the latents of each image.

    Attributes:
        mean: Scaled latents, shape ``(B, C, h, w)``.
        logvar: Their log variances, or none where the encoder is deterministic.
    """

    mean: Tensor
    logvar: Tensor | None

    def sample(self, noise: Tensor) -> Tensor:
        """Latents at standard normal ``noise``; the mean where there is no variance."""
        return self.mean if self.logvar is None else self.mean + (self.logvar / 2).exp() * noise


@dataclass(frozen=True)
class CacheSettings:
    """The settings that the latents of a cache depend on.

    Args:
        codec: Identity of the codec.
        transform: Description of the transform from file to image.
        shape: Shape ``(C, h, w)`` of a latent.
        posterior: Whether log variances are kept beside the means.
        flips: Orientations of each image: 1, or 2 with the horizontally flipped one.
        dtype: ``float16`` or ``float32``.
    """

    codec: str
    transform: str
    shape: tuple[int, int, int]
    posterior: bool
    flips: int
    dtype: str

    def key(self, images: str) -> str:
        """Key of the cache: the hash of these settings and of the hash of the images."""
        return hash_json({**asdict(self), "images": images})

    def bytes_for(self, images: int) -> int:
        """Size in bytes of the cache of so many images."""
        element = 2 if self.dtype == "float16" else 4
        values = self.shape[0] * self.shape[1] * self.shape[2]
        return images * self.flips * (2 if self.posterior else 1) * values * element


def check_space(folder: Path, size: int) -> None:
    """Check that so many bytes fit on the disk of a folder.

    Raises:
        InputError: If they do not fit.
    """
    free = shutil.disk_usage(folder).free
    if size > free:
        expected = f"{size / 1e9:.1f} GB for the latent cache"
        remedy = "Free space, choose another folder, or make it smaller with flips: false"
        raise InputError(folder, f"{free / 1e9:.1f} GB free", expected, remedy)


# ---- writing -----------------------------------------------------------------------------------------------------


def write_shard(folder: Path, key: str, images: Tensor, means: Tensor, logvars: Tensor | None) -> None:
    """Write the latents of some images, whole or not at all.

    Args:
        folder: The cache.
        key: Its key.
        images: Positions of the images in the cache's manifest, shape ``(n,)``.
        means: Their latents, shape ``(n, flips, C, h, w)``.
        logvars: Their log variances, if the codec has them.
    """
    tensors = {"images": images, "means": means} | ({} if logvars is None else {"logvars": logvars})
    write_tensors(folder / f"{int(images[0]):08d}.safetensors", tensors, {"key": key})


def shard_paths(folder: Path) -> list[Path]:
    """The shards of a cache, finished or not."""
    return sorted(folder.glob("[0-9]*.safetensors"))


def read_shard(path: Path, key: str) -> dict[str, Tensor]:
    """Tensors of a shard, mapped into memory: they are read from the disk when they are used.

    Raises:
        InputError: If the shard is broken, or has another key.
    """
    try:
        with safe_open(path, "pt") as shard:
            found = (shard.metadata() or {}).get("key")
            tensors = {name: shard.get_tensor(name) for name in shard.keys()}  # noqa: SIM118  (no mapping)
        if not {"images", "means"} <= tensors.keys() or tensors["images"].ndim != 1:
            raise ValueError("no latents in it")
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError.broken(path, error, "latents", "Delete it and encode the images again") from None
    if found != key:
        found = "latents of other images, or made with another codec or transform"
        remedy = f"Delete {path.parent}, or choose another output"
        raise InputError.occupied(path, found, "latents of the same images and settings", remedy)
    return tensors


def encoded_images(folder: Path, key: str) -> Tensor:
    """Positions of the images whose latents are on disk, shape ``(n,)``.

    Raises:
        InputError: If the folder holds latents with another key, or a broken shard.
    """
    nothing = torch.empty(0, dtype=torch.long)
    return torch.cat([nothing, *(read_shard(path, key)["images"] for path in shard_paths(folder))])


def finish_cache(
    folder: Path, settings: CacheSettings, records: Sequence[ImageRecord], images: str, licences: Sequence[str] = ()
) -> None:
    """Complete a folder of shards to a cache: write the manifest and, last, the card.

    Args:
        folder: The cache.
        settings: The settings that it was made with.
        records: The images, sorted by file name; the shards refer to them by their position here.
        images: Their hash.
        licences: Their terms.

    Raises:
        InputError: If latents are missing.
    """
    key = settings.key(images)
    missing = len(records) - len(set(encoded_images(folder, key).tolist()))
    if missing:
        raise _missing(folder, missing, len(records))
    write_manifest(folder, records)
    card = {"format": FORMAT, "key": key, "images": images, "settings": asdict(settings), "licences": list(licences)}
    write_json(folder / CARD, card)


def _missing(folder: Path, missing: int, images: int) -> InputError:
    remedy = "Run the command that encodes them again; it goes on where it stopped"
    return InputError(folder, f"{missing} of {images} images without latents", "latents of all", remedy)


def read_cache_card(folder: Path) -> dict[str, Any] | None:
    """Card of a finished cache; none where the cache is not finished.

    Raises:
        InputError: If it is broken, or the card of something else.
    """
    if not (folder / CARD).exists():
        return None
    card = read_json(folder / CARD, *_ITS_CARD)
    if card.get("format") != FORMAT or not isinstance(card.get("settings"), dict):
        raise InputError.broken(folder / CARD, "of something else", *_ITS_CARD)
    return card


# ---- reading -----------------------------------------------------------------------------------------------------


class LatentCache:
    """Latents of an image set, which are read from the disk when they are needed.

    Args:
        folder: Folder that ``dgs predict`` of ``EncodingTask`` wrote.

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
        card = read_cache_card(folder)
        if card is None:
            remedy = "Make it with 'dgs predict --config minimax/encode.yaml'"
            raise InputError(folder, "no finished latent cache", f"a folder with {CARD}", remedy)
        self.folder = folder
        self.key = str(card.get("key"))
        try:
            self.settings = CacheSettings(**{**card["settings"], "shape": tuple(card["settings"]["shape"])})
        except (KeyError, TypeError) as error:
            raise InputError.broken(folder / CARD, error, *_ITS_CARD) from None
        self.licences = tuple(card.get("licences", ()))
        self._images = str(card.get("images"))
        self.records = read_manifest(folder)
        self.labels = tuple(sorted({record.label for record in self.records}))
        position = {label: index for index, label in enumerate(self.labels)}
        self.classes = torch.tensor([position[record.label] for record in self.records])
        self._shards = [self._shard(path) for path in shard_paths(folder)]
        self._shard_of = torch.full((len(self.records),), -1)
        self._row_of = torch.zeros(len(self.records), dtype=torch.long)
        for number, shard in enumerate(self._shards):
            self._shard_of[shard["images"]] = number
            self._row_of[shard["images"]] = torch.arange(len(shard["images"]))
        missing = int((self._shard_of < 0).sum())
        if missing:
            raise _missing(folder, missing, len(self.records))

    def _shard(self, path: Path) -> dict[str, Tensor]:
        """A shard, checked to have latents of this cache's images and shape."""
        shard = read_shard(path, self.key)
        images = shard["images"]
        form = (len(images), self.settings.flips, *self.settings.shape)
        latents = [shard["means"]] + ([shard["logvars"]] if self.settings.posterior else [])
        known = images.dtype == torch.long and bool(((images >= 0) & (images < len(self.records))).all())
        if not known or any(tensor.shape != form for tensor in latents):
            found, remedy = "latents of other images, or of another shape", "Delete it and encode the images again"
            raise InputError(path, found, f"shape {form}", remedy)
        return shard

    def __len__(self) -> int:
        return len(self.records)

    def read(self, images: Tensor, flipped: Tensor | None = None) -> Posterior:
        """Read the posteriors of some images, in float32.

        Args:
            images: Positions of the images, shape ``(B,)``.
            flipped: Which of them to read flipped, booleans of shape ``(B,)``; none by default.
        """
        orientation = torch.zeros_like(images) if flipped is None else flipped.long()
        means = torch.empty(len(images), *self.settings.shape)
        logvars = torch.empty_like(means) if self.settings.posterior else None
        shard_of, row_of = self._shard_of[images], self._row_of[images]
        for number in set(shard_of.tolist()):
            here = shard_of == number
            shard, place = self._shards[number], (row_of[here], orientation[here])
            means[here] = shard["means"][place].float()
            if logvars is not None:
                logvars[here] = shard["logvars"][place].float()
        return Posterior(means, logvars)

    def check_images(self, folder: Path) -> None:
        """Check that the latents are those of the images in a folder.

        Raises:
            InputError: If images were changed, added or removed since.
        """
        if hash_files(folder, read_set(folder)) != self._images:
            found = f"latents of other images than {folder} has now"
            raise InputError(self.folder, found, "latents of the same images", "Encode the images again")
