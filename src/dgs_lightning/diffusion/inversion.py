"""DDIM inversion: from clean latents to the noisy latents that DDIM denoises to them."""

import torch
from torch import Tensor

from dgs_lightning.diffusion.objective import add_noise, linear_alphas_cumprod, predict_x0
from dgs_lightning.diffusion.sampler import Denoiser, build_scheduler, split_sigma

INDEX = 31  # of 50 steps, where D3HR's denoising starts: after 18 of them


@torch.no_grad()
def invert(denoise: Denoiser, latents: Tensor, *, steps: int = 50, index: int = INDEX) -> Tensor:
    """Latents at a denoising step from which DDIM leads back to these (Song et al. 2021), up to an error.

    Each step is the DDIM step that it inverts, solved for its noisy latent. The noise that the step would predict there
    is predicted at the latent before it, with the timestep of the step. With classifier-free guidance the error is
    larger.

    Args:
        denoise: Network output at latents and timesteps: the predicted noise, and values for sigma if learned.
        latents: Clean latents, shape ``(B, C, h, w)``.
        steps: Number of denoising steps.
        index: Index of the step, from ``steps - 1`` (most noise) down to 0; the argument ``first`` of
            :func:`~dgs_lightning.diffusion.sampler.sample` with the sampler ``ddim``.

    Returns:
        Noisy latents, shape ``(B, C, h, w)``.
    """
    alphas, alpha = linear_alphas_cumprod(), torch.ones((), dtype=torch.float64)
    for timestep in build_scheduler("ddim", steps).timesteps.flip(0)[: index + 1].tolist():
        output = denoise(latents, torch.full((len(latents),), timestep, device=latents.device)).to(latents.dtype)
        noise, _ = split_sigma(output, latents.shape[1])
        clean, alpha = predict_x0(latents, noise, alpha), alphas[timestep]
        latents = add_noise(clean, noise, alpha)
    return latents
