"""Features of any classifier: the input of its last linear layer, and the map before it is pooled."""

from torch import Tensor, nn

from dgs_lightning.errors import InputError
from dgs_lightning.models.convnet import ConvNet
from dgs_lightning.models.resnet import ResidualNetwork


def pooled_features(network: nn.Module, images: Tensor) -> Tensor:
    """Features ``(B, D)`` of a classifier's inputs ``(B, C, H, W)``: the input of its last linear layer.

    A network of timm may be without classifier.

    Raises:
        InputError: If another network has no linear layer.
    """
    if isinstance(network, ConvNet | ResidualNetwork):
        return network.features(images)
    if hasattr(network, "forward_head"):  # timm
        head: Tensor = network.forward_head(network.forward_features(images), pre_logits=True)  # type: ignore[operator]
        return head
    return _input_of_last(nn.Linear, "linear layer", network, images).flatten(1)


def feature_map(network: nn.Module, images: Tensor) -> Tensor:
    """Features of a classifier before they are pooled, such as ``(B, C, h, w)``.

    Raises:
        InputError: If the network is torchvision's and has no adaptive average pool.
    """
    if isinstance(network, ConvNet | ResidualNetwork):
        return network.feature_map(images)
    if hasattr(network, "forward_features"):  # timm
        features: Tensor = network.forward_features(images)  # type: ignore[operator]
        return features
    return _input_of_last(nn.AdaptiveAvgPool2d, "adaptive average pool", network, images)


def _input_of_last(kind: type[nn.Module], what: str, network: nn.Module, images: Tensor) -> Tensor:
    """What the last module of a kind gets when a network sees images."""
    layers = [module for module in network.modules() if isinstance(module, kind)]
    if not layers:
        found, expected = f"{type(network).__name__} without {what}", f"a classifier that ends in a {what}"
        raise InputError.setting("features", found, expected, "Name another network")
    inputs: list[Tensor] = []
    with layers[-1].register_forward_pre_hook(lambda _, args: inputs.append(args[0])):
        network(images)
    return inputs[0]
