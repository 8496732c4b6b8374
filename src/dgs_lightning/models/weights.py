"""Files of weights: read without executing anything in them, loaded into a network, hashed."""

import hashlib
import pickle
import warnings
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from dgs_lightning.errors import InputError, listed
from dgs_lightning.files import reading, stand_in


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
        except (pickle.UnpicklingError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "TorchScript" not in str(error):
                raise
            if other := stand_in(path, expected):
                raise other from None
            found = "a pickle with more in it than a plain checkpoint"
            plain = "only tensors, containers and plain values, since anything else could run code"
            remedy = remedy or "Give a file from its original publisher, or convert it to .safetensors if you trust it"
            raise InputError.weights(path, found, plain, remedy) from None


def read_weights(path: Path, expected: str = "whole weights", remedy: str = "") -> dict[str, Tensor]:
    """Tensors by name of a safetensors file, or of a checkpoint without code; see :func:`as_state`."""
    return as_state(read_file(path, expected=expected, remedy=remedy), path)


def as_state(content: object, path: Path) -> dict[str, Tensor]:
    """The tensors by name that a file holds, alone or as the only ones in a checkpoint of a training.

    Raises:
        InputError: If there are none, or several sets of them, such as weights and their moving averages.
    """
    if _is_state(content):
        return content
    sets = {name: value for name, value in content.items() if value and _is_state(value)} if _is_dict(content) else {}
    if len(sets) == 1:
        return next(iter(sets.values()))
    expected = "tensors by name"
    if sets:
        found, remedy = f"{len(sets)} sets of weights ({listed(sets)})", "Save the one to use in a file of its own"
        raise InputError.weights(path, found, f"one set of {expected}", remedy)
    found, remedy = f"a checkpoint of {type(content).__name__}", "Give a file of weights alone"
    raise InputError.weights(path, found, expected, remedy)


def _is_dict(content: object) -> TypeGuard[dict[Any, Any]]:
    return isinstance(content, dict)


def _is_state(content: object) -> TypeGuard[dict[str, Tensor]]:
    return _is_dict(content) and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in content.items())


def without_prefix(state: Mapping[str, Tensor], names: Collection[str], where: object) -> Mapping[str, Tensor]:
    """Tensors by the names that a network has for them.

    A file of a training may have each behind one prefix, such as ``module.`` or ``model.``, and others beside them,
    such as those of a loss function. The latter are left out.

    Args:
        state: Tensors by the names in the file.
        names: Names in the network, without which a prefix is not that of the network.
        where: The file, for the message.

    Raises:
        InputError: If the file has several networks with these names.
    """
    first = min(names, default="")
    ends = (name.removesuffix(first) for name in state if name.endswith(first))
    prefixes = [p for p in ends if (not p or p.endswith(".")) and all(p + name in state for name in names)]
    if not prefixes or "" in prefixes:
        return state
    if len(prefixes) > 1:
        found, remedy = f"{len(prefixes)} networks ({listed(prefixes)})", "Save the one to use in a file of its own"
        raise InputError.weights(where, found, "the weights of one network", remedy)
    return {name.removeprefix(prefixes[0]): value for name, value in state.items() if name.startswith(prefixes[0])}


def fill(network: nn.Module, state: Mapping[str, Tensor], where: str, classes: int | None = None) -> None:
    """Load tensors by name into a network, all of them or none.

    Args:
        network: The network.
        state: The tensors; see :func:`without_prefix`.
        where: Their file, for messages.
        classes: Number of classes of a network that is trained next. Where the file has a last layer for another
            number, that of the network keeps its initial weights, which a warning says.

    Raises:
        InputError: If the tensors are those of another network or, without `classes`, of other classes.
    """
    own = network.state_dict()
    state = without_prefix(state, own.keys(), where)
    both = own.keys() & state.keys()
    other = {name: (state[name].shape, own[name].shape) for name in both if state[name].shape != own[name].shape}
    same_inputs = all(len(theirs) == len(ours) and theirs[1:] == ours[1:] for theirs, ours in other.values())
    heads = {(theirs[0], ours[0]) for theirs, ours in other.values()} if same_inputs else set()
    if own.keys() != state.keys() or not same_inputs or len(heads) > 1:
        wrong = sorted((own.keys() ^ state.keys()) | other.keys())
        found = f"{len(wrong)} tensors missing, unknown or of another shape ({listed(wrong, 3)})"
        remedy = "Name the network, image size and channels that they were made for"
        raise InputError.weights(where, found, f"the weights of this {type(network).__name__}", remedy)
    for theirs, ours in heads:
        if ours != classes:
            remedy = "Give weights for these classes. Other classes need a folder of weights, which has their labels"
            raise InputError.weights(where, f"a last layer for {theirs} classes", f"one for {ours}", remedy)
        tell_new_head(where, theirs, ours)
    network.load_state_dict({name: value for name, value in state.items() if name not in other}, strict=False)


def tell_new_head(where: str, theirs: int, ours: int) -> None:
    """Warn that the last layer of a network starts at random, since its weights are for another number of classes."""
    start = f"The last layer for {ours} classes starts at random, and only the training fits it"
    warnings.warn(f"{where} has a last layer for {theirs} classes. {start}", stacklevel=3)


def hash_state(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of named tensors. It does not depend on their file."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
