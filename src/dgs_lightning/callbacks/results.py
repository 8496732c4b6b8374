"""What a downstream training leaves behind: its result, and its weights if asked for."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning as L
from lightning.pytorch import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.figure import Figure
from torch import Tensor

from dgs_lightning.data.classes import readable_name
from dgs_lightning.files import write_json
from dgs_lightning.models.classifier import save_classifier

if TYPE_CHECKING:
    from dgs_lightning.tasks.classification import ClassificationTask

MEASURES = ("accuracy", "top5")
MOST_NUMBERED = 20  # classes up to which a confusion matrix shows its counts


class ClassifierResults(Callback):
    """Writes ``result.json`` and, where the task says so, ``weights/`` into the run's folder.

    ``result.json`` is the same byte for byte when the run is repeated or was interrupted; accuracies are in [0, 1],
    the best of all evaluations, as the literature reports it, and the last.

    Args:
        task: The task whose results they are.
    """

    def __init__(self, task: "ClassificationTask") -> None:
        self.task = task
        self.history: list[dict[str, float]] = []
        self.per_class: dict[str, float] = {}

    def state_dict(self) -> dict[str, Any]:
        """What is known so far, so that a resumed run goes on with it."""
        return {"history": self.history, "per_class": self.per_class}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with it."""
        self.history, self.per_class = state_dict["history"], state_dict["per_class"]

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Remember an evaluation."""
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        labels, evaluation, epoch = self.task.config.labels, self.task.evaluation, trainer.current_epoch + 1
        self.history.append({"epoch": epoch, **{name: rounded(evaluation[name]) for name in MEASURES}})
        self.per_class = dict(zip(labels, map(rounded, evaluation["per_class"]), strict=True))
        if epoch == trainer.max_epochs:
            self._show_confusion(trainer)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write everything; the result comes last, as the sign that all is there."""
        if not trainer.is_global_zero:
            return
        folder, task = Path(trainer.default_root_dir), self.task
        if task.hparams["save_weights"]:
            save_classifier(task.network, task.config, folder / "weights")
        write_json(folder / "result.json", self._result(trainer))

    def _result(self, trainer: L.Trainer) -> dict[str, Any]:
        task = self.task
        result = {
            "network": task.hparams["network"],
            "seed": task.hparams["seed"],
            "epochs": trainer.max_epochs,
            "images": task.data.train_images,
            "history": self.history,
            "accuracy_per_class": self.per_class,
        }
        for name in MEASURES:
            values = [evaluation[name] for evaluation in self.history]
            result |= {f"{name}_best": max(values, default=None), f"{name}_last": values[-1] if values else None}
        return result

    def _show_confusion(self, trainer: L.Trainer) -> None:
        """Draw the evaluation's confusion matrix into TensorBoard."""
        labels = [readable_name(label) for label in self.task.config.labels]
        few = len(labels) <= MOST_NUMBERED
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                figure = Figure(figsize=(8, 8), layout="constrained")
                with warnings.catch_warnings():
                    # torchmetrics hands matplotlib a tensor, whose conversion NumPy finds out of date.
                    warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
                    self.task.metrics["confusion"].plot(
                        self.task.evaluation["confusion"], figure.subplots(), few, labels if few else None, "Blues"
                    )
                logger.experiment.add_figure("val/confusion", figure, trainer.global_step)


def rounded(value: Tensor) -> float:
    """A single-precision number to the digits that it has."""
    return round(value.item(), 7)
