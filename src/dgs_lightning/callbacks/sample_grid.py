"""Sample grids over training."""

from collections.abc import Mapping
from typing import ClassVar

import lightning.pytorch as pl
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor
from torch.func import functional_call
from torchvision.utils import make_grid

from dgs_lightning.bounds import Ranged
from dgs_lightning.diffusion.sampler import classifier_free, draw_noise, published_channels, sample
from dgs_lightning.errors import InputError
from dgs_lightning.models.codec import build_codec
from dgs_lightning.seeding import generator
from dgs_lightning.tasks.minimax import MinimaxTask


class SampleGrid(pl.Callback, Ranged):
    """Puts images of the moving average on TensorBoard every so often, from the same noise each time, a class a row.

    Args:
        every_n_steps: Steps of the optimiser from one grid to the next.
        codec: What decodes the latents: ``pixels`` for none, or folder or hub id of an autoencoder.
        classes: The first so many classes are shown.
        images: Images of each.
        guidance_scale: Scale of classifier-free guidance.
        steps: Denoising steps.
    """

    RANGES: ClassVar[Mapping[str, str]] = {
        "every_n_steps": "[1, inf)",
        "classes": "[1, inf)",
        "images": "[1, 1000]",
        "guidance_scale": "(-inf, inf)",
        "steps": "[1, 1000]",
    }

    def __init__(
        self,
        every_n_steps: int = 1000,
        codec: str = "pixels",
        classes: int = 10,
        images: int = 8,
        guidance_scale: float = 4.0,
        steps: int = 50,
    ) -> None:
        self.every_n_steps = every_n_steps
        self.codec = build_codec(codec)
        self.classes = classes
        self.images = images
        self.guidance_scale = guidance_scale
        self.steps = steps
        self.check_settings(vars(self))
        self._shown = 0

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Check the task.

        Raises:
            InputError: If it is another than ``MinimaxTask``.
        """
        if not isinstance(pl_module, MinimaxTask):
            raise InputError(
                "SampleGrid", found=type(pl_module).__name__, expected="MinimaxTask", remedy="Use it with 'dgs fit'"
            )

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: MinimaxTask, *_: object) -> None:  # type: ignore[override]
        """Show a grid where one is due."""
        step = trainer.global_step
        loggers = [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
        if step % self.every_n_steps or step == self._shown or not loggers or not trainer.is_global_zero:
            return
        self._shown = step
        grid = make_grid(self.draw(pl_module), nrow=self.images)
        for logger in loggers:
            logger.experiment.add_image("samples", grid, step)

    def draw(self, task: MinimaxTask) -> Tensor:
        """Images in [0, 1] of the moving average, shape ``(classes * images, C, H, W)``."""
        config, labels = task.dit.config, task.labels[: self.classes]
        weights = {name.removeprefix("dit."): average for name, average in task.ema.averages.items()}
        y = task.dit.class_indices(labels).repeat_interleave(self.images).to(task.device)
        noises = [generator("sample grid", number) for number in range(len(y))]
        shape = (config.in_channels, config.input_size, config.input_size)
        task.dit.eval()
        latents = sample(
            classifier_free(
                lambda x, t, y: functional_call(task.dit, weights, (x, t, y)),
                y,
                task.dit.null_label,
                self.guidance_scale,
                published_channels(config.in_channels),
            ),
            draw_noise(noises, shape).to(task.device),
            noises,
            steps=self.steps,
        )
        task.dit.train()
        return (self.codec.to(task.device).decode(latents) / 2 + 0.5).clamp(0, 1)
