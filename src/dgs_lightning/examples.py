"""Tiny models and data for the examples in docstrings: two classes, ``cat`` and ``dog``, of 4 x 4 grey pixels."""

from pathlib import Path
from typing import Any

import torch
from PIL import Image

from dgs_lightning.data.latents import CacheSettings, finish_cache, write_shard
from dgs_lightning.data.records import ImageRecord, write_manifest
from dgs_lightning.models.classifier import ClassifierConfig, save_classifier
from dgs_lightning.models.dit.formats import save_dit
from dgs_lightning.models.dit.network import DiT, DiTConfig

LABELS = ("cat", "dog")
# for ``Trainer(**QUIET)``, and for one that trains without a checkpoint callback ``Trainer(**SILENT)``
QUIET: dict[str, Any] = {"accelerator": "cpu"} | dict.fromkeys(
    ("logger", "enable_progress_bar", "enable_model_summary"), False
)
SILENT = QUIET | {"enable_checkpointing": False}
_RECORDS = [ImageRecord(f"{label}/{i}.png", label) for label in LABELS for i in range(4)]


def write_images(folder: str) -> str:
    """Write four random images of each class into class folders."""
    pixels = torch.randint(256, (len(_RECORDS), 4, 4), dtype=torch.uint8)
    for record, image in zip(_RECORDS, pixels, strict=True):
        path = Path(folder, record.file_name)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.numpy()).save(path)
    return folder


def write_dit(folder: str) -> str:
    """Write the weights of an untrained DiT, always the same."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        dit = DiT(DiTConfig(4, 2, in_channels=1, hidden_size=16, depth=1, num_heads=2), LABELS)
    save_dit(dit, Path(folder))
    return folder


def write_classifier(folder: str) -> str:
    """Write the weights of an untrained classifier."""
    config = ClassifierConfig("convnet1", LABELS, 4, 1, (0.5,), (0.25,), width=4)
    save_classifier(config.build(), config, Path(folder))
    return folder


def write_latents(folder: str) -> str:
    """Write a latent cache of four random images of each class."""
    settings = CacheSettings("pixels", "none", (1, 4, 4), posterior=False, flips=1, dtype="float32")
    latents = torch.randn(len(_RECORDS), 1, 1, 4, 4)
    write_shard(Path(folder), settings.key(""), torch.arange(len(_RECORDS)), latents, None)
    finish_cache(Path(folder), settings, _RECORDS, "")
    return folder


def write_scores(folder: str) -> str:
    """Write difficulties of the images of :func:`write_latents`, from 0.1 to 0.7 in each class."""
    scored = [
        ImageRecord(record.file_name, record.label, difficulty=0.1 + 0.2 * (number % 4), estimator="example")
        for number, record in enumerate(_RECORDS)
    ]
    write_manifest(Path(folder), scored)
    return folder
