"""The Gaussian diffusion process and its training objective."""

import math
from typing import NamedTuple

import torch
from torch import Tensor


def linear_alphas_cumprod() -> Tensor:
    r"""Noise schedule of 1,000 steps, :math:`\bar\alpha_t = \prod_{s \le t} (1 - \beta_s)`.

    The variances :math:`\beta` rise linearly from 1e-4 to 0.02 (Ho et al. 2020, Section 4).

    Returns:
        Float64 of shape ``(1000,)``, because the variance of one step depends on small differences of these values.
    """
    return (1 - torch.linspace(1e-4, 2e-2, 1000, dtype=torch.float64)).cumprod(0)


def add_noise(x0: Tensor, noise: Tensor, alpha: Tensor) -> Tensor:
    r"""Add noise to latents, :math:`z_t = \sqrt{\bar\alpha_t} z_0 + \sqrt{1 - \bar\alpha_t} \epsilon` (Eq. 1).

    Args:
        x0: Clean latents, shape ``(B, C, H, W)``.
        noise: Standard normal noise of the same shape.
        alpha: :math:`\bar\alpha_t`, shape ``(B,)`` or scalar.
    """
    alpha = _beside(alpha, x0)
    return alpha.sqrt().to(x0) * x0 + (1 - alpha).sqrt().to(x0) * noise


def predict_x0(x_t: Tensor, noise: Tensor, alpha: Tensor) -> Tensor:
    r"""Predicted clean latents: Eq. 1 solved for :math:`z_0`.

    Args:
        x_t: Noisy latents, shape ``(B, C, H, W)``.
        noise: Predicted noise of the same shape.
        alpha: :math:`\bar\alpha_t`, shape ``(B,)`` or scalar.
    """
    alpha = _beside(alpha, x_t)
    return (x_t - (1 - alpha).sqrt().to(x_t) * noise) / alpha.sqrt().to(x_t)


def posterior_mean(x0: Tensor, x_t: Tensor, alpha: Tensor, previous: Tensor) -> Tensor:
    r"""Mean of :math:`q(z_s | z_t, z_0)` (Ho et al. 2020, Eq. 7).

    Args:
        x0: Clean latents, shape ``(B, C, H, W)``.
        x_t: Noisy latents of the same shape.
        alpha: :math:`\bar\alpha_t`, float64 of shape ``(B,)`` or scalar.
        previous: :math:`\bar\alpha_s` of the step before, in the same form; 1 for the first step.
    """
    alpha, previous = _beside(alpha, x0), _beside(previous, x0)
    step = alpha / previous
    of_x0 = previous.sqrt() * (1 - step) / (1 - alpha)
    of_x_t = step.sqrt() * (1 - previous) / (1 - alpha)
    return of_x0.to(x0) * x0 + of_x_t.to(x0) * x_t


def posterior_log_variance(alpha: Tensor, previous: Tensor) -> Tensor:
    r"""Log variance of :math:`q(z_s | z_t, z_0)` (Ho et al. 2020, Eq. 7), float64 of the shape of ``alpha``."""
    return ((1 - previous) / (1 - alpha) * (1 - alpha / previous)).log()


def learned_log_variance(values: Tensor, alpha: Tensor, lower: Tensor, previous: Tensor) -> Tensor:
    r"""Learned log variance, interpolated between ``lower`` and :math:`\log \beta_t` (Nichol & Dhariwal 2021, Eq. 15).

    Args:
        values: Output channels for sigma, shape ``(B, C, H, W)``. -1 gives ``lower``, 1 gives :math:`\log \beta_t`.
        alpha: :math:`\bar\alpha_t`, float64 of shape ``(B,)`` or scalar.
        lower: :func:`posterior_log_variance`, in the same form.
        previous: :math:`\bar\alpha_s` of the step before, in the same form.
    """
    upper = _beside((1 - alpha / previous).log(), values).to(values)
    lower = _beside(lower, values).to(values)
    share = (values + 1) / 2
    return share * upper + (1 - share) * lower


class TrainingTerms(NamedTuple):
    """Terms of the diffusion objective for each sample."""

    mse: Tensor  # mean squared error of the noise, (B,)
    bound: Tensor  # term of the variational bound in bits per dimension, (B,); zero if sigma is not learned
    pred_x0: Tensor  # predicted clean latents, (B, C, H, W), which the Minimax criteria compare


def training_terms(output: Tensor, x0: Tensor, noise: Tensor, t: Tensor, alphas_cumprod: Tensor) -> TrainingTerms:
    """Noise error (Eq. 2) and variational bound of a network's output.

    The paper prints an arg max in Eq. 2; the error is minimised here. The bound trains only the learned sigma, because
    no gradient reaches the mean (Nichol & Dhariwal 2021, Section 3.1). Eq. 2 leaves the bound out, but the released
    weights were trained with it.

    Args:
        output: Network output for the noisy latents, shape ``(B, C, H, W)``, or ``(B, 2C, H, W)`` with learned sigma.
        x0: Clean latents, shape ``(B, C, H, W)``.
        noise: Noise that was added.
        t: Timesteps, integers of shape ``(B,)``.
        alphas_cumprod: :func:`linear_alphas_cumprod`, on the device of ``t``.

    Returns:
        The terms, in float32 or the type of the output, whichever is more precise.
    """
    precision = torch.promote_types(output.dtype, torch.float32)
    output, x0, noise = output.to(precision), x0.to(precision), noise.to(precision)
    pred_noise, sigma_values = output[:, : x0.shape[1]], output[:, x0.shape[1] :]
    x_t = add_noise(x0, noise, alphas_cumprod[t])
    mse = (pred_noise - noise).square().flatten(1).mean(1)
    bound = torch.zeros_like(mse)
    if sigma_values.numel():
        bound = variational_bound(pred_noise.detach(), sigma_values, x0, x_t, t, alphas_cumprod)
    return TrainingTerms(mse, bound, predict_x0(x_t, pred_noise, alphas_cumprod[t]))


def variational_bound(
    pred_noise: Tensor, sigma_values: Tensor, x0: Tensor, x_t: Tensor, t: Tensor, alphas_cumprod: Tensor
) -> Tensor:
    """Term of the variational bound at timestep ``t`` in bits per dimension, shape ``(B,)`` (Ho et al. 2020, Eq. 5).

    The term is the divergence of the posterior from the model's step. At ``t = 0`` it is the negative log-likelihood
    of the data in bins (their Eq. 13). The variance of the posterior is zero at the first step; that of the second step
    is used instead.
    """
    previous = torch.cat([alphas_cumprod.new_ones(1), alphas_cumprod[:-1]])
    second = t.clamp(min=1)
    lower = posterior_log_variance(alphas_cumprod[second], previous[second])
    alpha, before = alphas_cumprod[t], previous[t]
    log_variance = learned_log_variance(sigma_values, alpha, lower, before)
    mean = posterior_mean(predict_x0(x_t, pred_noise, alpha), x_t, alpha, before)
    true_mean = posterior_mean(x0, x_t, alpha, before)
    divergence = gaussian_kl(true_mean, _beside(lower, x0).to(x0), mean, log_variance)
    likelihood = -discretised_log_likelihood(x0, mean, log_variance / 2)
    nats = torch.where(_beside(t == 0, x0), likelihood, divergence)
    return nats.flatten(1).mean(1) / math.log(2)


def gaussian_kl(mean: Tensor, log_variance: Tensor, other_mean: Tensor, other_log_variance: Tensor) -> Tensor:
    """Kullback-Leibler divergence of one normal distribution from another, elementwise, in nats."""
    ratio = log_variance - other_log_variance
    return (ratio.exp() - 1 - ratio + (mean - other_mean).square() * (-other_log_variance).exp()) / 2


def discretised_log_likelihood(x: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """Log probability of a normal distribution in the bin of width 2/255 around ``x``, elementwise.

    The outermost bins reach to infinity (Ho et al. 2020, Eq. 13). The cumulative distribution is approximated by tanh,
    because the published weights were trained with this approximation.
    """
    inverse = (-log_scale).exp()
    above = _normal_cdf(inverse * (x - mean + 1 / 255))
    below = _normal_cdf(inverse * (x - mean - 1 / 255))
    above = torch.where(x > 0.999, 1.0, above)
    below = torch.where(x < -0.999, 0.0, below)
    return (above - below).clamp(min=1e-12).log()


def _normal_cdf(x: Tensor) -> Tensor:
    return (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2


def _beside(per_sample: Tensor, like: Tensor) -> Tensor:
    """A scalar, or one value for each sample, in a shape that broadcasts over ``like``."""
    return per_sample.reshape(-1, *[1] * (like.ndim - 1))
