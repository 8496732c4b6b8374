"""The command ``dgs export``: a trained DiT for stock diffusers, or an image set in a form that others load."""

from pathlib import Path
from typing import Literal

from dgs_lightning.errors import InputError
from dgs_lightning.exchange.writers import Form, is_image_set, write_form
from dgs_lightning.models.dit.formats import export_diffusers, load_dit


def export(
    output: str,
    source: str | None = None,
    dit: str | None = None,
    to: Form | None = None,
    vae: str | None = None,
    weights: Literal["ema", "raw"] = "ema",
) -> Path:
    """Write a DiT as a folder that stock diffusers loads, or an image set in a form that others load.

    A folder with the card of an image set is a set, and takes ``to``. Its file, such as ``set.parquet``, lies beside
    the card and a README.md with the licences.

    Of a DiT, DiffFit's scales are merged into the weights. ``DiTTransformer2DModel`` loads the folder ``transformer``
    in it. With a VAE, ``DiTPipeline`` loads the whole folder; that needs a model with 1,000 classes.

    Args:
        output: Folder to write. The folder of a DiT, or the file of a set, is returned.
        source: What to export, first on the command line: a set, or a DiT.
        dit: The same for a DiT: a weights folder, a diffusers folder or hub id, or a checkpoint file.
        to: Form of a set: ``parquet`` (for ``datasets``), ``webdataset`` (tar), ``pt`` (for torch and DD-Ranking), or
            ``npz`` (for NumPy).
        vae: Folder or hub id of an ``AutoencoderKL``, for a whole pipeline.
        weights: The moving average of the training's weights if there is one, or the raw weights.

    Raises:
        InputError: If there is no such set or model, ``to`` and what is exported do not go together, a package is
            missing, or a VAE is given for a model without 1,000 classes.
    """
    if source is None and dit is None:
        raise InputError("export", "nothing to export", "a set or a DiT", "Write dgs export FOLDER --output FOLDER")
    if source is not None and dit is not None:
        raise InputError("--dit", f"{dit}, beside {source}", "one of the two", "Leave one out")
    name = str(source or dit)
    is_set = is_image_set(Path(name))
    if is_set and to is None:
        forms = "--to parquet, webdataset, pt or npz"
        raise InputError("--to", f"nothing, for the image set {name}", forms, "Add --to parquet, or another form")
    if is_set and vae is not None:
        raise InputError("--vae", f"{vae}, for the image set {name}", "a VAE for a DiT alone", "Leave it out")
    if is_set and to is not None:
        return write_form(Path(name), Path(output), to)
    if to is not None:
        found = f"{to}, for {name}, which is no image set with a card"
        raise InputError("--to", found, "a form for an image set alone", "Leave it out for a DiT, or name a set")
    export_diffusers(load_dit(name, weights=weights), Path(output), vae)
    return Path(output)
