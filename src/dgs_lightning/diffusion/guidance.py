"""Guidance of the denoising loop: what a guidance sees of a step, and how far it shifts the mean of the step."""

from dataclasses import dataclass
from typing import Literal, Protocol

from torch import Tensor


@dataclass(frozen=True)
class StepState:
    """One step of the denoising loop, before it is taken."""

    latent: Tensor  # noisy latents, (B, C, h, w)
    pred_x0: Tensor  # clean latents predicted from them, (B, C, h, w)
    sigma: Tensor  # standard deviation of an ancestral step, broadcastable to (B, C, h, w)
    index: int  # among the respaced steps, from steps - 1 down to 0
    timestep: int  # among the 1,000 of training


class Guidance(Protocol):
    """A function that shifts the mean of a step."""

    def __call__(self, state: StepState) -> Tensor | None:
        """Shift of the step's mean, ``(B, C, h, w)``; ``None`` for no shift."""


@dataclass(frozen=True)
class ClusterGuidance:
    r"""Pull each image towards a cluster centre of its own.

    .. math:: \hat\mu_t = \mu_t + \lambda\, \sigma_t\, (z_c - \hat z_0)

    The form ``x0`` measures the distance from the predicted clean latent, as MGD3 does (Chan-Santiago et al., ICML
    2025). The form ``latent`` measures it from the noisy latent (Eq. 10 read literally). A step is guided if its
    respaced index is above ``stop_timestep``: of 50 steps, 49 at stop 0, 24 at stop 25, none at stop 50.

    Args:
        centers: Centre of each image, shape ``(B, C, h, w)``.
        scale: :math:`\lambda`.
        stop_timestep: Steps with this respaced index or a lower one are not guided.
        form: What the distance is measured from.
    """

    centers: Tensor
    scale: float = 0.1
    stop_timestep: int = 25
    form: Literal["x0", "latent"] = "x0"

    def __call__(self, state: StepState) -> Tensor | None:
        """Shift of the step's mean.

        Raises:
            ValueError: If the centres and the latents differ in shape.
        """
        if state.index <= self.stop_timestep:
            return None
        origin = state.pred_x0 if self.form == "x0" else state.latent
        if self.centers.shape != origin.shape:
            raise ValueError(
                f"centres of shape {tuple(self.centers.shape)} cannot guide latents of shape {tuple(origin.shape)}: "
                "compute them on latents of the same codec and image size"
            )
        return self.scale * state.sigma * (self.centers - origin)
