"""From noise to latents: one denoising loop for every scheduler and guidance."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from dgs_lightning.diffusion.guidance import Guidance, StepState
from dgs_lightning.diffusion.objective import (
    add_noise,
    learned_log_variance,
    linear_alphas_cumprod,
    posterior_log_variance,
    predict_x0,
)

Denoiser = Callable[[Tensor, Tensor], Tensor]  # latents (B, C, h, w), timesteps (B,) -> network output
Sampler = Literal["ancestral", "ddim", "dpm++"]
OnStep = Callable[[StepState], None]


@torch.no_grad()
def sample(
    denoise: Denoiser,
    latent: Tensor,
    generators: Sequence[torch.Generator],
    *,
    sampler: Sampler = "ancestral",
    steps: int = 50,
    first: int | None = None,
    guidance: Guidance | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """Denoise latents.

    Args:
        denoise: Network output at latents and timesteps: the predicted noise, and the values for sigma if learned.
        latent: Latents to start from, shape ``(B, C, h, w)``: standard normal noise, or those of :func:`noised`.
        generators: One for each image, so that an image draws the same noise in any batch and on any device.
        sampler: ``ancestral`` draws each step from the learned posterior (Ho et al. 2020; Nichol & Dhariwal 2021);
            ``ddim`` (Song et al. 2021) and ``dpm++`` (Lu et al. 2022) are deterministic.
        steps: Number of steps, spread over the 1,000 of training.
        first: Index of the first step; by default ``steps - 1``, so that all steps are taken.
        guidance: Shifts the mean of each step.
        on_step: Called with each step before it is taken, from index ``first`` down to 0.

    Returns:
        Clean latents, shape ``(B, C, h, w)``.

    Raises:
        ValueError: If there is no such sampler.
    """
    scheduler = build_scheduler(sampler, steps)
    timesteps = scheduler.timesteps.tolist()
    indices = range(steps - 1 if first is None else first, -1, -1)
    for index, timestep in zip(indices, timesteps[steps - len(indices) :], strict=True):
        output = denoise(latent, torch.full((len(latent),), timestep, device=latent.device)).to(latent.dtype)
        pred_noise, sigma_values = split_sigma(output, latent.shape[1])
        moving = torch.cat([pred_noise, sigma_values], 1) if sampler == "ancestral" else pred_noise
        moved = scheduler.step(moving, timestep, latent, generator=list(generators)).prev_sample
        if guidance is not None or on_step is not None:
            following = timesteps[steps - index] if index else None
            state = step_state(latent, pred_noise, sigma_values, index, timestep, following)
            if on_step is not None:
                on_step(state)
            shift = None if guidance is None else guidance(state)
            moved = moved if shift is None else moved + shift
        latent = moved
    return latent


def first_index(steps: int, strength: float) -> int:
    """Index of the first step of a start from latents with noise: ``strength`` of all steps are taken, rounded down.

    At strength 0.7, the first of 50 steps has index 34. The product is exact: 0.58 of 50 steps are 29.

    Raises:
        ValueError: If the strength takes no step, or is above 1.
    """
    taken = int(Fraction(str(strength)) * steps)
    if not 1 <= taken <= steps:
        raise ValueError(f"a strength of {strength} takes {taken} of {steps} steps")
    return taken - 1


def noised(latents: Tensor, noise: Tensor, index: int, *, sampler: Sampler = "ancestral", steps: int = 50) -> Tensor:
    """Latents with the noise of a step (Eq. 1), to start the denoising at its index.

    Args:
        latents: Clean latents, shape ``(B, C, h, w)``.
        noise: Standard normal noise of the same shape.
        index: Index of the step, from ``steps - 1`` down to 0.
        sampler: Sampler of the denoising.
        steps: Its number of steps.
    """
    timestep = build_scheduler(sampler, steps).timesteps[steps - 1 - index]
    return add_noise(latents, noise, linear_alphas_cumprod()[timestep])


def build_scheduler(sampler: Sampler, steps: int) -> Any:  # noqa: ANN401
    """Diffusers' scheduler for a sampler, set to a number of steps; the schedule is that of training.

    Raises:
        ValueError: If there is no such sampler.
    """
    if sampler not in get_args(Sampler):
        raise ValueError(f"no sampler {sampler!r}: choose one of {', '.join(get_args(Sampler))}")
    # Only here: diffusers takes a second to import.
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
    from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler

    schedule: dict[str, Any] = {"num_train_timesteps": 1000, "beta_schedule": "linear"}
    if sampler == "ancestral":
        learned = {"variance_type": "learned_range", "timestep_spacing": "linspace", "clip_sample": False}
        scheduler = DDPMScheduler(**schedule, **learned)
    else:  # DDIM is DPM-Solver++ of order 1; diffusers' DDIM is right only if the number of steps divides 1,000
        scheduler = DPMSolverMultistepScheduler(**schedule, solver_order=1 if sampler == "ddim" else 2)
    if sampler == "ddim" or (sampler == "dpm++" and steps == 1000):  # dpm++'s own spacing repeats a timestep
        scheduler.set_timesteps(timesteps=[round(1000 * (steps - taken) / steps) - 1 for taken in range(steps)])
    else:
        scheduler.set_timesteps(steps)
    return scheduler


def split_sigma(output: Tensor, channels: int) -> tuple[Tensor, Tensor]:
    """Predicted noise, and values for sigma: -1, the sigma of the posterior, if the network does not learn it."""
    pred_noise, sigma_values = output[:, :channels], output[:, channels:]
    return pred_noise, sigma_values if sigma_values.numel() else -torch.ones_like(pred_noise)


def step_state(
    latent: Tensor, pred_noise: Tensor, sigma_values: Tensor, index: int, timestep: int, following: int | None
) -> StepState:
    """State of a step to the following timestep; after the last one, to the clean latent."""
    alphas_cumprod = linear_alphas_cumprod()
    alpha = alphas_cumprod[timestep]
    sigma = torch.zeros_like(latent)  # of the last step, in which no noise is drawn
    if following is not None:
        previous = alphas_cumprod[following]
        lower = posterior_log_variance(alpha, previous)
        sigma = (learned_log_variance(sigma_values, alpha, lower, previous) / 2).exp()
    return StepState(latent, predict_x0(latent, pred_noise, alpha), sigma, index, timestep)


def classifier_free(
    model: Callable[[Tensor, Tensor, Tensor], Tensor], y: Tensor, null_label: int, scale: float, channels: int
) -> Denoiser:
    """Denoiser with classifier-free guidance (Ho & Salimans 2022). Both branches run in one batch.

    Args:
        model: Network of latents, timesteps and class indices.
        y: Class index of each image, shape ``(B,)``.
        null_label: Class index that stands for no class.
        scale: Guidance scale. At 1 there is no unconditional branch.
        channels: Number of output channels that are guided, 3 of 4 as published. The other ones stay conditional.
    """
    if scale == 1:
        return lambda x, t: model(x, t, y)
    both = torch.cat([y, torch.full_like(y, null_label)])

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        conditional, free = model(torch.cat([x, x]), torch.cat([t, t]), both).chunk(2)
        guided = free[:, :channels] + scale * (conditional[:, :channels] - free[:, :channels])
        return torch.cat([guided, conditional[:, channels:]], 1)

    return denoise


def published_channels(channels: int) -> int:
    """Number of latent channels that are guided: 3 of 4 as published, else all."""
    return 3 if channels == 4 else channels


def draw_noise(generators: Sequence[torch.Generator], shape: Sequence[int]) -> Tensor:
    """Standard normal noise ``(B, *shape)`` in float32, drawn for each image from its own CPU generator."""
    # Explicitly float32: in reduced precision, Lightning makes bfloat16 the default, whose random numbers are others.
    return torch.stack([torch.randn(tuple(shape), generator=each, dtype=torch.float32) for each in generators])
