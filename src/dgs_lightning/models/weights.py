"""Files of tensors, as anybody may have written them: read without executing anything in them."""

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from dgs_lightning.errors import InputError


def read_file(path: Path, also: Sequence[type] = (), *, mmap: bool = False) -> Any:  # noqa: ANN401
    """Content of a ``.safetensors`` file, or of a pickle of tensors, containers and plain values, on the CPU.

    Args:
        path: The file.
        also: Classes that the pickle may have instances of, too.
        mmap: Leave the tensors of a pickle on the disk until they are used.

    Raises:
        InputError: If the file is missing, broken, or has more in it.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with torch.serialization.safe_globals(list(also)):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except FileNotFoundError:
        raise InputError(path, found="no such file", expected="weights", remedy="Restore the file") from None
    except pickle.UnpicklingError:
        raise InputError(
            path,
            found="a pickle with more in it than a plain checkpoint",
            expected="tensors, containers and plain values alone, since anything else could run code",
            remedy="Give a file from its original publisher, or convert it to .safetensors where you trust it",
        ) from None
    except Exception as error:  # unpickling raises all kinds on broken files
        first = (str(error).splitlines() or [type(error).__name__])[0][:200].rstrip(".")
        raise InputError(
            path, found=f"a broken file ({first})", expected="whole weights", remedy="Copy or download it again"
        ) from None
