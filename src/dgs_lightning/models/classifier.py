"""A trained classifier as a folder: ``config.json`` and ``model.safetensors``."""

from dataclasses import asdict, dataclass
from pathlib import Path

from torch import nn

from dgs_lightning.errors import InputError
from dgs_lightning.files import read_json, write_json, write_tensors
from dgs_lightning.models.registry import build_network
from dgs_lightning.models.weights import fill, read_weights

FORMAT = "dgs-lightning/classifier"
CONFIG, WEIGHTS = "config.json", "model.safetensors"


@dataclass(frozen=True, slots=True)
class ClassifierConfig:
    """The settings of a classifier, and the normalisation of its input."""

    network: str  # name for build_network
    labels: tuple[str, ...]  # the classes, in the order of the logits
    image_size: int  # side of the square input in pixels
    channels: int  # of the input
    mean: tuple[float, ...]  # of each channel, subtracted from images in [0, 1]
    std: tuple[float, ...]  # standard deviation of each channel, by which images are then divided
    width: int = 128  # channels of a ConvNet
    folds: int | None = None  # number of folds of the training images; None if it was trained on all images
    fold: int | None = None  # the fold that was left out of the training

    def __post_init__(self) -> None:
        """Check types and lengths. A ValueError describes a wrong one."""
        if not all(isinstance(text, str) for text in (self.network, *self.labels)) or not self.labels:
            raise ValueError("a network or labels that are no texts")
        if any(type(size) is not int or size < 1 for size in (self.image_size, self.channels, self.width)):
            raise ValueError("an image_size, channels or width that is no whole number from 1 on")
        numbers = all(isinstance(number, int | float) for number in (*self.mean, *self.std))
        if not numbers or not len(self.mean) == len(self.std) == self.channels:
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
    settings = read_json(path, expected, remedy)
    try:
        if settings.pop("format", None) != FORMAT:
            raise ValueError(f"no format {FORMAT!r}")
        lists = ("labels", "mean", "std")
        if not all(isinstance(settings[key], list) for key in lists):
            raise ValueError("labels, mean or std that are no lists")
        config = ClassifierConfig(**settings | {key: tuple(settings[key]) for key in lists})
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(path, f"no classifier's settings ({error})", expected, remedy) from None
    network = config.build()
    fill(network, read_weights(folder / WEIGHTS), str(folder / WEIGHTS))
    return network.eval(), config
