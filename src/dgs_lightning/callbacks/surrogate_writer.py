"""Writing of a surrogate: a classifier's parameters after each epoch, and the gradients of real images at some."""

import logging
from pathlib import Path
from typing import Annotated

import lightning as L
import torch
from torch import Tensor

from dgs_lightning.bounds import AtLeast, Between, check_bounds
from dgs_lightning.callbacks.parts import require
from dgs_lightning.diffusion.influence import LEAST_COSINE, chosen_checkpoints, gradients_on
from dgs_lightning.files import write_tensors
from dgs_lightning.models.surrogate import Flat, Surrogate, flat_parameters, real_gradients, save_surrogate
from dgs_lightning.models.weights import read_weights
from dgs_lightning.runs.layout import INFLUENCE
from dgs_lightning.tasks.classification import ClassificationTask

EPOCHS = "epochs"
_log = logging.getLogger(__name__)


class SurrogateWriter(L.Callback):
    """Writes what ``InfluenceGuidance`` needs of a classifier's training, into the trainer's ``default_root_dir``.

    ``epochs/00000.safetensors`` has the parameters before the training, and the following files those after each epoch.
    When the training ends, checkpoints are chosen among them: the start, and then each at which the gradients of the
    real images have turned away from those at the last chosen one (IGD, Chen et al., ICLR 2025). The folder
    ``influence`` gets the classifier, the chosen checkpoints, and the gradients of the real images of each class there.

    Args:
        images: The gradient of a class is that of so many of its images, the first ones; of all if it has fewer.
        batch_size: Images of a class that go through the network together.
        least_cosine: A checkpoint is chosen if the mean over the classes of the cosine with the gradients at the last
            chosen one is below this number.

    Raises:
        InputError: If a number is out of its range, the task is no ClassificationTask, or its network has batch norm.

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> from dgs_lightning import ImageDataModule
        >>> from dgs_lightning.examples import SILENT, write_images
        >>> with TemporaryDirectory() as folder:
        ...     images = write_images(f"{folder}/images")
        ...     trainer = L.Trainer(**SILENT, max_epochs=2, default_root_dir=folder, callbacks=[SurrogateWriter()])
        ...     trainer.fit(ClassificationTask("convnet1", width=4), ImageDataModule(train=images, val=images))
        ...     sorted(path.name for path in Path(folder, "influence").iterdir())
        ['config.json', 'influence.safetensors', 'model.safetensors']
    """

    def __init__(
        self,
        images: Annotated[int, AtLeast(1)] = 200,
        batch_size: Annotated[int, AtLeast(1)] = 50,
        least_cosine: Annotated[float, Between(-1, 1)] = LEAST_COSINE,
    ) -> None:
        self.images, self.batch_size, self.least_cosine = images, batch_size, least_cosine
        check_bounds(type(self), vars(self))

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Check the task."""
        require(ClassificationTask, pl_module, self)

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Check the network."""
        self._task(pl_module)

    def _task(self, pl_module: L.LightningModule) -> tuple[ClassificationTask, Flat]:
        """The task, and its network as a function of the parameters."""
        task = require(ClassificationTask, pl_module, self)
        return task, Flat(task.network, task.config)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the parameters before the training."""
        if trainer.current_epoch == 0:
            self._write(trainer, pl_module, 0)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the parameters after an epoch."""
        self._write(trainer, pl_module, trainer.current_epoch + 1)

    def _write(self, trainer: L.Trainer, pl_module: L.LightningModule, epoch: int) -> None:
        if trainer.is_global_zero:
            parameters = flat_parameters(require(ClassificationTask, pl_module, self).network)
            write_tensors(self._path(trainer, epoch), {"parameters": parameters})

    def _path(self, trainer: L.Trainer, epoch: int) -> Path:
        return Path(trainer.default_root_dir) / EPOCHS / f"{epoch:05d}.safetensors"

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Choose checkpoints, and write the surrogate."""
        if not trainer.is_global_zero:
            return
        task, flat = self._task(pl_module)
        batches = task.data.class_batches(self.images, self.batch_size)

        def parameters(epoch: int) -> Tensor:
            return read_weights(self._path(trainer, epoch))["parameters"]

        def gradients(epoch: int) -> Tensor:
            return real_gradients(iter(batches), parameters(epoch).to(task.device), flat).cpu()

        task.network.eval()
        with gradients_on():
            chosen = chosen_checkpoints(map(gradients, range(trainer.current_epoch + 1)), self.least_cosine)
            of_classes = torch.stack([gradients(epoch) for epoch in chosen], dim=1)  # (classes, K, P)
        _log.info("checkpoints of the surrogate: after epochs %s", ", ".join(map(str, chosen)))
        kept = torch.stack([parameters(epoch) for epoch in chosen])
        by_label = dict(zip(task.config.labels, of_classes, strict=True))
        surrogate = Surrogate(task.network, task.config, tuple(chosen), kept, by_label)
        save_surrogate(surrogate, Path(trainer.default_root_dir) / INFLUENCE)
