"""Trained classifiers with their own labels and preprocessing: difficulty estimators and teachers of soft labels."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor, nn

from dgs_lightning.data.classes import class_list
from dgs_lightning.data.transforms import resize_and_crop, to_unit
from dgs_lightning.errors import InputError
from dgs_lightning.files import refused
from dgs_lightning.models.classifier import ClassifierConfig, load_classifier
from dgs_lightning.models.embedding import pooled_features
from dgs_lightning.models.hub import NotFetched, find_model, read_config, why_missing
from dgs_lightning.models.registry import (
    HUB_WEIGHTS,
    Preprocess,
    build_network,
    pretrained_timm,
    timm_classes,
    timm_weights,
)
from dgs_lightning.models.weights import hash_state

IMAGENET_CLASSES = 1000
TORCHVISION_WEIGHTS = "IMAGENET1K_V1"  # the paper's, of its ResNet-50
Fold = tuple[int, int] | None  # a fold, and the number of folds
NAMES = "torchvision:NAME, timm:NAME, or a folder of trained weights"
ENOUGH = 50  # images that tell a classifier that knows nothing from a weak one
PIXELS_AT_ONCE = 2**20  # of a CPU's forward pass, so that its activations stay in the cache


class Estimator(nn.Module):
    """A frozen classifier, from preprocessed images ``(B, C, H, W)`` to logits ``(B, len(labels))``.

    Attributes:
        labels: The classes, in the order of the logits.
        preprocess: From an RGB picture to the network's input ``(C, H, W)``.
        left_out: The fold that was left out of the training, and the number of folds; none if it saw all images.
        identity: The name and a hash of the weights.
    """

    def __init__(
        self, network: nn.Module, labels: tuple[str, ...], preprocess: Preprocess, name: str, left_out: Fold = None
    ) -> None:
        super().__init__()
        self.network = network.requires_grad_(False).eval()
        self.labels, self.preprocess, self.left_out = labels, preprocess, left_out
        self.identity = f"{name}@{hash_state(network.state_dict())[:12]}"

    def train(self, mode: bool = True) -> "Estimator":
        """Stay in evaluation mode."""
        return super().train(False)

    @torch.inference_mode()
    def predict(self, image: Image.Image) -> str:
        """The label that the classifier gives an RGB picture."""
        device = next(self.parameters()).device
        return self.labels[int(self(self.preprocess(image)[None].to(device)).argmax())]

    def forward(self, images: Tensor) -> Tensor:
        """Logits of preprocessed images. On a CPU the batch is computed in parts."""
        with exact_convolutions():
            return _in_parts(self.network, images)

    def features(self, images: Tensor) -> Tensor:
        """Features ``(B, D)`` of preprocessed images: the input of the network's last linear layer, which is pooled.

        Raises:
            InputError: If the network has no such layer.
        """
        with exact_convolutions():
            return _in_parts(lambda part: pooled_features(self.network, part), images)


@contextmanager
def exact_convolutions() -> Iterator[None]:
    """Let a GPU compute convolutions of 32-bit numbers in 32-bit.

    By default, torch lets it round their inputs to 10 bits (TF32), and a difficulty then depends on its batch.
    """
    convolutions = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    before, convolutions.fp32_precision = convolutions.fp32_precision, "ieee"
    try:
        yield
    finally:
        convolutions.fp32_precision = before


def _in_parts(function: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Results of a function of images, which are computed in parts on a CPU."""
    pixels = images.shape[-2] * images.shape[-1]
    at_once = max(1, PIXELS_AT_ONCE // pixels) if images.device.type == "cpu" else len(images)
    return torch.cat([function(part) for part in torch.split(images, at_once)])


class Teacher(nn.Module):
    """Soft labels of :func:`load_estimator`'s classifier, in the classes and normalisation of the student.

    Raises:
        InputError: If the teacher does not know a class of the student, or takes images of another form.
    """

    def __init__(self, name: str, weights: str | None, student: ClassifierConfig) -> None:
        super().__init__()
        where = f"teacher {name}"
        _check_taught(student.labels, EstimatorSource.of(name, weights).labels(), where)  # before any download
        self.network = load_estimator(name, weights)
        preprocess: Any = self.network.preprocess
        last = getattr(preprocess, "transforms", [preprocess])[-1]  # the last step normalises in all libraries
        mean, std = (torch.as_tensor(values).flatten() for values in (last.mean, last.std))
        size = preprocess.size if isinstance(preprocess, ClassifierInput) else student.image_size
        if (size, len(mean)) != (student.image_size, student.channels):
            expected = f"{student.channels} channels and {student.image_size} px, as the images have"
            raise InputError.weights(where, f"{len(mean)} channels and {size} px", expected, "Train it on such images")
        self.columns = [self.network.labels.index(label) for label in student.labels]
        self.scale: Tensor
        self.shift: Tensor
        self.register_buffer("scale", (torch.tensor(student.std) / std)[:, None, None])
        self.register_buffer("shift", ((torch.tensor(student.mean) - mean) / std)[:, None, None])

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(B, classes)`` in the student's order, from images ``(B, C, S, S)`` in its normalisation.

        Like those of the student, they may be computed in TF32 on a GPU.
        """
        return _in_parts(self.network.network, self._input(images))[:, self.columns]

    @torch.no_grad()
    def all_logits(self, images: Tensor) -> Tensor:
        """Logits of all classes that the teacher knows, in its own order, from images as :meth:`forward` takes them."""
        logits: Tensor = self.network(self._input(images))
        return logits

    def _input(self, images: Tensor) -> Tensor:
        return images * self.scale + self.shift


def _check_taught(labels: Sequence[str], known: Sequence[str] | None, where: str) -> None:
    """Check that a teacher knows all classes of the student, as far as its files say."""
    if known is not None and (missing := sorted(set(labels) - set(known))):
        remedy = "Name a teacher that was trained on all classes"
        raise InputError.labels(where, "all classes that are to be labelled", remedy, missing=missing)


@dataclass(frozen=True)
class ClassifierInput:
    """Preprocessing of this project's own classifiers, as in the downstream protocol without augmentation."""

    size: int  # side in pixels
    channels: int  # 1 or 3
    mean: tuple[float, ...]  # of each channel
    std: tuple[float, ...]  # of each channel

    def __call__(self, image: Image.Image) -> Tensor:
        """Input ``(C, size, size)`` of an RGB picture."""
        # Explicitly float32: in reduced precision, Lightning makes bfloat16 the default of all threads during a step.
        mean, std = (torch.tensor(values, dtype=torch.float32)[:, None, None] for values in (self.mean, self.std))
        grey_or_rgb = image.convert("L" if self.channels == 1 else "RGB")
        return (to_unit(resize_and_crop(grey_or_rgb, self.size)) - mean) / std


@dataclass(frozen=True)
class EstimatorSource:
    """Origin of an estimator, known without loading it."""

    library: str  # torchvision or timm; empty for a folder of trained weights
    network: str  # name of the network, or the folder
    local: str | None  # path of local weights; None if they come from the library's hub
    weights: str = TORCHVISION_WEIGHTS  # torchvision's name of the weights from its hub

    @classmethod
    def of(cls, name: str, weights: str | None = None) -> "EstimatorSource":
        """The origin that the two arguments of :func:`load_estimator` describe. A name of no library is a folder."""
        library, _, network = name.rpartition(":")
        if Path(name).is_dir() or library not in ("torchvision", "timm"):
            return cls("", name, name)
        if weights is not None and not HUB_WEIGHTS.fullmatch(weights):
            return cls(library, network, weights)
        return cls(library, network, None, weights or TORCHVISION_WEIGHTS)

    def labels(self) -> Sequence[str] | None:
        """The classes; none if no config names them."""
        if self.library:
            return class_list("imagenet1k")
        labels = read_config(Path(self.network)).get("labels")
        return None if labels is None else [str(label) for label in labels]

    def in_cache(self) -> tuple[bool, str]:
        """Whether the library's weights are in this machine's cache, and a command that fetches them.

        A ValueError says that the library has no such network, or no weights of ImageNet-1K for it.
        """
        if self.library == "torchvision":
            from torch import hub
            from torchvision.models import get_model_weights

            try:
                url = get_model_weights(self.network)[self.weights].url
            except KeyError as error:
                raise ValueError(f"no weights {error}") from None
            path = Path(hub.get_dir(), "checkpoints", Path(url).name)
            return path.is_file(), f"'curl --create-dirs -Lo {path} {url}'"
        config = timm_weights(self.network)
        if config is None or config.hf_hub_id is None or config.num_classes != IMAGENET_CLASSES:
            raise ValueError("no weights of ImageNet-1K")
        return find_model(config.hf_hub_id, ("*.safetensors",)) is not None, f"'hf download {config.hf_hub_id}'"


def why_estimator_missing(name: str, weights: str | None, kind: str = "estimator") -> InputError | None:
    """The error of a classifier that :func:`load_estimator` cannot load without network access; ``None`` if it can.

    The error names the setting: ``estimator``, or another ``kind`` of classifier.
    """
    source, where = EstimatorSource.of(name, weights), f"{kind} {name}"
    if source.local is None:
        try:
            here, fetch = source.in_cache()
        except ValueError as error:
            expected, remedy = f"a network of {source.library}", "Name another, such as torchvision:resnet50"
            return InputError.setting(where, error, expected, remedy)
        return None if here else NotFetched.by(where, fetch, f"set {kind}_weights=FILE")
    if Path(source.local).exists():
        return why_missing(kind, source.local, ())
    if source.library:
        return InputError.missing(source.local, f"weights of {where}", f"Correct the path, or remove {kind}_weights")
    return InputError.setting(where, "no such folder", NAMES, "Correct the name")


class Accuracy(NamedTuple):
    """How many images of a set a classifier recognises.

    Attributes:
        images: Number of images.
        known: Images that are given one of the set's classes.
        right: Images that are given their own class.
        classes: Number of the set's classes.
    """

    images: int
    known: int
    right: int
    classes: int

    @classmethod
    def of(cls, answers: Sequence[tuple[str, str]]) -> "Accuracy":
        """From the label and the predicted label of each image."""
        classes = {label for label, _ in answers}
        known = [label == predicted for label, predicted in answers if predicted in classes]
        return cls(len(answers), len(known), sum(known), len(classes))

    def __str__(self) -> str:
        """The share of recognised images in words."""
        return f"{self.right / self.images:.1%} of {self.images:,} images recognised"

    def why_at_chance(self, where: str, remedy: str) -> InputError | None:
        """The error of a classifier that is no better than chance; ``None`` if it is better.

        Of the images that are given one of the C classes, a share above ``min(2 / C, 1/2)`` must be given their own.
        Folders with labels of other classes, and wrong weights, give about ``1 / C``: a random order of the classes has
        one class in its own place on average. Fewer than ``ENOUGH`` images show nothing.

        Args:
            where: The classifier, as the user knows it.
            remedy: What to do if folders and weights are right.
        """
        least = min(2 / self.classes, 0.5) if self.classes else 0.0
        if self.images < ENOUGH or self.classes < 2 or self.right > least * self.known:
            return None
        among = f"{self.right / max(1, self.known):.1%} of those that are given one of the {self.classes} classes"
        expected = f"more than {least:.1%} of these; chance is {1 / self.classes:.1%}"
        likely = (
            "See that each class folder is named by the label of its images (ImageNet: the WordNet id, not a position "
            "in another order), and that the weights belong to this network"
        )
        return InputError(where, f"{self}, and {among}", expected, f"{likely}; {remedy}")


def load_estimator(name: str, weights: str | None = None) -> Estimator:
    """A classifier by name, with the preprocessing of its training.

    Args:
        name: ``torchvision:NAME`` or ``timm:NAME``, an ImageNet-1K classifier; or a weights folder that
            ``ResultWriter`` wrote.
        weights: Local file of a named network's weights, or torchvision's name of weights. By default the weights
            come from the library's hub, once: ``IMAGENET1K_V1`` for torchvision, the default weights for timm.

    Raises:
        InputError: If there is no such classifier, its weights cannot be fetched, or it has other classes than
            ImageNet-1K.
    """
    if Path(name).is_dir():
        own, config = load_classifier(Path(name))
        inputs = ClassifierInput(config.image_size, config.channels, config.mean, config.std)
        left_out = None if config.folds is None or config.fold is None else (config.fold, config.folds)
        return Estimator(own, config.labels, inputs, config.network, left_out)
    source = EstimatorSource.of(name, weights)
    if not source.library or not source.network or "/" in source.network:
        raise InputError.setting("estimator", repr(name), NAMES, "Correct the name, or train the classifier first")
    try:
        network, preprocess = (_torchvision if source.library == "torchvision" else _timm)(source.network, weights)
    except InputError as error:
        by_network = isinstance(error.__cause__, OSError) and refused(name, error.__cause__) is None
        missing = why_estimator_missing(name, weights) if by_network else None
        raise (missing if isinstance(missing, NotFetched) else error) from error.__cause__
    network = network.to(memory_format=torch.channels_last)  # the fastest for convolutions of many channels
    return Estimator(network, class_list("imagenet1k"), preprocess, name)


def _torchvision(name: str, weights: str | None) -> tuple[nn.Module, Preprocess]:
    from torchvision.models import get_model_weights

    wanted = weights or TORCHVISION_WEIGHTS
    network = build_network(f"torchvision:{name}", IMAGENET_CLASSES, 224, pretrained=wanted, whole=True)
    known: Any = get_model_weights(name).__members__
    published = known.get(weights) or known.get(TORCHVISION_WEIGHTS) or known["DEFAULT"]
    return network, published.transforms()


def _timm(name: str, weights: str | None) -> tuple[nn.Module, Preprocess]:
    classes = timm_classes(name)
    if classes != IMAGENET_CLASSES:
        found = f"timm:{name}" + ("" if classes is None else f" with {classes} classes")
        expected = f"a timm classifier of the {IMAGENET_CLASSES} classes of ImageNet-1K"
        raise InputError.setting("estimator", found, expected, "Name another network")
    return pretrained_timm(name, weights)
