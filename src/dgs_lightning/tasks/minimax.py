"""Minimax fine-tuning of a DiT."""

import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from dgs_lightning.bounds import AtLeast, Between, Group
from dgs_lightning.datamodules.latents import LatentBatch
from dgs_lightning.diffusion.criteria import Minimax
from dgs_lightning.errors import InputError, is_out_of_memory
from dgs_lightning.tasks.diffusion import DiffusionTask


@dataclass(frozen=True)
class CriteriaSettings(Group):
    """Settings of the Minimax criteria.

    Args:
        representativeness: Weight of Eq. 3.
        diversity: Weight of Eq. 4.
        memory_size: Latents of each class that each of the two memories keeps.
        memory_dtype: Type that the memories are stored in.
        log_classes: Whether to log the criteria of each class.
    """

    representativeness: Annotated[float, AtLeast(0)] = 0.002
    diversity: Annotated[float, AtLeast(0)] = 0.008
    memory_size: Annotated[int, Between(1, 1_000_000)] = 64
    memory_dtype: Literal["float32", "bfloat16"] = "float32"
    log_classes: bool = False


class MinimaxTask(DiffusionTask):
    """Trains a DiT with the diffusion loss and the Minimax criteria (Section 3.1, Eq. 1 to 4).

    The criteria compare the batches of all devices with two memories. The number of devices does not change them.

    Args:
        criteria: Weights and memories of the criteria.
        **settings: Settings of :class:`~dgs_lightning.tasks.diffusion.DiffusionTask`.

    Attributes:
        minimax: The criteria with their memories, once ``setup`` has run.

    Raises:
        InputError: If a number is out of its range, or there is no model of this size.

    Examples:
        >>> task = MinimaxTask(CriteriaSettings(representativeness=0.004, memory_size=128), dit="pretrain/weights")
        >>> task.criteria.diversity
        0.008
        >>> MinimaxTask(CriteriaSettings(diversity=-1))
        Traceback (most recent call last):
        dgs_lightning.errors.InputError: diversity: found -1, expected a finite number, at least 0. Correct the setting.
    """

    def __init__(self, criteria: CriteriaSettings = CriteriaSettings(), **settings: Any) -> None:  # noqa: ANN401
        super().__init__(**settings)
        self.criteria = CriteriaSettings.of(criteria)

    def setup(self, stage: str) -> None:
        """Load or make the model, and make the memories."""
        super().setup(stage)
        size, dtype = self.criteria.memory_size, getattr(torch, self.criteria.memory_dtype)
        shape = torch.Size(self.trainer.datamodule.latent_shape)  # type: ignore[attr-defined]
        try:
            self.minimax = Minimax(len(self.labels), size, shape.numel(), dtype)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            found = f"{size}, more than fits in memory"
            raise InputError.setting("criteria.memory_size", found, "less", "Lower it") from None

    def added_losses(self, pred_x0: Tensor, batch: LatentBatch) -> dict[str, Tensor]:
        """The weighted criteria, Eq. 3 and 4, over the batches of all devices."""
        pred, latents = self._over_devices(pred_x0), self._gather(batch.latents)
        self._last_criteria = criteria = self.minimax(pred, latents, self._gather(batch.classes))
        return {
            "representativeness": self.criteria.representativeness * criteria.representativeness,
            "diversity": self.criteria.diversity * criteria.diversity,
        }

    def _gather(self, tensor: Tensor) -> Tensor:
        """The tensors of all devices as one batch, in the order of the devices, without gradient."""
        if self.trainer.world_size == 1:
            return tensor
        gathered: Tensor = self.all_gather(tensor.detach())  # type: ignore[assignment]
        return gathered.flatten(0, 1)

    def _over_devices(self, tensor: Tensor) -> Tensor:
        """The tensors of all devices as one batch, with the gradient of this device's share.

        Distributed training averages gradients over the devices, but the gradient of a loss of the whole batch is
        their sum. So each device multiplies the gradient of its share by the number of devices.
        """
        devices = self.trainer.world_size
        if devices == 1:
            return tensor
        parts = list(self._gather(tensor).chunk(devices))
        parts[self.global_rank] = tensor.detach() + devices * (tensor - tensor.detach())
        return torch.cat(parts)

    def log_progress(self, losses: dict[str, Tensor], share: int) -> None:
        """Log also the filled share of the memories and, with ``log_classes``, the criteria of each class."""
        super().log_progress(losses, share)
        self.log("memory_fill", self.minimax.real.filled.float().mean())
        if self.criteria.log_classes:
            for name in ("representativeness", "diversity"):
                values = getattr(self._last_criteria, f"{name}_by_class").tolist()
                by_label = zip(self.labels, values, strict=True)
                self.log_dict({f"{name}/{label}": value for label, value in by_label if not math.isnan(value)})

    def on_fit_start(self) -> None:
        """Move the memories to the device, too."""
        super().on_fit_start()
        self.minimax.to(self.device)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the memories, too."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["memories"] = self.minimax.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take over the memories, too."""
        super().on_load_checkpoint(checkpoint)
        if not checkpoint.get("memories"):
            raise InputError.resume("no memories")
        try:
            self.minimax.load_state_dict(checkpoint["memories"])
        except ValueError as error:
            raise InputError.resume(error) from None
