"""The stages that make the images of a method, as a row of the registry declares them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_MODELS = ("dit", "minimax", "guided", "codec", "decoder")
_TEACHER = ("teacher", "teacher_weights")
_NUMBERS = ("ipc", "pool_images", "pool_multiple", "image_size", "seed")
_OF_DATA = ("train", "val", "latents", "original_scores", "labels")
USES = (*_MODELS, *_TEACHER, *_OF_DATA, *_NUMBERS, "previous", "previous_scores")

SECTIONS = ("config", "model", "data", "trainer")  # parts of the settings of ``dgs fit`` and ``dgs predict``


@dataclass(frozen=True)
class Use:
    """A value that the plan fills in: a path of the run, a model, or a setting of the experiment.

    Args:
        name: ``train`` (training images), ``val`` (validation images), ``latents`` (latent cache of the training
            images), ``original_scores``; ``dit`` (weights before fine-tuning), ``minimax`` (after it), ``guided`` (the
            one that the experiment guides); ``codec``, ``decoder``; ``teacher`` and ``teacher_weights``; ``labels``
            (class list), ``ipc``, ``pool_images`` (images per class of a pool), ``pool_multiple``, ``image_size``;
            ``seed`` (that of the draw: a stage with it, and all stages after it, are run for each draw); ``previous``,
            the result of the method's previous stage; or ``previous_scores``, the difficulties of its images.
    """

    name: str

    def __post_init__(self) -> None:
        """Check the name."""
        if self.name not in USES:
            raise ValueError(f"the plan has no value {self.name!r}; use one of {', '.join(USES)}")


@dataclass(frozen=True)
class MadeBy:
    """A stage that makes images for a method.

    Args:
        name: Folder of the stage in the run. ``{set}`` stands for the distilled set, such as ``dag-ipc10``. Without
            it, one stage serves all rows and IPCs.
        command: Command of ``dgs`` that the stage runs.
        section: Section of the experiment with the settings of the stage.
        config: Shipped config that the stage starts from.
        task: Class of the task, if neither section nor config names one.
        data: Class of the datamodule, likewise.
        settings: Settings of this run by their dotted keys; the values may be :class:`Use`. Keys that begin with
            ``callback.`` are settings of the callback.
        callback: Class of a callback that comes before those of the section.
        takes: Settings of the method in an experiment, such as ``dag: {stop_timestep: 30}``, that belong to this stage:
            those of ``SECTIONS`` to its command, the others to its callback if it has one, else to the place ``at``. By
            default all.
        at: Dotted key in the settings of the command, under which they stand; by default at the top.
        writer: Callback that writes predictions into the folder of the stage.
        file: Name of the file in the folder that is the result of the stage; by default the folder is.
    """

    name: str
    command: str
    section: str | None = None
    config: str | None = None
    task: str | None = None
    data: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    callback: str | None = None
    takes: tuple[str, ...] | None = None
    at: str = ""
    writer: str | None = None
    file: str = ""

    @property
    def drawn(self) -> bool:
        """Whether the stage uses the seed of a draw."""
        return any(isinstance(value, Use) and value.name == "seed" for value in self.settings.values())
