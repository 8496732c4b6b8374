"""How near guided images come to their cluster centres, at several scales and stop timesteps of DAG.

``python benchmarks/guidance.py RUN`` takes the folder of a finished ``dgs run`` with a row ``dag`` whose DiT works on
pixels, and leaves it as it is. It generates the guided images of the first draw again in each setting, from the same
noise. It prints the root mean square distance per value between an image and its centre, where pixels go from -1 to 1,
and how far the images moved from those without guidance. Where the denoising diverges, it says so.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch
from accelerator import quiet_trainer
from torch import Tensor

from dgs_lightning.callbacks.guidance import CenterGuidance
from dgs_lightning.configs import load_yaml
from dgs_lightning.datamodules.requests import RequestDataModule
from dgs_lightning.distil.centers import read_centers
from dgs_lightning.errors import InputError
from dgs_lightning.tasks.generation import GenerationTask


def images_of(run: Path, ipc: int, **guidance: Any) -> tuple[Tensor, Tensor]:  # noqa: ANN401
    """Guided images as values from -1 to 1, and the centre of each, both of shape ``(images, C, H, W)``."""
    stage = load_yaml(run / f"stages/guided/dag-ipc{ipc}.yaml")
    centers = run / f"centers/dag-ipc{ipc}/centers.safetensors"
    task = GenerationTask(**{**stage["model"]["init_args"], "dit": str(run / "pretrain/weights")})
    data = RequestDataModule(**{**stage["data"]["init_args"], "centers": None})
    with tempfile.TemporaryDirectory() as folder:
        callbacks = [CenterGuidance(str(centers), **guidance)]
        batches: Any = quiet_trainer(callbacks=callbacks, default_root_dir=folder).predict(task, data)
        by_label = read_centers(centers, task.labels, task.latent_shape)
    own = [by_label[record.label][record.index or 0] for batch in data.batches() for record in batch.records]
    return torch.cat(batches).float() / 127.5 - 1, torch.stack(own)


def distance(left: Tensor, right: Tensor) -> float:
    """Root mean square distance per value."""
    return float((left - right).square().mean().sqrt())


def main() -> None:
    """Print a line of a table for each setting."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--ipc", type=int, default=10)
    parser.add_argument("--scales", nargs="+", type=float, default=[0.05, 0.1, 0.2, 0.3, 0.5, 1.0])
    parser.add_argument("--stops", nargs="+", type=int, default=[40, 25, 10, 0])
    arguments = parser.parse_args()
    plain, own = images_of(arguments.run, arguments.ipc, scale=0.0)
    print("| scale | stop timestep | distance to the centre | moved |\n| ---: | ---: | ---: | ---: |")
    print(f"| none | | {distance(plain, own):.3f} | |")
    for scale in arguments.scales:
        for stop in arguments.stops:
            try:
                images, _ = images_of(arguments.run, arguments.ipc, scale=scale, stop_timestep=stop)
                numbers = f"{distance(images, own):.3f} | {distance(images, plain):.3f}"
            except InputError as error:
                numbers = f"{error.parts[1]} | "
            print(f"| {scale:g} | {stop} | {numbers} |", flush=True)


if __name__ == "__main__":
    main()
