"""The command ``dgs centers``: cluster centres of each class, for guidance, or start latents."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dgs_lightning.distil.centers import Centers


def centers(output: str, **settings: Any) -> Path:  # noqa: ANN401
    """Compute cluster centres of each class of a latent cache, for guidance, or start latents of its images.

    Writes a safetensors file with the latents of each label, shape ``(ipc, C, h, w)``, whole or not at all. If the file
    already holds centres of the same latents, scores and settings, nothing is computed.

    Args:
        output: The safetensors file, which is returned.
        settings: Settings of :class:`~dgs_lightning.distil.centers.Centers`.

    Raises:
        InputError: If the latents or scores cannot be used, or the output is another kind of file.
    """
    Centers(**settings).write(Path(output))
    return Path(output)


def check_combination(settings: Mapping[str, Any]) -> None:
    """Check the settings before anything is read."""
    Centers(**{name: value for name, value in settings.items() if name != "output"})
