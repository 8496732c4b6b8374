"""A trained classifier as a folder: ``config.json`` and ``model.safetensors``."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict

from torch import nn

from dgs_lightning.bounds import FINITE, Above, Between
from dgs_lightning.documents.files import naming, read_json
from dgs_lightning.documents.shapes import Filled, check_shape
from dgs_lightning.errors import InputError
from dgs_lightning.files import write_json, write_tensors
from dgs_lightning.models.registry import build_network
from dgs_lightning.models.weights import fill, read_weights

FORMAT = "dgs-lightning/classifier"
CONFIG, WEIGHTS = "config.json", "model.safetensors"


class Format(TypedDict):
    """What tells the settings of a classifier from those of other models."""

    format: Literal["dgs-lightning/classifier"]


@dataclass(frozen=True, slots=True)
class ClassifierConfig:
    """The settings of a classifier, and the normalisation of its input."""

    network: str  # name for build_network
    labels: Annotated[tuple[str, ...], Filled()]  # the classes, in the order of the logits
    image_size: Annotated[int, Between(1, 16384)]  # side of the square input in pixels
    channels: Annotated[int, Between(1, 1024)]  # of the input
    mean: tuple[Annotated[float, FINITE], ...]  # of each channel, subtracted from images in [0, 1]
    std: tuple[Annotated[float, Above(0)], ...]  # standard deviation of each channel, by which images are then divided
    width: Annotated[int, Between(1, 16384)] = 128  # channels of a ConvNet
    folds: int | None = None  # number of folds of the training images; None if it was trained on all images
    fold: int | None = None  # the fold that was left out of the training

    def __post_init__(self) -> None:
        """Check the lengths. A ValueError describes a wrong one."""
        if not len(self.mean) == len(self.std) == self.channels:
            raise ValueError("a mean or std that is not one number for each channel")

    def build(self, pretrained: bool | str = False) -> nn.Module:
        """Build the network as :func:`~dgs_lightning.models.registry.build_network` does."""
        return build_network(self.network, len(self.labels), self.image_size, self.channels, pretrained, self.width)


def save_classifier(network: nn.Module, config: ClassifierConfig, folder: Path) -> None:
    """Write a classifier's folder, each file atomically. Its settings come last, as the sign that all is there."""
    (folder / CONFIG).unlink(missing_ok=True)
    write_tensors(folder / WEIGHTS, network.state_dict())
    write_json(folder / CONFIG, {"format": FORMAT, **asdict(config)})


def load_classifier(folder: Path) -> tuple[nn.Module, ClassifierConfig]:
    """A classifier that :func:`save_classifier` wrote, in evaluation mode.

    Raises:
        InputError: If the folder holds none, or its files do not belong together.
    """
    path, remedy = folder / CONFIG, "Name its folder of weights, or train it again"
    expected = "the config.json that ResultWriter writes with save_weights: true"
    read_json(path, Format, expected, remedy)
    settings: dict[str, Any] = read_json(path, dict[str, Any], expected, remedy)
    del settings["format"]
    with naming(path, expected, remedy):
        check_shape(settings, ClassifierConfig)
    try:
        config = ClassifierConfig(**settings | {key: tuple(settings[key]) for key in ("labels", "mean", "std")})
    except ValueError as error:
        raise InputError(path, f"no classifier's settings ({error})", expected, remedy) from None
    network = config.build()
    fill(network, read_weights(folder / WEIGHTS), str(folder / WEIGHTS))
    return network.eval(), config
