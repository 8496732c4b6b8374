"""The surrogate of influence guidance: a classifier at some moments of its training, and what real images do to it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils import parameters_to_vector

from dgs_lightning.data.augmentation import normalise
from dgs_lightning.diffusion.influence import parameter_gradient
from dgs_lightning.errors import InputError
from dgs_lightning.files import reading, write_tensors
from dgs_lightning.models.classifier import ClassifierConfig, load_classifier, save_classifier

FILE = "influence.safetensors"
_REMEDY = "Train the surrogate again with the callback SurrogateWriter"


class Flat:
    """A classifier as a function of all its parameters in one vector, and of images in [0, 1].

    Args:
        network: The network. It is not changed.
        config: Its settings.

    Raises:
        InputError: If the network has more than parameters, such as the statistics of a batch norm.
    """

    def __init__(self, network: nn.Module, config: ClassifierConfig) -> None:
        if any(True for _ in network.buffers()):
            found = f"{config.network}, which has statistics beside its parameters"
            expected, remedy = "a network without batch norm", "Name another network, such as convnet6"
            raise InputError.setting("network", found, expected, remedy)
        self.network, self.config = network, config
        self.shapes = {name: parameter.shape for name, parameter in network.named_parameters()}

    def __call__(self, parameters: Tensor, images: Tensor) -> Tensor:
        """Logits ``(B, classes)`` of images ``(B, C, S, S)`` at parameters ``(P,)``."""
        parts = torch.split(parameters, [shape.numel() for shape in self.shapes.values()])
        named = {name: part.view(shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}
        logits: Tensor = functional_call(self.network, named, (normalise(images, self.config.mean, self.config.std),))
        return logits


def flat_parameters(network: nn.Module) -> Tensor:
    """All parameters of a network as one vector ``(P,)`` in float32 on the CPU."""
    return parameters_to_vector(network.parameters()).detach().float().cpu()


def real_gradients(batches: Iterable[tuple[Tensor, Tensor]], parameters: Tensor, flat: Flat) -> Tensor:
    """Gradient of the mean cross-entropy over the parameters for the images of each class, shape ``(classes, P)``.

    Args:
        batches: Images ``(B, C, S, S)`` in [0, 1] and their classes ``(B,)``, of one class in each batch.
        parameters: Parameters of the classifier, shape ``(P,)``.
        flat: The classifier.
    """
    sums = torch.zeros(len(flat.config.labels), len(parameters), device=parameters.device)
    counts = torch.zeros(len(flat.config.labels), 1, device=parameters.device)
    for images, classes in batches:
        images, classes = images.to(parameters.device), classes.to(parameters.device)
        sums[classes[0]] += len(images) * parameter_gradient(images, classes, parameters, flat)
        counts[classes[0]] += len(images)
    return sums / counts


@dataclass(frozen=True)
class Surrogate:
    """A trained classifier, its checkpoints, and the gradients of real images there.

    Args:
        network: The classifier.
        config: Its settings.
        epochs: Epochs after which the K checkpoints were taken, 0 for the start.
        checkpoints: Parameters at each of them, shape ``(K, P)``.
        gradients: Gradient of the real images of each label at each checkpoint, shape ``(K, P)``.
    """

    network: nn.Module
    config: ClassifierConfig
    epochs: tuple[int, ...]
    checkpoints: Tensor
    gradients: Mapping[str, Tensor]


def save_surrogate(surrogate: Surrogate, folder: Path) -> None:
    """Write the folder of a surrogate: that of its classifier, and ``influence.safetensors``."""
    gradients = {f"gradients/{label}": gradient for label, gradient in surrogate.gradients.items()}
    tensors = {"epochs": torch.tensor(surrogate.epochs), "checkpoints": surrogate.checkpoints, **gradients}
    write_tensors(folder / FILE, tensors)
    save_classifier(surrogate.network, surrogate.config, folder)


def load_surrogate(folder: Path) -> Surrogate:
    """A surrogate that :func:`save_surrogate` wrote.

    Raises:
        InputError: If the folder holds none, or its files do not belong together.
    """
    network, config = load_classifier(folder)
    path, expected = folder / FILE, "checkpoints and gradients of a surrogate, as SurrogateWriter writes them"
    with reading(path, expected, _REMEDY), safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
    names = {label: f"gradients/{label}" for label in config.labels}
    if missing := {"epochs", "checkpoints", *names.values()} - tensors.keys():
        raise InputError(path, f"no {min(missing)}", expected, _REMEDY)
    gradients = {label: tensors[name] for label, name in names.items()}
    shape = (len(tensors["epochs"]), len(flat_parameters(network)))
    if any(tensor.shape != shape for tensor in (tensors["checkpoints"], *gradients.values())):
        raise InputError(path, "tensors of other shapes", f"{expected}, each of shape {shape}", _REMEDY)
    return Surrogate(network, config, tuple(tensors["epochs"].tolist()), tensors["checkpoints"], gradients)
