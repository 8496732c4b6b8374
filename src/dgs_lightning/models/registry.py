"""All classifiers by name: the published networks, and those of timm and torchvision."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dgs_lightning.data.transforms import to_unit
from dgs_lightning.errors import InputError, listed
from dgs_lightning.files import refused
from dgs_lightning.models.convnet import ConvNet
from dgs_lightning.models.resnet import ResNet18, ResNetAP10
from dgs_lightning.models.weights import fill, read_weights, tell_new_head

NAMES = "convnetD, convnetD_padded, resnet18, resnet_ap10, timm:NAME or torchvision:NAME"
MAX_CONVNET_DEPTH = 16
Preprocess = Callable[[Image.Image], Tensor]  # from an RGB picture to a network's input (C, H, W)
HUB_WEIGHTS = re.compile(r"IMAGENET1K_\w+")  # torchvision's names of weights


def build_network(
    name: str,
    num_classes: int,
    image_size: int,
    channels: int = 3,
    pretrained: bool | str = False,
    width: int = 128,
    *,
    whole: bool = False,
) -> nn.Module:
    """Build a classifier by name. Initial weights are drawn from torch's global generator, which the caller seeds.

    Args:
        name: ``convnetD`` of depth D from 1 to 16, ``resnet18`` or ``resnet_ap10``, all as published with instance norm
            (hyphens, underscores and capitals make no difference); ``convnetD_padded`` with padding 3 in its first
            convolution, as published for MNIST and Fashion-MNIST; ``timm:NAME``; ``torchvision:NAME``; or a name
            without library, which is looked up in timm first.
        num_classes: Number of classes.
        image_size: Side of the square input in pixels.
        channels: Channels of the input.
        pretrained: A local file for :func:`~dgs_lightning.models.weights.read_weights`; true for the weights of timm
            or torchvision, from their hub; or torchvision's name of weights, such as ``IMAGENET1K_V1``.
        width: Channels of a ConvNet, published 128; other networks ignore it.
        whole: Refuse weights for another number of classes, as a network that is not trained needs. By default its last
            layer then keeps its initial weights, which a warning says.

    Raises:
        InputError: If no network has this name, the images are too small for it, or the weights do not fit.
    """
    local = isinstance(pretrained, str) and not HUB_WEIGHTS.fullmatch(pretrained)
    hub = False if local else pretrained
    check_name(name)
    try:
        build, bare = _resolve(name)
        network = build(bare, num_classes, image_size, channels, hub, width)
    except (ValueError, RuntimeError, OSError, MemoryError) as error:
        found = f"{error} (images of {image_size} px, {channels} channels, pretrained: {pretrained})"
        expected = f"{NAMES}, with settings that it can have"
        files = "estimator_weights of an experiment, or weights of a task," if whole else "pretrained"
        remedy = f"Correct the setting; if weights could not be fetched, set {files} to a local file"
        where = f"network '{name}'"
        raise refused(where, error) or InputError.setting(where, found, expected, remedy) from error
    if local:
        fill(network, read_weights(Path(str(pretrained))), str(pretrained), None if whole else num_classes)
    return network


def check_name(name: str) -> None:
    """Raise an InputError if no network has this name."""
    try:
        _resolve(name)
    except ValueError as error:
        raise InputError.setting(f"network {name!r}", error, NAMES, "Correct the name") from None


def timm_weights(name: str) -> Any:  # noqa: ANN401  (timm is not typed)
    """What timm says about its weights of a network, ``NAME`` or ``NAME.TAG``; none if it has no such network.

    Raises:
        ValueError: If timm has the network, but no weights with this tag.
    """
    import timm  # slow, and often not needed
    from timm.models import get_arch_pretrained_cfgs

    try:
        return timm.get_pretrained_cfg(name) if timm.is_model(name) else None
    except RuntimeError:
        network, _, tag = name.partition(".")
        known = (known.partition(".")[2] for known in get_arch_pretrained_cfgs(network))
        raise ValueError(f"{network} with weights '{tag}', of which timm has {listed(known, 30)}") from None


def timm_classes(name: str) -> int | None:
    """Number of classes of timm's weights of a network; none if timm has no such network, or it is without classifier.

    Raises:
        InputError: If timm has the network, but no weights with this tag.
    """
    try:
        weights = timm_weights(name)
    except ValueError as error:
        raise InputError.setting(f"network 'timm:{name}'", error, "a tag that timm has", "Correct the tag") from None
    return None if weights is None else weights.num_classes


def pretrained_timm(name: str, weights: str | None) -> tuple[nn.Module, Preprocess]:
    """A timm network for which :func:`timm_classes` finds weights, with the head and preprocessing of its training.

    The weights come from a local file, or by default from timm's hub. An InputError says why they cannot be used.
    """
    import timm
    from timm.data.config import resolve_model_data_config
    from timm.data.transforms_factory import create_transform
    from torchvision.transforms import Compose, Lambda, ToTensor

    config: Any = timm.get_pretrained_cfg(name)
    size, source = config.input_size[-1], weights or True
    network = build_network(f"timm:{name}", config.num_classes, size, pretrained=source, whole=True)
    steps: Any = create_transform(**resolve_model_data_config(network))  # type: ignore[no-untyped-call]
    # Explicitly float32: timm takes torch's default, which Lightning changes for all threads in reduced precision.
    return network, Compose([Lambda(to_unit) if isinstance(step, ToTensor) else step for step in steps.transforms])


def _resolve(name: str) -> tuple[Callable[..., nn.Module], str]:
    """The function that builds a network, and the name that it takes; a ValueError if there is no such network."""
    source, _, bare = name.rpartition(":")
    plain = re.sub(r"[-_]", "", bare.lower())
    if not source and (published := re.fullmatch(r"convnet(\d+)(padded)?|resnet18|resnetap10", plain)):
        if (depth := published[1]) is not None and not 1 <= int(depth) <= MAX_CONVNET_DEPTH:
            raise ValueError(f"{depth} layers, where a ConvNet has 1 to {MAX_CONVNET_DEPTH}")
        return _published, plain
    if source not in ("", "timm", "torchvision"):
        raise ValueError(f"an unknown source '{source}'")
    if source != "torchvision":
        import timm  # slow, and often not needed

        if timm.is_model(bare):
            timm_weights(bare)  # is there such a tag?
            return _timm, bare
    from torchvision.models import list_models

    if source != "timm" and bare.lower() in list_models():
        return _torchvision, bare
    raise ValueError("no such network")


def _published(plain: str, num_classes: int, image_size: int, channels: int, hub: bool | str, width: int) -> nn.Module:
    if hub:
        raise ValueError("the published networks have no weights on a hub")
    if plain in ("resnet18", "resnetap10"):
        return (ResNet18 if plain == "resnet18" else ResNetAP10)(num_classes, image_size, channels)
    bare = plain.removesuffix("padded")
    return ConvNet(num_classes, image_size, channels, int(bare.removeprefix("convnet")), width, padded=bare != plain)


def _timm(name: str, num_classes: int, image_size: int, channels: int, hub: bool | str, width: int) -> nn.Module:
    import timm

    if isinstance(hub, str):
        raise ValueError(f"weights {hub}, which are torchvision's: timm names weights with the network, NAME.TAG")
    config = timm.get_pretrained_cfg(name)
    settings: dict[str, Any] = {"num_classes": num_classes, "in_chans": channels}
    if config is not None and config.fixed_input_size:
        settings["img_size"] = image_size
    if hub and config is not None and config.num_classes != num_classes:
        tell_new_head(f"timm:{name}", config.num_classes, num_classes)
    network: nn.Module = timm.create_model(name, pretrained=hub, **settings)
    return network


def _torchvision(name: str, num_classes: int, image_size: int, channels: int, hub: bool | str, width: int) -> nn.Module:
    from torchvision.models import get_model, get_model_weights

    if channels != 3:
        raise ValueError("torchvision's networks take 3 channels")
    known = get_model_weights(name).__members__
    if hub and (wanted := "DEFAULT" if hub is True else hub) not in known:
        raise ValueError(f"no weights {wanted}, only {', '.join(known)}")
    network: nn.Module = get_model(name, weights=None, num_classes=num_classes)
    if hub:
        weights = known[wanted]
        fill(network, weights.get_state_dict(check_hash=True), f"torchvision's {weights}", num_classes)
    return network


def has_batch_norm(network: nn.Module) -> bool:
    """Whether the output of a network for an image depends, in training, on the other images of the batch."""
    return any(isinstance(module, _BatchNorm) for module in network.modules())
