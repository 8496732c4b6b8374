"""Guidance by gradients through decoder and denoiser: influence and deviation (IGD), and a classifier's probability."""

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dgs_lightning.diffusion.guidance import StepState
from dgs_lightning.diffusion.objective import linear_alphas_cumprod, predict_x0
from dgs_lightning.matching.distances import EPSILON

STRENGTH = 0.0015  # of the influence beside its scale k, as published
REMEMBERED = 64  # finished latents of a class that its next image is compared with
PUBLISHED_VALUES = 4 * 32 * 32  # of the latent that the published deviation scales are meant for
LEAST_COSINE = 0.7  # above it, two checkpoints tell the same
FIRST, LAST = 45, 30  # respaced indices of the first and the last guided step of 50

Logits = Callable[[Tensor, Tensor], Tensor]  # parameters as one vector (P,), images (B, C, H, W) -> (B, classes)
ImageGradient = Callable[[Tensor, slice], Tensor]  # images of some rows of the batch -> gradient over them


def cosine(first: Tensor, second: Tensor) -> Tensor:
    """Cosines over the last dimension. 1e-6 stands beside the product of the norms, so that zero has cosine 0."""
    norms: Tensor = first.norm(dim=-1) * second.norm(dim=-1)
    return (first * second).sum(-1) / (norms + EPSILON)


# ---- influence -------------------------------------------------------------------------------------------------------


def influence_losses(generated: Tensor, real: Tensor) -> Tensor:
    r"""Influence loss of each checkpoint, :math:`(1 - \cos(g_k, r_k)) / K`; their sum is the influence loss.

    Chen et al., "Influence-Guided Diffusion for Dataset Distillation" (IGD), ICLR 2025.

    Args:
        generated: Gradients :math:`g_k` over the parameters of K checkpoints on generated images, shape ``(K, P)``.
        real: Gradients :math:`r_k` on real images, of the same shape.
    """
    return (1 - cosine(generated, real)) / len(real)


def parameter_gradient(
    images: Tensor, classes: Tensor, parameters: Tensor, logits: Logits, create_graph: bool = False
) -> Tensor:
    """Gradient of the mean cross-entropy of images over the parameters of a classifier, shape ``(P,)``.

    Args:
        images: Images, shape ``(B, C, H, W)``.
        classes: Their classes, shape ``(B,)``.
        parameters: All parameters as one vector, shape ``(P,)``.
        logits: The classifier.
        create_graph: Whether the result can be differentiated again.
    """
    parameters = parameters.detach().requires_grad_()
    loss = F.cross_entropy(logits(parameters, images), classes)
    return torch.autograd.grad(loss, parameters, create_graph=create_graph)[0]


def influence_gradient(
    image: Tensor, label: int, checkpoints: Iterable[Tensor], real: Tensor, logits: Logits
) -> tuple[Tensor, Tensor]:
    """Gradient of the influence loss over one image, one checkpoint after the other.

    Args:
        image: The image, shape ``(1, C, H, W)``.
        label: Its class, as a position in the logits.
        checkpoints: Parameters of each checkpoint of a classifier's training, K vectors of shape ``(P,)``.
        real: Gradient of real images of the class at each checkpoint, shape ``(K, P)``.
        logits: The classifier.

    Returns:
        The gradient, in the shape of the image, and the loss as a scalar.
    """
    image = image.detach().requires_grad_()
    classes = torch.tensor([label], device=image.device)
    gradient, loss = torch.zeros_like(image), torch.zeros((), device=image.device)
    for parameters, target in zip(checkpoints, real, strict=True):
        own = parameter_gradient(image, classes, parameters, logits, create_graph=True)
        part = influence_losses(own[None], target[None]).sum() / len(real)
        gradient += torch.autograd.grad(part, image)[0]
        loss += part.detach()
    return gradient, loss


def influence_weight(noise: Tensor, gradient: Tensor, alpha: Tensor) -> Tensor:
    r"""Weight of the influence, by which the shift has the same size for any size of the gradient.

    .. math:: \rho = 0.0015 \sqrt{1 - \bar\alpha_t} \, \mathrm{RMS}(\epsilon) / \mathrm{RMS}(G)

    Args:
        noise: Predicted noise :math:`\epsilon`, shape ``(B, C, h, w)``.
        gradient: Gradient G of the influence loss over the noisy latents, of the same shape.
        alpha: :math:`\bar\alpha_t`, scalar.

    Returns:
        Shape ``(B, 1, 1, 1)``. The root mean squares are those of each image.
    """
    rms_noise, rms_gradient = (values.square().mean((1, 2, 3), keepdim=True).sqrt() for values in (noise, gradient))
    floor = torch.finfo(gradient.dtype).tiny  # an image without gradient is not shifted
    return STRENGTH * (1 - alpha).sqrt().to(noise) * rms_noise / rms_gradient.clamp_min(floor)


def chosen_checkpoints(gradients: Iterable[Tensor], least: float = LEAST_COSINE) -> list[int]:
    """Checkpoints of a training that tell something new about the real images, by their positions.

    The first one is kept. Then each is kept at which the cosine with the gradients of the last one that was kept, as a
    mean over the classes, is below ``least``.

    Args:
        gradients: Gradients of each class at each checkpoint in turn, shape ``(classes, P)``.
        least: Cosine below which a checkpoint is kept; 0.7 is published.
    """
    kept: list[int] = []
    last: Tensor | None = None
    for position, current in enumerate(gradients):
        if last is None or float(cosine(current, last).mean()) < least:
            kept.append(position)
            last = current
    return kept


# ---- deviation -------------------------------------------------------------------------------------------------------


def nearest(latent: Tensor, memory: Tensor) -> int:
    """Position of the latent of largest cosine in a memory.

    Args:
        latent: Latent, shape ``(C, h, w)``.
        memory: Other latents, shape ``(M, C, h, w)``.
    """
    return int(cosine(latent.flatten(), memory.flatten(1)).argmax())


def deviation_gradient(latent: Tensor, memory: Tensor) -> Tensor:
    """Gradient over a noisy latent of its cosine with the nearest of the finished latents of its class (IGD).

    Args:
        latent: Noisy latent, shape ``(C, h, w)``.
        memory: Finished latents, shape ``(M, C, h, w)``; with none, the gradient is zero.
    """
    if not len(memory):
        return torch.zeros_like(latent)
    other = memory[nearest(latent, memory)].flatten()
    latent = latent.detach().requires_grad_()
    return torch.autograd.grad(cosine(latent.flatten(), other), latent)[0]


def deviation_scale(scale: float, shape: Sequence[int]) -> float:
    """A published deviation scale, such as 120 for latents of 4 x 32 x 32, for latents of another shape.

    The gradient of a cosine falls as one over the number of values, and its shift stays of the same size if the scale
    does, too: 120 becomes 120 / 4 at 4 x 16 x 16, and 120 / 64 at 1 x 8 x 8.
    """
    return scale * math.prod(shape) / PUBLISHED_VALUES


# ---- through decoder and denoiser ------------------------------------------------------------------------------------


def gradients_on() -> AbstractContextManager[object]:
    """Let a guidance take gradients within a denoising that takes none."""
    with ExitStack() as contexts:
        contexts.enter_context(torch.inference_mode(False))
        contexts.enter_context(torch.enable_grad())
        return contexts.pop_all()


@dataclass(frozen=True)
class GradientPath:
    """The way from noisy latents to images, along which a gradient over images goes back to the latents.

    Args:
        predict: Predicted noise of noisy latents at a timestep, those of some rows of the batch, without the values for
            sigma. Classifier-free guidance is part of it.
        decode: Images ``(B, C, H, W)`` in [-1, 1] of clean latents.
        chunk: Images whose gradients are taken at a time. Memory grows with it.
    """

    predict: Callable[[Tensor, int, slice], Tensor]
    decode: Callable[[Tensor], Tensor]
    chunk: int = 1

    def gradient(self, state: StepState, on_images: ImageGradient) -> tuple[Tensor, Tensor]:
        """Gradient over the noisy latents of a step, and the predicted noise, both of shape ``(B, C, h, w)``.

        ``on_images`` gives the gradient over the images that are predicted at this step.
        """
        alpha = linear_alphas_cumprod()[state.timestep]
        gradients, noises = [], []
        for start in range(0, len(state.latent), self.chunk):
            rows = slice(start, start + self.chunk)
            latent = state.latent[rows].clone().requires_grad_()
            noise = self.predict(latent, state.timestep, rows)
            images = self.decode(predict_x0(latent, noise, alpha))
            pulled = on_images(images.detach(), rows).to(images)
            gradients.append(torch.autograd.grad(images, latent, pulled)[0])
            noises.append(noise.detach())
        return torch.cat(gradients), torch.cat(noises)


@dataclass(frozen=True)
class InfluenceShift:
    r"""The guidance of IGD (Chen et al., ICLR 2025).

    .. math:: z_{t-1} = u - \gamma D - \rho k G

    u is the result of the ordinary step, D is :func:`deviation_gradient`, G the gradient of the influence loss over
    the noisy latents, and :math:`\rho` is :func:`influence_weight`.

    Args:
        path: From noisy latents to images.
        influence: Gradient of the influence loss over images.
        memories: Finished latents of the class of each image, B tensors of shape ``(M, C, h, w)``.
        scale: k, that of the influence; with 0, no gradient goes through the denoiser.
        deviation_scale: :math:`\gamma` for latents of this shape.
            :func:`~dgs_lightning.diffusion.influence.deviation_scale` computes it from a published one.
        first: Respaced index of the first guided step, from 49 down to 0.
        last: Respaced index of the last guided step.
    """

    path: GradientPath
    influence: ImageGradient
    memories: Sequence[Tensor]
    scale: float = 5.0
    deviation_scale: float = 120.0
    first: int = FIRST
    last: int = LAST

    def __call__(self, state: StepState) -> Tensor | None:
        """Shift of the step, shape ``(B, C, h, w)``."""
        if not self.last <= state.index <= self.first:
            return None
        with gradients_on():
            away = [deviation_gradient(z.clone(), m.clone()) for z, m in zip(state.latent, self.memories, strict=True)]
            shift = -self.deviation_scale * torch.stack(away)
            if self.scale:
                gradient, noise = self.path.gradient(state, self.influence)
                rho = influence_weight(noise, gradient, linear_alphas_cumprod()[state.timestep])
                shift = shift - self.scale * rho * gradient
        return shift


def log_probability_gradient(images: Tensor, classes: Tensor, logits: Callable[[Tensor], Tensor]) -> Tensor:
    r"""Gradient of :math:`\log q(y \mid x)` over images, in their shape.

    Args:
        images: Images x, shape ``(B, ...)``.
        classes: Their classes y, shape ``(B,)``.
        logits: The classifier q.
    """
    images = images.detach().requires_grad_()
    loss = F.cross_entropy(logits(images), classes, reduction="sum")
    return -torch.autograd.grad(loss, images)[0]


@dataclass(frozen=True)
class ClassifierShift:
    r"""Classifier guidance on the predicted image.

    .. math:: \hat\mu_t = \mu_t + s \, \sigma_t^2 \, \nabla_{z_t} \log q(y \mid \hat x_0(z_t))

    Dhariwal and Nichol, "Diffusion Models Beat GANs on Image Synthesis", NeurIPS 2021, Algorithm 1, with a classifier q
    of clean images in place of one of noisy images.

    Args:
        path: From noisy latents to images.
        log_probability: Gradient of the log probability of the classes over images.
        scale: s.
        first: Respaced index of the first guided step, from 49 down to 0.
        last: Respaced index of the last guided step.
    """

    path: GradientPath
    log_probability: ImageGradient
    scale: float = 1.0
    first: int = FIRST
    last: int = LAST

    def __call__(self, state: StepState) -> Tensor | None:
        """Shift of the mean of the step, shape ``(B, C, h, w)``."""
        if not self.last <= state.index <= self.first:
            return None
        with gradients_on():
            gradient, _ = self.path.gradient(state, self.log_probability)
            return self.scale * state.sigma.clone().square() * gradient
