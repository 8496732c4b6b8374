"""Refinement of clean latents by the noise error of a diffusion model (the second stage of CaO2)."""

from collections.abc import Iterable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from dgs_lightning.diffusion.objective import add_noise, linear_alphas_cumprod
from dgs_lightning.diffusion.sampler import Denoiser, build_scheduler, split_sigma

STEPS = 50  # denoising steps whose indices CaO2 draws
Timestep = Literal["mapped", "index"]


class Draw(NamedTuple):
    """What one step of the refinement draws."""

    noise: Tensor  # standard normal, (B, C, h, w)
    step: Tensor  # index of the denoising step that has this much noise, integers in [0, 50), (B,)


class NoiseError(NamedTuple):
    """How well a network predicts the noise of each latent."""

    mse: Tensor  # mean squared error over the latent, (B,)
    largest: Tensor  # largest absolute error of the latent, (B,)


def noise_error(denoise: Denoiser, latents: Tensor, draw: Draw, timestep: Timestep = "mapped") -> NoiseError:
    r"""Noise error (Eq. 2) at latents with the noise of a denoising step.

    With the label of the class, a lower error means a higher likelihood of the latent in the class.

    Args:
        denoise: Network output at latents and timesteps: the predicted noise, and values for sigma if learned.
        latents: Clean latents, shape ``(B, C, h, w)``.
        draw: The noise, and the step of each latent.
        timestep: What the network is told: ``mapped``, the timestep of the step, from 0 to 999; or ``index``, the
            index of the step, as CaO2's released code does although the noise is that of the timestep.
    """
    t = _timesteps().to(draw.step.device)[draw.step]
    noisy = add_noise(latents, draw.noise, linear_alphas_cumprod().to(t.device)[t])
    predicted, _ = split_sigma(denoise(noisy, t if timestep == "mapped" else draw.step), latents.shape[1])
    error = (draw.noise - predicted).flatten(1)
    return NoiseError(error.square().mean(1), error.abs().amax(1))


def refine(
    denoise: Denoiser,
    latents: Tensor,
    draws: Iterable[Draw],
    *,
    lr: float = 6e-4,
    timestep: Timestep = "mapped",
    max_weight: float = 0.0,
) -> Tensor:
    """Latents with a lower noise error (Wang et al., "CaO2", ICCV 2025, condition-aware optimisation).

    Each step of Adam lowers the mean squared error, plus ``max_weight`` times the largest error, at one draw. Adam
    computes each value on its own, so that the latents of a batch do not influence each other.

    Args:
        denoise: See :func:`noise_error`. Its label is part of it: that of the class, or none.
        latents: Clean latents, shape ``(B, C, h, w)``.
        draws: One for each step.
        lr: Learning rate of Adam.
        timestep: See :func:`noise_error`.
        max_weight: Weight of the largest error; 10 in the released code, where it is nearly all of the sum.

    Returns:
        The refined latents. Those that were given are as they were.
    """
    refined = latents.detach().clone().requires_grad_()
    adam = torch.optim.Adam([refined], lr)
    for draw in draws:
        error = noise_error(denoise, refined, draw, timestep)
        (refined.grad,) = torch.autograd.grad((error.mse + max_weight * error.largest).sum(), refined)
        adam.step()
    return refined.detach()


def _timesteps() -> Tensor:
    """Timestep of each index, shape ``(50,)``."""
    ascending: Tensor = build_scheduler("ancestral", STEPS).timesteps.flip(0)
    return ascending
