"""Callbacks that start the denoising from prototypes of each class (D4M), or from noisy latents (D3HR)."""

from pathlib import Path
from typing import Annotated, Any, TypedDict

import lightning as L

from dgs_lightning.bounds import Between, check_bounds
from dgs_lightning.callbacks.guidance import CenterGuidance
from dgs_lightning.callbacks.parts import require
from dgs_lightning.data.latents import Inversion
from dgs_lightning.datamodules.requests import RequestDataModule
from dgs_lightning.diffusion.inversion import INDEX
from dgs_lightning.distil.centers import read_description
from dgs_lightning.documents.shapes import check_shape
from dgs_lightning.documents.texts import Unreadable
from dgs_lightning.errors import InputError
from dgs_lightning.tasks.generation import GenerationTask, start_index


class PrototypeStart(L.Callback):
    """Starts each image from a cluster centre with noise instead of noise alone (Su et al., "D4M", CVPR 2024).

    The centres are those of mode guidance: ``data.centers`` names the file that ``dgs centers`` wrote, or a guidance
    among the callbacks has them. There is one image for each centre. Its noise is that of its own seed. Published is a
    start of Stable Diffusion; this one is that of the DiT.

    Args:
        strength: Share of the denoising steps that are taken, rounded down to whole steps. A smaller one stays nearer
            to the centre. At 1, the centre has almost no weight.

    Raises:
        InputError: If the strength is no share or takes no step, or there are no centres.

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> import torch
        >>> from safetensors.torch import save_file
        >>> from dgs_lightning.examples import QUIET, write_dit
        >>> with TemporaryDirectory() as folder:
        ...     save_file({"dog": torch.zeros(2, 1, 4, 4)}, f"{folder}/centers.safetensors")
        ...     data = RequestDataModule(["dog"], centers=f"{folder}/centers.safetensors")
        ...     trainer = L.Trainer(**QUIET, callbacks=[PrototypeStart(strength=0.5)])
        ...     images = trainer.predict(GenerationTask(write_dit(folder), steps=4), data)
        >>> [len(batch) for batch in images]
        [2]
    """

    def __init__(self, strength: Annotated[float, Between(0, 1, open="left")] = 0.7) -> None:
        self.strength = strength
        check_bounds(type(self), vars(self))

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Hand the start to the task."""
        task = require(GenerationTask, pl_module, self)
        data = require(RequestDataModule, trainer.datamodule, self)  # type: ignore[attr-defined]
        guided = any(isinstance(callback, CenterGuidance) for callback in trainer.callbacks)  # type: ignore[attr-defined]
        if data.centers is None and not guided:
            raise InputError.unset("data.centers", "a file that 'dgs centers' wrote", "FILE")
        task.start_from_centers(start_index(task.hparams["steps"], self.strength), self.settings(data))

    def settings(self, data: RequestDataModule) -> dict[str, Any]:
        """Settings that the images depend on; a guidance records the hash of its centres itself."""
        centers = data.centers_hash
        return {"strength": self.strength} | ({} if centers is None else {"centers": centers})


class InvertedStart(L.Callback):
    """Starts each image from a noisy latent of its own, and adds no noise to it (D3HR, ICML 2025).

    ``data.centers`` names the file with the latents, which ``dgs centers`` with ``groups`` wrote. The model, the steps
    and the index must be those that the latents were inverted with, and the sampler must be ``ddim``. The images then
    depend on the latents alone, and not on their seeds.

    Args:
        index: Index of the first step, from the number of steps - 1 down to 0: that of ``InversionTask``.

    Raises:
        InputError: If the latents do not fit the model, the steps or the index.

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> from dgs_lightning import ImageDataModule, InversionTask, LatentWriter
        >>> from dgs_lightning.distil.centers import Centers
        >>> from dgs_lightning.examples import QUIET, write_dit, write_images
        >>> with TemporaryDirectory() as folder:
        ...     dit, cache = write_dit(f"{folder}/dit"), f"{folder}/inverted"
        ...     images = ImageDataModule(predict=write_images(f"{folder}/images"))
        ...     inversion = InversionTask(dit, flips=False, steps=4, index=1)
        ...     _ = L.Trainer(**QUIET, callbacks=[LatentWriter(cache)]).predict(inversion, images)
        ...     starts = Path(folder, "starts.safetensors")
        ...     Centers(latents=cache, ipc=2, groups=5).write(starts)
        ...     trainer = L.Trainer(**QUIET, callbacks=[InvertedStart(index=1)])
        ...     data = RequestDataModule(centers=str(starts))
        ...     made = trainer.predict(GenerationTask(dit, sampler="ddim", steps=4), data)
        >>> [len(batch) for batch in made]
        [4]
    """

    def __init__(self, index: Annotated[int, Between(0, 999)] = INDEX) -> None:
        self.index = index
        check_bounds(type(self), vars(self))

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Hand the start to the task."""
        task = require(GenerationTask, pl_module, self)
        data = require(RequestDataModule, trainer.datamodule, self)  # type: ignore[attr-defined]
        path = data.hparams["centers"]
        if path is None:
            raise InputError.unset("data.centers", "a file that 'dgs centers' with groups wrote", "FILE")
        inverted, own = _inversion_of(Path(path)), task.generated_with()
        remedy = "Give the settings of the inversion, or invert the images again"
        for name, wanted in {"sampler": "ddim", "dit": inverted.dit, "steps": inverted.steps}.items():
            if own[name] != wanted:
                raise InputError.setting(f"model.{name}", own[name], f"{wanted}, as {path} was made with", remedy)
        if self.index != inverted.index:
            expected = f"{inverted.index}, as {path} was made with"
            raise InputError.setting("index", self.index, expected, remedy)
        task.start_from_centers(self.index, {"index": self.index, "centers": data.centers_hash}, noisy=True)


class _Described(TypedDict):
    """The description of noisy latents in their file. Other keys are allowed."""

    inversion: Inversion


def _inversion_of(path: Path) -> Inversion:
    """How the latents in a file of ``dgs centers`` were inverted.

    Raises:
        InputError: If they were not.
    """
    description = read_description(path)
    try:
        check_shape(description, _Described)
    except Unreadable:
        remedy = "Compute it by 'dgs centers' with groups, from latents of InversionTask"
        raise InputError(path, "centres that are clean latents", "noisy latents", remedy) from None
    return Inversion(**description["inversion"])  # type: ignore[index]
