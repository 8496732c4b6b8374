"""A DiT that has learned something, for callbacks that watch it generate."""

from pathlib import Path

import pytest
import torch

from dgs_lightning.diffusion.objective import add_noise, linear_alphas_cumprod, training_terms
from dgs_lightning.models.dit.formats import save_dit
from dgs_lightning.models.dit.network import DiT, DiTConfig, initialise

CLASSES = {"cat": 0.5, "cow": 0.0, "dog": -0.5}  # grey value that the images of a class scatter around

in_two_processes = pytest.mark.skipif("torch.cuda.is_initialized()", reason="processes that use CUDA cannot be forked")


@pytest.fixture(scope="session")
def dit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a DiT trained for a second on 4 x 4 images of one channel, each class around its own grey."""
    config = DiTConfig(input_size=4, num_classes=3, in_channels=1, hidden_size=16, depth=1, num_heads=2)
    model = DiT(config, list(CLASSES)).train()
    initialise(model, 0)
    random = torch.Generator().manual_seed(0)
    greys, alphas = torch.tensor(list(CLASSES.values())), linear_alphas_cumprod()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(200):
        y, t = torch.randint(3, (64,), generator=random), torch.randint(1000, (64,), generator=random)
        noise, scatter = (torch.randn(64, 1, 4, 4, generator=random) for _ in range(2))
        images = greys[y].reshape(-1, 1, 1, 1) + 0.2 * scatter
        output = model(add_noise(images, noise, alphas[t]), t, y, drop=torch.rand(64, generator=random) < 0.1)
        terms = training_terms(output, images, noise, t, alphas)
        optimizer.zero_grad()
        torch.autograd.backward((terms.mse + terms.bound).mean())
        optimizer.step()
    folder = tmp_path_factory.mktemp("dit")
    save_dit(model, folder)
    return folder
