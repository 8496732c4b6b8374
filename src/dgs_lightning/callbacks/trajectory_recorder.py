"""Recording of the way that images take through the denoising."""

from pathlib import Path

import lightning as L
import torch
from torch import Tensor

from dgs_lightning.datamodules.requests import RequestBatch
from dgs_lightning.diffusion.guidance import Guidance, StepState
from dgs_lightning.errors import InputError
from dgs_lightning.files import write_tensors
from dgs_lightning.runs.layout import TRAJECTORIES
from dgs_lightning.tasks.generation import generation_task


class TrajectoryRecorder(L.Callback):
    """Keeps the way of some images through the denoising steps, for the report's figure of guided trajectories.

    The images are those of the first label in the first batch. ``trajectories.safetensors`` in the trainer's
    ``default_root_dir`` gets their ``predictions`` of the clean latent, shape ``(images, steps, C, h, w)``, first step
    first, their cluster ``centers`` if they have any, shape ``(images, C, h, w)``, and the ``label`` as metadata. Name
    it after the guidance and before the writer; the images are the same with and without it.
    """

    def on_predict_batch_start(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        batch: RequestBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Listen to the first batch."""
        if batch.number == 0:
            task = generation_task(pl_module, type(self).__name__)
            self._listener = _Listener(task.guidance, batch)
            task.guidance = self._listener

    def on_predict_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: object,
        batch: RequestBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write what was heard.

        Raises:
            InputError: If a guidance took the listener's place.
        """
        if batch.number != 0:
            return
        task = generation_task(pl_module, type(self).__name__)
        if task.guidance is not self._listener:
            raise InputError(
                "trainer.callbacks",
                found=f"{type(self).__name__} before the guidance",
                expected="the guidance first, since its images are recorded",
                remedy=f"Name {type(self).__name__} after it",
            )
        task.guidance = self._listener.guidance
        write_tensors(
            Path(trainer.default_root_dir) / TRAJECTORIES, self._listener.tensors(), {"label": batch.records[0].label}
        )


class _Listener:
    """Passes a guidance on and keeps the predictions of the images of a batch's first label."""

    def __init__(self, guidance: Guidance | None, batch: RequestBatch) -> None:
        self.guidance = guidance
        self._chosen = torch.tensor([record.label == batch.records[0].label for record in batch.records])
        self._centers = batch.centers
        self._heard: list[Tensor] = []

    def __call__(self, state: StepState) -> Tensor | None:
        self._heard.append(state.pred_x0.cpu()[self._chosen])
        return None if self.guidance is None else self.guidance(state)

    def tensors(self) -> dict[str, Tensor]:
        """Predictions, and centres if there are any."""
        predictions = {"predictions": torch.stack(self._heard, dim=1)}
        return predictions if self._centers is None else predictions | {"centers": self._centers.cpu()[self._chosen]}
