"""Guidance of the denoising loop: what a guidance sees of a step, and how far it shifts the mean of the step."""

from dataclasses import dataclass
from typing import Literal, Protocol

from torch import Tensor

Form = Literal["x0", "latent"]
Side = Literal["above", "below"]


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
    2025). The form ``latent`` measures it from the noisy latent (Eq. 10 read literally).

    A step is guided if its respaced index, from 49 down to 0, is above ``stop_timestep`` (``guided="above"``, MGD3's
    code): of 50 steps, 49 at stop 0, 24 at stop 25, none at stop 50. With ``guided="below"``, the other reading of the
    paper, a step is guided if its index is below the stop: none at stop 0, the last 25 at stop 25, all at stop 50.

    Args:
        centers: Centre of each image, shape ``(B, C, h, w)``.
        scale: :math:`\lambda`.
        stop_timestep: Respaced index on one side of which steps are guided.
        form: What the distance is measured from.
        guided: The side: steps with an index ``above`` the stop, the early ones, or ``below`` it, the late ones.
    """

    centers: Tensor
    scale: float = 0.1
    stop_timestep: int = 25
    form: Form = "x0"
    guided: Side = "above"

    def __call__(self, state: StepState) -> Tensor | None:
        """Shift of the step's mean.

        Raises:
            ValueError: If the centres and the latents differ in shape.
        """
        index, stop = state.index, self.stop_timestep
        if index <= stop if self.guided == "above" else index >= stop:
            return None
        origin = state.pred_x0 if self.form == "x0" else state.latent
        if self.centers.shape != origin.shape:
            raise ValueError(
                f"centres of shape {tuple(self.centers.shape)} cannot guide latents of shape {tuple(origin.shape)}: "
                "compute them on latents of the same codec and image size"
            )
        return self.scale * state.sigma * (self.centers - origin)
