"""What IGD's influence and deviation change in images of the digits' DiT, at several scales.

``python benchmarks/influence.py RUN`` takes the folder of a finished ``dgs run quickstart``, and leaves it as it is.
For each draw, it trains a surrogate, and generates five images of each class. It prints the mean cosine of two images
of a class, the influence loss of the set, and how far the images moved from those of the same noise without guidance.
"""

import argparse
import json
import tempfile
from itertools import combinations
from pathlib import Path

import torch
from accelerator import quiet_trainer
from safetensors.torch import load_file
from torch import Tensor

from dgs_lightning.callbacks.image_writer import ImageWriter
from dgs_lightning.callbacks.influence import InfluenceGuidance
from dgs_lightning.callbacks.surrogate_writer import SurrogateWriter
from dgs_lightning.configs import load_config
from dgs_lightning.datamodules.images import ImageDataModule
from dgs_lightning.datamodules.requests import RequestDataModule
from dgs_lightning.diffusion.influence import cosine, influence_losses
from dgs_lightning.models.surrogate import Flat, Surrogate, load_surrogate, real_gradients
from dgs_lightning.tasks.classification import ClassificationTask
from dgs_lightning.tasks.generation import GenerationTask

SETTINGS = {  # name -> k and gamma, the latter for latents of 4 x 32 x 32
    "without": (0.0, 0.0),
    "k 5": (5.0, 0.0),
    "k 50": (50.0, 0.0),
    "gamma 120 / 64": (0.0, 120.0),
    "gamma 120": (0.0, 120.0 * 64),
    "k 5, gamma 120 / 64": (5.0, 120.0),
}


def train_surrogate(run: Path, folder: Path, seed: int) -> Path:
    """Folder of a surrogate of the digits, trained as the shipped config says."""
    config = load_config("classify/surrogate_digits.yaml")
    trainer = quiet_trainer(
        max_epochs=config["trainer"]["max_epochs"],
        limit_val_batches=0,
        default_root_dir=folder,
        callbacks=[SurrogateWriter()],
    )
    data = ImageDataModule(str(run / "data/train"), str(run / "data/val"))
    trainer.fit(ClassificationTask(**config["model"]["init_args"], seed=seed), data)
    return folder / "influence"


def generate(run: Path, surrogate: Path, scales: tuple[float, float], images: int, seed: int) -> dict[str, Tensor]:
    """Latents of the images of each label, shape ``(images, C, h, w)``."""
    with tempfile.TemporaryDirectory() as folder:
        guidance = InfluenceGuidance(str(surrogate), *scales, chunk=10)
        callbacks = [*([guidance] if any(scales) else []), ImageWriter(folder)]
        task = GenerationTask(str(run / "pretrain/weights"), guidance_scale=2.0, keep_latents=True)
        quiet_trainer(callbacks=callbacks).predict(task, RequestDataModule(images_per_class=images, seed=seed))
        paths = {label: sorted(Path(folder, label).glob("*.safetensors")) for label in task.labels}
        return {label: torch.stack([load_file(path)["latent"] for path in own]) for label, own in paths.items()}


def similarity(latents: dict[str, Tensor]) -> float:
    """Mean cosine of two images of a class."""
    pairs = [cosine(a.flatten(), b.flatten()) for own in latents.values() for a, b in combinations(own, 2)]
    return float(torch.stack(pairs).mean())


def influence_loss(surrogate: Surrogate, latents: dict[str, Tensor]) -> float:
    """Influence loss of the images of a class together, as a mean over the classes."""
    flat = Flat(surrogate.network, surrogate.config)
    positions = {label: surrogate.config.labels.index(label) for label in latents}
    batches = [(z.clamp(-1, 1) / 2 + 0.5, torch.full((len(z),), positions[label])) for label, z in latents.items()]
    own = torch.stack([real_gradients(batches, parameters, flat) for parameters in surrogate.checkpoints], dim=1)
    losses = [influence_losses(own[place], surrogate.gradients[label]).sum() for label, place in positions.items()]
    return float(torch.stack(losses).mean())


def main() -> None:
    """Print a line of JSON for each setting of each draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--images", type=int, default=5)
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=[*SETTINGS])
    arguments = parser.parse_args()
    for draw in range(arguments.draws):
        with tempfile.TemporaryDirectory() as folder:
            path = train_surrogate(arguments.run, Path(folder), draw)
            surrogate, plain = load_surrogate(path), dict[str, Tensor]()
            for name in dict.fromkeys(["without", *arguments.settings]):
                latents = generate(arguments.run, path, SETTINGS[name], arguments.images, draw)
                plain = plain or latents
                moved = torch.cat([latents[label] - plain[label] for label in plain]).square().mean().sqrt()
                figures = {
                    "cosine": round(similarity(latents), 4),
                    "influence_loss": round(influence_loss(surrogate, latents), 4),
                    "moved": round(float(moved), 4),
                }
                print(json.dumps({"draw": draw, "epochs": surrogate.epochs, "setting": name, **figures}), flush=True)


if __name__ == "__main__":
    main()
