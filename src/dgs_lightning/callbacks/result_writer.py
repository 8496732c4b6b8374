"""Writing of the result and the weights of a downstream training."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch import Callback
from matplotlib.figure import Figure
from torch import Tensor

from dgs_lightning.callbacks.parts import require, tensorboards
from dgs_lightning.data.classes import readable_name
from dgs_lightning.files import write_json
from dgs_lightning.models.classifier import save_classifier
from dgs_lightning.reporting.style import plain_text
from dgs_lightning.tasks.classification import ClassificationTask

MEASURES = ("accuracy", "top5")
MOST_NUMBERED = 20  # up to this many classes a confusion matrix shows its counts


class ResultWriter(Callback):
    """Writes ``result.json`` and, with ``save_weights``, ``weights/`` into the trainer's ``default_root_dir``.

    ``result.json`` has all evaluations of the training, their best and their last accuracy in [0, 1], and the accuracy
    of each class. Where the datamodule has subsets of the validation images, ``subsets`` has the best and the last
    accuracy on each. The file is the same byte for byte if the training is repeated, or interrupted and resumed.
    TensorBoard gets the confusion matrix of the last evaluation.

    >>> from tempfile import TemporaryDirectory
    >>> from dgs_lightning import ImageDataModule
    >>> from dgs_lightning.examples import SILENT, write_images
    >>> with TemporaryDirectory() as folder:
    ...     images = write_images(f"{folder}/images")
    ...     trainer = L.Trainer(**SILENT, max_epochs=2, default_root_dir=folder, callbacks=[ResultWriter(True)])
    ...     trainer.fit(ClassificationTask("convnet1", width=4), ImageDataModule(train=images, val=images))
    ...     sorted(path.name for path in Path(folder).iterdir())
    ['images', 'result.json', 'weights']

    Args:
        save_weights: Write the trained network as the folder ``weights``.

    Raises:
        InputError: If the task is not a :class:`~dgs_lightning.tasks.classification.ClassificationTask`.
    """

    def __init__(self, save_weights: bool = False) -> None:
        self.save_weights = save_weights
        self.history: list[dict[str, Any]] = []
        self.per_class: dict[str, float] = {}
        self.confusion: Tensor | None = None

    def state_dict(self) -> dict[str, Any]:
        """The evaluations so far, so that a resumed training continues the list."""
        return {"history": self.history, "per_class": self.per_class}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue the list of a checkpoint."""
        self.history, self.per_class = state_dict["history"], state_dict["per_class"]

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Refuse other tasks before the training begins."""
        require(ClassificationTask, pl_module, self)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Remember an evaluation."""
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        task = require(ClassificationTask, pl_module, self)
        labels, evaluation = task.config.labels, task.evaluation
        numbers = {name: rounded(evaluation[name]) for name in MEASURES}
        subsets = {name: rounded(accuracy) for name, accuracy in task.by_subset.items()}
        more = {"subsets": subsets} if subsets else {}
        self.history.append({"epoch": trainer.current_epoch + 1, **numbers, **more})
        self.per_class = dict(zip(labels, map(rounded, evaluation["per_class"]), strict=True))
        self.confusion = evaluation["confusion"]

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write everything. ``result.json`` comes last, as the sign that the rest is there."""
        if not trainer.is_global_zero:
            return
        folder, task = Path(trainer.default_root_dir), require(ClassificationTask, pl_module, self)
        if self.confusion is not None:
            self._show_confusion(trainer, task, self.confusion)
        (folder / "result.json").unlink(missing_ok=True)
        if self.save_weights:
            save_classifier(task.network, task.config, folder / "weights")
        write_json(folder / "result.json", self._result(trainer, task))

    def _result(self, trainer: L.Trainer, task: ClassificationTask) -> dict[str, Any]:
        result = {
            "network": task.hparams["network"],
            "seed": task.hparams["seed"],
            "epochs": epochs_of(trainer),
            "images": task.data.train_images,
            "history": self.history,
            "accuracy_per_class": self.per_class,
        }
        for name in MEASURES:
            result |= best_and_last(name, [evaluation[name] for evaluation in self.history])
        if task.subsets:
            result["subsets"] = {
                subset: best_and_last("accuracy", [evaluation["subsets"][subset] for evaluation in self.history])
                for subset in task.subsets
            }
        return result

    def _show_confusion(self, trainer: L.Trainer, task: ClassificationTask, confusion: Tensor) -> None:
        """Draw a confusion matrix into TensorBoard."""
        few = len(task.config.labels) <= MOST_NUMBERED
        names = [readable_name(label) for label in task.config.labels] if few else None
        for board in tensorboards(trainer):
            figure = Figure(figsize=(8, 8), layout="constrained")
            with warnings.catch_warnings(), plain_text():
                # torchmetrics passes a tensor to matplotlib; NumPy deprecates the way in which it is converted.
                warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
                task.metrics["confusion"].plot(confusion, figure.subplots(), few, names, "Blues")
                board.add_figure("val/confusion", figure, trainer.global_step)


def epochs_of(trainer: L.Trainer) -> int:
    """Epochs that a training began. Lightning counts the end of one twice, or not, if it resumed there."""
    epochs: int = trainer.fit_loop.epoch_progress.current.started  # type: ignore[attr-defined]
    return epochs


def best_and_last(name: str, values: Sequence[float]) -> dict[str, float | None]:
    """The best and the last value of a measure under the names that ``result.json`` has for them."""
    return {f"{name}_best": max(values, default=None), f"{name}_last": values[-1] if values else None}


def rounded(value: Tensor) -> float:
    """A single-precision number, rounded to 7 decimals; it has no more."""
    return round(value.item(), 7)
