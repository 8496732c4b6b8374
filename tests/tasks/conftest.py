"""Latents and a DiT to train."""

from pathlib import Path

import pytest
import torch
from tests.tasks.dit_training import LABELS

from dgs_lightning.data.latents import CacheSettings, finish_cache, write_shard
from dgs_lightning.data.records import ImageRecord
from dgs_lightning.models.dit.formats import save_dit
from dgs_lightning.models.dit.network import DiT, DiTConfig, initialise


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """22 latents of three classes, 2x4x4, with posteriors and flips."""
    folder = tmp_path_factory.mktemp("latents")
    records = sorted(
        (ImageRecord(f"{LABELS[i % 3]}/{i}.png", LABELS[i % 3]) for i in range(22)), key=lambda r: r.file_name
    )
    settings = CacheSettings("codec", "transform", (2, 4, 4), posterior=True, flips=2, dtype="float32")
    means = torch.randn(22, 2, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    write_shard(folder, settings.key("images"), torch.arange(22), means, torch.full_like(means, -4.0))
    finish_cache(folder, settings, records, "images")
    return folder


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DiT for the latents of ``cache`` that knows its classes and one more, in another order."""
    folder = tmp_path_factory.mktemp("base")
    config = DiTConfig(input_size=4, num_classes=4, in_channels=2, hidden_size=16, depth=2, num_heads=2)
    model = DiT(config, ("cow", "dog", "bee", "ape"))
    initialise(model, 0)
    with torch.no_grad():  # a model whose blocks do something, as after training
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)), alpha=0.05)
    save_dit(model, folder)
    return folder
