"""Guidance by gradients through decoder and denoiser: influence, deviation, and the probability of a classifier."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dgs_lightning.diffusion.guidance import StepState
from dgs_lightning.diffusion.influence import (
    ClassifierShift,
    GradientPath,
    InfluenceShift,
    chosen_checkpoints,
    deviation_gradient,
    deviation_scale,
    influence_gradient,
    influence_losses,
    influence_weight,
    log_probability_gradient,
    nearest,
    parameter_gradient,
)
from dgs_lightning.diffusion.objective import linear_alphas_cumprod, predict_x0
from dgs_lightning.diffusion.sampler import build_scheduler, classifier_free, split_sigma
from dgs_lightning.models.dit.network import DiT

Values = dict[str, Tensor]
GUIDED = ("released", "equal_halves", "first_image", "low", "high")


def logits(parameters: Tensor, images: Tensor) -> Tensor:
    """The recorded surrogate: a 1 x 1 convolution, tanh, the mean over pixels and a linear layer."""
    w1, b1, w2, b2 = torch.split(parameters, [18, 6, 60, 10])
    hidden = torch.tanh(torch.einsum("fc,bchw->bfhw", w1.view(6, 3), images) + b1[:, None, None])
    return hidden.mean((2, 3)) @ w2.view(10, 6).T + b2


def decode(decoder: Tensor, latents: Tensor) -> Tensor:
    """The recorded decoder: a mixture of channels, twice as large."""
    mixed = torch.einsum("ij,bjhw->bihw", decoder, latents / 0.18215)
    return F.interpolate(mixed, scale_factor=2, mode="nearest")


class Step:
    """A recorded step of the small DiT."""

    def __init__(self, values: Values, name: str, model: DiT) -> None:
        own = {key.removeprefix(f"step_{name}_"): value for key, value in values.items()}
        self.values, self.own, self.index = values, own, int(own["index"])
        self.label = int(values["label"])
        self.denoise = classifier_free(model, torch.tensor([self.label]), model.null_label, scale=4.0, channels=3)
        self.timestep = int(build_scheduler("ancestral", 50).timesteps[49 - self.index])
        self.state = StepState(own["x"], own["x"], torch.ones(1), self.index, self.timestep)

    def predict(self, latent: Tensor, timestep: int, rows: slice) -> Tensor:
        return split_sigma(self.denoise(latent, torch.full((len(latent),), timestep)), 4)[0]

    def influence(self, images: Tensor, rows: slice) -> Tensor:
        checkpoints, real = self.values["checkpoints"].to(images), self.values["real_grads"].to(images)
        return influence_gradient(images, self.label, checkpoints, real, logits)[0]

    def loss(self, latent: Tensor) -> Tensor:
        """Influence loss of a noisy latent."""
        alpha = linear_alphas_cumprod()[self.timestep]
        images = decode(
            self.values["decoder"].to(latent), predict_x0(latent, self.predict(latent, self.timestep, slice(1)), alpha)
        )
        own = [
            parameter_gradient(images, torch.tensor([self.label]), p.to(latent), logits)
            for p in self.values["checkpoints"]
        ]
        return influence_losses(torch.stack(own), self.values["real_grads"].to(latent)).sum()

    @property
    def path(self) -> GradientPath:
        return GradientPath(self.predict, lambda latents: decode(self.values["decoder"].to(latents), latents))

    @property
    def memory(self) -> Tensor:
        return self.values["memory"][: int(self.own["memory_used"])]

    @property
    def shift(self) -> InfluenceShift:
        scales = float(self.own["scale"]), float(self.own["deviation_scale"])
        return InfluenceShift(self.path, self.influence, [self.memory], *scales)


def close(found: Tensor, expected: Tensor, relative: float = 1e-4) -> bool:
    return bool((found - expected).abs().max() <= relative * expected.abs().max())


@pytest.mark.golden
def test_influence_losses_and_their_gradients_are_those_recorded(generative: Callable[[str], Values]) -> None:
    values = generative("igd.npz")
    generated = values["term_generated_grads"].requires_grad_()
    losses = influence_losses(generated, values["term_real_grads"])
    torch.testing.assert_close(losses, values["term_losses"], rtol=1e-5, atol=0)
    assert close(torch.autograd.grad(losses.sum(), generated)[0], values["term_total_grad"])


@pytest.mark.golden
def test_the_deviation_is_the_gradient_of_the_largest_cosine(generative: Callable[[str], Values]) -> None:
    values = generative("igd.npz")
    latent, memory = values["deviation_latent"][0], values["deviation_memory"]
    assert nearest(latent, memory) == values["deviation_nearest"]
    assert close(deviation_gradient(latent, memory), values["deviation_grad"][0])


@pytest.mark.golden
@pytest.mark.parametrize("name", GUIDED)
def test_a_guided_step_is_the_recorded_one(name: str, generative: Callable[[str], Values], golden_dit: DiT) -> None:
    step = Step(generative("igd.npz"), name, golden_dit)
    own = step.own
    gradient, noise = step.path.gradient(step.state, step.influence)
    assert close(step.loss(own["x"]), own["influence_loss"])
    # The recorded gradient itself, in 32 bits, is up to 2.8e-4 from that of 64 bits.
    assert close(gradient, own["influence_grad"], 4e-4)
    assert close(noise.square().mean().sqrt(), own["rms_noise"])
    rho = influence_weight(noise, gradient, linear_alphas_cumprod()[step.timestep])
    assert close(rho.squeeze(), own["rho"], 4e-4)
    assert close(deviation_gradient(own["x"][0], step.memory), own["deviation_grad"][0])
    shift = step.shift(step.state)
    assert shift is not None
    assert close(own["unguided"] + shift, own["guided_single"])
    assert close(shift, own["guided_single"] - own["unguided"], 1e-3)  # of a difference of two larger numbers


@pytest.mark.golden
@pytest.mark.parametrize("name", ["below", "above"])
def test_steps_outside_of_30_to_45_are_not_guided(
    name: str, generative: Callable[[str], Values], golden_dit: DiT
) -> None:
    step = Step(generative("igd.npz"), name, golden_dit)
    assert step.shift(step.state) is None
    assert ClassifierShift(step.path, step.influence)(step.state) is None


@pytest.mark.golden
def test_the_gradient_of_a_guided_step_is_the_slope_of_its_loss(
    generative: Callable[[str], Values], golden_dit: DiT
) -> None:
    step = Step(generative("igd.npz"), "released", golden_dit.double())
    latent, h = step.own["x"].double(), 1e-5
    state = StepState(latent, latent, torch.ones(1), step.index, step.timestep)
    gradient, _ = step.path.gradient(state, step.influence)
    random = torch.Generator().manual_seed(0)
    for direction in torch.randn(3, *latent.shape, generator=random, dtype=torch.float64):
        slope = (step.loss(latent + h * direction) - step.loss(latent - h * direction)) / (2 * h)
        torch.testing.assert_close(slope.detach(), (gradient * direction).sum(), rtol=1e-5, atol=0)


def test_images_are_guided_alike_in_chunks_of_any_size_within_a_denoising_without_gradients() -> None:
    latents = torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    weight = torch.tensor([0.5, -1.0, 2.0])[:, None, None, None]  # of each image

    def shift(chunk: int) -> Tensor:
        path = GradientPath(lambda z, t, rows: z.tanh() * weight[rows], lambda x: x**2, chunk)
        guidance = InfluenceShift(path, lambda images, rows: images * weight[rows], [latents[:2]] * 3)
        found = guidance(StepState(latents, latents, torch.ones(1), 40, 800))
        assert found is not None
        return found

    whole = shift(3)
    with torch.inference_mode():
        assert torch.equal(shift(3), whole)
    torch.testing.assert_close(shift(1), whole)
    assert (whole[0] != whole[1]).all()


def test_an_image_without_gradient_and_without_memory_is_not_shifted() -> None:
    latents = torch.ones(2, 1, 2, 2)
    path = GradientPath(lambda z, t, rows: z, lambda x: x)
    guidance = InfluenceShift(path, lambda images, rows: torch.zeros_like(images), [latents[:0]] * 2)
    shift = guidance(StepState(latents, latents, torch.ones(1), 30, 600))
    assert shift is not None
    assert not shift.any()


def test_a_checkpoint_is_kept_if_its_gradients_turned_from_those_of_the_last_kept_one() -> None:
    angles = torch.tensor([0, 40, 50, 90, 100]).deg2rad()  # cosines with the last kept: 0.77; 0.64; 0.77; 0.64
    other = angles * 0.99
    turned = [torch.stack([torch.stack([a.cos(), a.sin()]) for a in pair]) for pair in zip(angles, other, strict=True)]
    assert chosen_checkpoints(turned) == [0, 2, 4]
    assert chosen_checkpoints(turned, least=0.1) == [0, 3]


@pytest.mark.parametrize(("shape", "scale"), [((4, 32, 32), 120.0), ((4, 16, 16), 30.0), ((1, 8, 8), 120 / 64)])
def test_the_deviation_scale_follows_the_number_of_values(shape: tuple[int, ...], scale: float) -> None:
    assert deviation_scale(120, shape) == scale


@pytest.mark.golden
def test_the_gradient_of_a_classifier_is_that_of_its_log_probability(generative: Callable[[str], Values]) -> None:
    values = generative("igds_derived.npz")
    weight, bias = values["weight"], values["bias"]
    gradient = log_probability_gradient(values["pred_x0"], values["labels"], lambda x: x @ weight.T + bias)
    torch.testing.assert_close(gradient, values["prototype_grad"])


def test_classifier_guidance_follows_the_variance_of_the_step() -> None:
    latent = torch.zeros(1, 1, 2, 2)
    path = GradientPath(lambda z, t, rows: torch.zeros_like(z), lambda x: x)
    alpha = linear_alphas_cumprod()[800]
    state = StepState(latent, latent, torch.tensor(0.5), 40, 800)
    shift = ClassifierShift(path, lambda images, rows: torch.ones_like(images), scale=3)(state)
    expected = 3 * 0.25 / alpha.sqrt()  # the slope of the predicted latent where no noise is predicted
    torch.testing.assert_close(shift, torch.full_like(latent, float(expected)))
