"""Recording of the paths that images take through the denoising."""

from contextlib import suppress
from pathlib import Path

import lightning as L
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from dgs_lightning.callbacks.parts import require
from dgs_lightning.datamodules.requests import RequestBatch, RequestDataModule
from dgs_lightning.files import write_tensors
from dgs_lightning.runs.layout import TRAJECTORIES
from dgs_lightning.tasks.generation import GenerationTask


class TrajectoryRecorder(L.Callback):
    """Records the path of some images through the denoising steps, for the report's figure of guided trajectories.

    The images are those of the first label in the first batch. The file ``trajectories.safetensors`` in the trainer's
    ``default_root_dir`` holds their ``predictions`` of the clean latent, shape ``(images, steps, C, h, w)``, first step
    first; their cluster ``centers``, shape ``(images, C, h, w)``, if there are any; and the ``label`` as metadata.
    Recording does not change the images. Where the images are finished but the file is lost or broken, the first batch
    is generated once more, for the file alone.

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> from safetensors.torch import load_file
        >>> from dgs_lightning import RequestDataModule
        >>> from dgs_lightning.examples import QUIET, write_dit
        >>> with TemporaryDirectory() as folder:
        ...     task = GenerationTask(write_dit(folder), steps=5)
        ...     trainer = L.Trainer(**QUIET, callbacks=[TrajectoryRecorder()], default_root_dir=folder)
        ...     images = trainer.predict(task, RequestDataModule(images_per_class=3))
        ...     load_file(Path(folder, "trajectories.safetensors"))["predictions"].shape
        torch.Size([3, 5, 1, 4, 4])
    """

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Ask for the first batch if its paths are not on the disk."""
        data = require(RequestDataModule, trainer.datamodule, self)  # type: ignore[attr-defined]
        if not trainer.strategy.broadcast(_is_whole(Path(trainer.default_root_dir) / TRAJECTORIES)):
            data.ask_for(0)

    def on_predict_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: RequestBatch, *_: object
    ) -> None:
        """Listen to the steps of the first batch."""
        if batch.number == 0:
            self._chosen = torch.tensor([record.label == batch.records[0].label for record in batch.records])
            self._predictions: list[Tensor] = []
            task = require(GenerationTask, pl_module, self)
            task.listen(lambda state: self._predictions.append(state.pred_x0.cpu()[self._chosen]))

    def on_predict_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: RequestBatch, *_: object
    ) -> None:
        """Write the paths."""
        if batch.number != 0:
            return
        require(GenerationTask, pl_module, self).listen(None)
        tensors = {"predictions": torch.stack(self._predictions, dim=1)}
        if batch.centers is not None:
            tensors["centers"] = batch.centers.float().cpu()[self._chosen]
        write_tensors(Path(trainer.default_root_dir) / TRAJECTORIES, tensors, {"label": batch.records[0].label})


def _is_whole(path: Path) -> bool:
    with suppress(OSError, SafetensorError), safe_open(path, "pt"):
        return True
    return False
