"""Grids of generated images during training."""

from typing import Annotated

import lightning.pytorch as pl
from torch import Tensor
from torch.func import functional_call
from torchvision.utils import make_grid

from dgs_lightning.bounds import FINITE, AtLeast, Between, check_bounds
from dgs_lightning.callbacks.parts import require, tensorboards
from dgs_lightning.diffusion.sampler import classifier_free, draw_noise, published_channels, sample
from dgs_lightning.models.codec import build_codec
from dgs_lightning.seeding import generator
from dgs_lightning.tasks.diffusion import DiffusionTask


class SampleGrid(pl.Callback):
    """Shows images of the moving average of a DiT on TensorBoard during training.

    A grid has one row for each class. All grids of a run start from the same noise. The training stays the same.

    Args:
        every_n_steps: Steps of the optimizer from one grid to the next.
        codec: Decoder of the latents: ``pixels`` if the latents are images, otherwise the folder or the Hugging Face
            id of an autoencoder.
        classes: Largest number of classes to show. The first ones are shown.
        images: Images of each class.
        guidance_scale: Scale of classifier-free guidance.
        steps: Denoising steps.

    Raises:
        InputError: If a number is out of its range, or there is no such codec.

    Examples:
        >>> grid = SampleGrid(every_n_steps=500, images=4, guidance_scale=2.0)
        >>> SampleGrid(steps=2000)
        Traceback (most recent call last):
        dgs_lightning.errors.InputError: steps: found 2000, expected at least 1, at most 1000. Correct the setting.
    """

    def __init__(
        self,
        every_n_steps: Annotated[int, AtLeast(1)] = 1000,
        codec: str = "pixels",
        classes: Annotated[int, AtLeast(1)] = 10,
        images: Annotated[int, Between(1, 1000)] = 8,
        guidance_scale: Annotated[float, FINITE] = 4.0,
        steps: Annotated[int, Between(1, 1000)] = 50,
    ) -> None:
        self.every_n_steps = every_n_steps
        self.codec = build_codec(codec)
        self.classes = classes
        self.images = images
        self.guidance_scale = guidance_scale
        self.steps = steps
        check_bounds(type(self), vars(self))
        self._shown = 0

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Check the task."""
        require(DiffusionTask, pl_module, self)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: DiffusionTask, *_: object) -> None:  # type: ignore[override]
        """Show a grid if one is due."""
        step, boards = trainer.global_step, tensorboards(trainer)
        if step % self.every_n_steps or step == self._shown or not boards or not trainer.is_global_zero:
            return
        self._shown = step
        grid = make_grid(self.draw(pl_module), nrow=self.images)
        for board in boards:
            board.add_image("samples", grid, step)

    def draw(self, task: DiffusionTask) -> Tensor:
        """Images of the moving average in [0, 1], shape ``(classes * images, C, H, W)``, after ``fit`` has started."""
        config, labels = task.dit.config, task.labels[: self.classes]
        weights = {name.removeprefix("dit."): average for name, average in task.ema.averages.items()}
        y = task.dit.class_indices(labels).repeat_interleave(self.images).to(task.device)
        noises = [generator("sample grid", number) for number in range(len(y))]
        shape = (config.in_channels, config.input_size, config.input_size)
        task.dit.eval()
        guided = (task.dit.null_label, self.guidance_scale, published_channels(config.in_channels))
        denoiser = classifier_free(lambda x, t, y: functional_call(task.dit, weights, (x, t, y)), y, *guided)
        latents = sample(denoiser, draw_noise(noises, shape).to(task.device), noises, steps=self.steps)
        task.dit.train()
        return (self.codec.to(task.device).decode(latents) / 2 + 0.5).clamp(0, 1)
