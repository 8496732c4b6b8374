"""One name for every classifier: the published networks, and any of timm's and torchvision's."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from dgs_lightning.errors import InputError
from dgs_lightning.models.convnet import ConvNet
from dgs_lightning.models.resnet import ResNet18, ResNetAP10
from dgs_lightning.models.weights import read_file

NAMES = "convnetD, resnet18, resnet_ap10, timm:NAME or torchvision:NAME"
MAX_CONVNET_DEPTH = 16
HUB_WEIGHTS = re.compile(r"IMAGENET1K_\w+")  # torchvision's names of weights


def build_network(
    name: str,
    num_classes: int,
    image_size: int,
    channels: int = 3,
    pretrained: bool | str = False,
    width: int = 128,
) -> nn.Module:
    """Build a classifier by name; initial weights are drawn from torch's global generator: seed and fork it around.

    Args:
        name: ``convnetD`` of depth D from 1 to 16, ``resnet18`` or ``resnet_ap10``, all as published with instance norm
            (hyphens, underscores and capitals do not matter); ``timm:NAME``; ``torchvision:NAME``; or a bare name,
            looked up in timm first.
        num_classes: Number of classes.
        image_size: Side of the square input in pixels.
        channels: Channels of the input.
        pretrained: A local file for :func:`read_weights`; true for timm's or torchvision's own weights, from their
            hub; or torchvision's name of weights for a network of its own, such as ``IMAGENET1K_V1``. A head for
            another number of classes stays as drawn.
        width: Channels of a ConvNet, published 128; other networks have widths of their own.

    Raises:
        InputError: If no network has this name, the images are too small for it, or the weights do not fit.
    """
    local = isinstance(pretrained, str) and not HUB_WEIGHTS.fullmatch(pretrained)
    hub = False if local else pretrained
    try:
        source, bare = _resolve(name)
        if source == "published":
            network = _published(bare, num_classes, image_size, channels, hub, width)
        else:
            build = _torchvision if source == "torchvision" else _timm
            network = build(bare, num_classes, image_size, channels, hub)
    except (ValueError, RuntimeError, OSError) as error:
        raise InputError(
            f"network '{name}'",
            found=f"{error} (images of {image_size} px, {channels} channels, pretrained: {pretrained})",
            expected=f"{NAMES}, with settings that it can have",
            remedy="Correct the setting; where weights could not be fetched, set pretrained to a local file",
        ) from error
    if local:
        fill(network, read_weights(Path(str(pretrained))), str(pretrained))
    return network


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors by name of a safetensors file, or of a checkpoint that holds nothing else. Never executes pickles.

    Raises:
        InputError: If the file is missing, truncated or something else.
    """
    state = read_file(path)
    if isinstance(state, dict) and all(isinstance(value, Tensor) for value in state.values()):
        return state
    raise InputError(
        path,
        found=f"a checkpoint of {type(state).__name__}",
        expected="a safetensors file, or a checkpoint of tensors by name",
        remedy="Check the path, or fetch the file again",
    )


def fill(network: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """Load weights into a network, all but a head for another number of classes, which stays as drawn.

    Raises:
        InputError: If they are another network's.
    """
    own = network.state_dict()
    fitting = {key: value for key, value in state.items() if key in own and value.shape == own[key].shape}
    head = {key for key in state.keys() & own.keys() if state[key].shape[1:] == own[key].shape[1:]}
    wrong = sorted((own.keys() ^ state.keys()) | (own.keys() - fitting.keys() - head))
    if wrong:
        raise InputError(
            where,
            found=f"{len(wrong)} tensors missing, unknown or of another shape ({', '.join(wrong[:3])} ...)",
            expected=f"the weights of this {type(network).__name__}",
            remedy="Name the network, image size and channels that they were made for",
        )
    network.load_state_dict(fitting, strict=False)


def check_name(name: str) -> None:
    """Check that a network has this name, without building it.

    Raises:
        InputError: If none has.
    """
    try:
        source, bare = _resolve(name)
        if source != "published" and not _exists(source, bare):
            raise ValueError("no such network")
    except ValueError as error:
        raise InputError(f"network {name!r}", found=str(error), expected=NAMES, remedy="Correct the name") from None


def _exists(source: str, name: str) -> bool:
    if source == "timm":
        import timm

        return bool(timm.is_model(name))
    from torchvision.models import list_models

    return name in list_models()


def _resolve(name: str) -> tuple[str, str]:
    """Source and name within it."""
    source, _, bare = name.rpartition(":")
    plain = re.sub(r"[-_]", "", bare.lower())
    if not source and (published := re.fullmatch(r"convnet(\d+)|resnet18|resnetap10", plain)):
        if (depth := published[1]) is not None and not 1 <= int(depth) <= MAX_CONVNET_DEPTH:
            raise ValueError(f"{depth} layers, where a ConvNet has 1 to {MAX_CONVNET_DEPTH}")
        return "published", plain
    if source in ("timm", "torchvision"):
        return source, bare
    if source:
        raise ValueError(f"an unknown source '{source}'")
    import timm  # slow, and often not needed

    return "timm" if timm.is_model(bare) else "torchvision", bare


def _published(plain: str, num_classes: int, image_size: int, channels: int, hub: bool | str, width: int) -> nn.Module:
    if hub:
        raise ValueError("the published networks have no weights on a hub")
    if plain == "resnet18":
        return ResNet18(num_classes, image_size, channels)
    if plain == "resnetap10":
        return ResNetAP10(num_classes, image_size, channels)
    return ConvNet(num_classes, image_size, channels, int(plain.removeprefix("convnet")), width)


def _timm(name: str, num_classes: int, image_size: int, channels: int, hub: bool | str) -> nn.Module:
    import timm

    if isinstance(hub, str):
        raise ValueError(f"weights {hub}, which are torchvision's: timm names weights with the network, NAME.TAG")
    config = timm.get_pretrained_cfg(name)
    settings: dict[str, Any] = {"num_classes": num_classes, "in_chans": channels}
    if config is not None and config.fixed_input_size:
        settings["img_size"] = image_size
    network: nn.Module = timm.create_model(name, pretrained=hub, **settings)
    return network


def _torchvision(name: str, num_classes: int, image_size: int, channels: int, hub: bool | str) -> nn.Module:
    from torchvision.models import get_model, get_model_weights

    if channels != 3:
        raise ValueError("torchvision's networks take 3 channels")
    known = get_model_weights(name).__members__
    if hub and (wanted := "DEFAULT" if hub is True else hub) not in known:
        raise ValueError(f"no weights {wanted}, only {', '.join(known)}")
    network: nn.Module = get_model(name, weights=None, num_classes=num_classes)
    if hub:
        weights = known[wanted]
        fill(network, weights.get_state_dict(check_hash=True), f"torchvision's {weights}")
    return network
