"""A callback that starts the denoising from prototypes of each class (D4M)."""

from typing import Annotated, Any

import lightning as L

from dgs_lightning.bounds import Between, check_bounds
from dgs_lightning.callbacks.guidance import CenterGuidance
from dgs_lightning.callbacks.parts import require
from dgs_lightning.datamodules.requests import RequestDataModule
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
