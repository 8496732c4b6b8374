"""Files of weights: read without executing anything in them, loaded into a network, hashed."""

import hashlib
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from dgs_lightning.errors import InputError
from dgs_lightning.files import reading


def read_file(
    path: Path, also: Sequence[type] = (), *, mmap: bool = False, expected: str = "whole weights", remedy: str = ""
) -> Any:  # noqa: ANN401
    """Content of a ``.safetensors`` file, or of a pickle of tensors, containers and plain values, on the CPU.

    Args:
        path: The file.
        also: Further classes whose instances the pickle may contain.
        mmap: Leave the tensors of a pickle on the disk until they are used.
        expected: What the file should hold, for the message.
        remedy: What to do about a broken file, for the message.

    Raises:
        InputError: If the file is missing, cannot be read, is broken, or contains objects of other classes.
    """
    with reading(path, expected, remedy or "Copy or download it again"):
        try:
            if path.suffix == ".safetensors":
                return load_file(path)
            with torch.serialization.safe_globals(list(also)):
                return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
        except pickle.UnpicklingError:
            found = "a pickle with more in it than a plain checkpoint"
            plain = "only tensors, containers and plain values, since anything else could run code"
            remedy = remedy or "Give a file from its original publisher, or convert it to .safetensors if you trust it"
            raise InputError.weights(path, found, plain, remedy) from None


def read_weights(path: Path, expected: str = "whole weights", remedy: str = "") -> dict[str, Tensor]:
    """Tensors by name of a safetensors file, or of a checkpoint that contains nothing else; otherwise an InputError."""
    return as_state(read_file(path, expected=expected, remedy=remedy), path)


def as_state(content: object, path: Path) -> dict[str, Tensor]:
    """The content of a file if it is tensors by name; otherwise an InputError."""
    if isinstance(content, dict) and all(isinstance(value, Tensor) for value in content.values()):
        return content
    found, expected = f"a checkpoint of {type(content).__name__}", "tensors by name"
    raise InputError.weights(path, found, expected, "Give a file of weights alone")


def fill(network: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """Load tensors by name into a network. A head for another number of classes keeps the network's weights.

    Raises:
        InputError: If the tensors are those of another network. ``where`` names their file.
    """
    own = network.state_dict()
    fitting = {key: value for key, value in state.items() if key in own and value.shape == own[key].shape}
    head = {key for key in state.keys() & own.keys() if state[key].shape[1:] == own[key].shape[1:]}
    if wrong := sorted((own.keys() ^ state.keys()) | (own.keys() - fitting.keys() - head)):
        found = f"{len(wrong)} tensors missing, unknown or of another shape ({', '.join(wrong[:3])} ...)"
        remedy = "Name the network, image size and channels that they were made for"
        raise InputError.weights(where, found, f"the weights of this {type(network).__name__}", remedy)
    network.load_state_dict(fitting, strict=False)


def hash_state(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of named tensors. It does not depend on their file."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
