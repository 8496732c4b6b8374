"""The command ``dgs export``: a trained DiT as a folder that stock diffusers loads."""

from pathlib import Path
from typing import Literal

from dgs_lightning.models.dit.formats import export_diffusers, load_dit


def export(dit: str, output: str, vae: str | None = None, weights: Literal["ema", "raw"] = "ema") -> Path:
    """Write a DiT as a folder that stock diffusers loads.

    DiffFit's scales are merged into the weights. ``DiTTransformer2DModel`` loads the folder ``transformer`` in it. With
    a VAE, ``DiTPipeline`` loads the whole folder; that needs a model with 1,000 classes.

    Args:
        dit: The model: a weights folder, a diffusers folder or hub id, or a checkpoint file.
        output: Folder to write, which is returned.
        vae: Folder or hub id of an ``AutoencoderKL``, for a whole pipeline.
        weights: The moving average of the training's weights if there is one, or the raw weights.

    Raises:
        InputError: If there is no such model, or a VAE is given for a model without 1,000 classes.
    """
    export_diffusers(load_dit(dit, weights=weights), Path(output), vae)
    return Path(output)
