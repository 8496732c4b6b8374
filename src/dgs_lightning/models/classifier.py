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
    """The settings that a classifier is built from, and those that its input is normalised with.

    Args:
        network: Name for :func:`~dgs_lightning.models.registry.build_network`.
        labels: Its classes, in the order of its logits.
        image_size: Side of the square input in pixels.
        channels: Channels of the input.
        mean: Mean of each channel, subtracted from images in ``[0, 1]``.
        std: Standard deviation of each channel, by which images are then divided.
        width: Channels of a ConvNet.
        folds: Number of folds of the images that it was trained on; none where it was trained on all images.
        fold: The fold that was left out of its training.
    """

    network: str
    labels: tuple[str, ...]
    image_size: int
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    width: int = 128
    folds: int | None = None
    fold: int | None = None

    def __post_init__(self) -> None:
        """Check types and lengths.

        Raises:
            ValueError: If a setting is of another type or length.
        """
        if not all(isinstance(text, str) for text in (self.network, *self.labels)) or not self.labels:
            raise ValueError("a network or labels that are no texts")
        if any(type(size) is not int or size < 1 for size in (self.image_size, self.channels, self.width)):
            raise ValueError("an image_size, channels or width that is no whole number from 1 on")
        numbers = all(isinstance(number, int | float) for number in (*self.mean, *self.std))
        if not numbers or not len(self.mean) == len(self.std) == self.channels:
            raise ValueError("a mean or std that is not one number for each channel")

    def build(self, pretrained: bool | str = False) -> nn.Module:
        """The network, with the initial weights of :func:`~dgs_lightning.models.registry.build_network`."""
        return build_network(self.network, len(self.labels), self.image_size, self.channels, pretrained, self.width)


def save_classifier(network: nn.Module, config: ClassifierConfig, folder: Path) -> None:
    """Write a classifier's folder; each file is replaced as a whole."""
    write_tensors(folder / WEIGHTS, network.state_dict())
    write_json(folder / CONFIG, {"format": FORMAT, **asdict(config)})


def load_classifier(folder: Path) -> tuple[nn.Module, ClassifierConfig]:
    """A classifier that :func:`save_classifier` wrote, in evaluation mode.

    Raises:
        InputError: If the folder holds none, or its files do not belong together.
    """
    path = folder / CONFIG
    expected = "the config.json that ResultWriter writes with save_weights: true"
    remedy = "Name its folder of weights, or train it again"
    settings = read_json(path, expected, remedy)
    try:
        if settings.pop("format", None) != FORMAT:
            raise ValueError(f"no format {FORMAT!r}")
        if not all(isinstance(settings[key], list) for key in ("labels", "mean", "std")):
            raise ValueError("labels, mean or std that are no lists")
        lists = {key: tuple(settings[key]) for key in ("labels", "mean", "std")}
        config = ClassifierConfig(**{**settings, **lists})
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(path, f"no classifier's settings ({error})", expected, remedy) from None
    network = config.build()
    fill(network, read_weights(folder / WEIGHTS), str(folder / WEIGHTS))
    return network.eval(), config
