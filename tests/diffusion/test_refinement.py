"""The refinement of CaO2, against its released code and against values worked out by hand."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from dgs_lightning.diffusion.refinement import Draw, NoiseError, noise_error, refine
from dgs_lightning.models.dit.network import DiT

VARIANTS = {  # name of the golden values -> label, what the network is told, weight of the largest error
    "released": ("null", "index", 10.0),
    "mapped_null": ("null", "mapped", 10.0),
    "mapped_class": ("class", "mapped", 10.0),
    "mapped_class_mse": ("class", "mapped", 0.0),
}


@pytest.mark.golden
@pytest.mark.parametrize("variant", VARIANTS)
def test_each_step_equals_that_of_the_release(
    generative: Callable[[str], dict[str, Tensor]], golden_dit: DiT, variant: str
) -> None:
    values = generative("cao2.npz")
    label, told, weight = VARIANTS[variant]
    y = values[f"refine_{label}"].expand(2)
    seen: list[tuple[Tensor, Tensor]] = []

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        seen.append((x, t))
        output: Tensor = golden_dit.eval().requires_grad_(False)(x, t, y)
        return output

    latents, noise = values["refine_x0"], values["refine_noise"]
    for step, index in enumerate(values["refine_steps"].T):
        draw = Draw(noise, index)
        before = values[f"refine_{variant}_latents"][:, step - 1] if step else latents
        error = noise_error(denoise, before, draw, told)  # type: ignore[arg-type]
        found = {"mse": error.mse, "linf": error.largest, "loss": error.mse + weight * error.largest}
        for name, value in found.items():
            torch.testing.assert_close(value, values[f"refine_{variant}_{name}"][:, step], rtol=1e-5, atol=0)
        draws = [Draw(noise, earlier) for earlier in values["refine_steps"].T[: step + 1]]
        after = refine(denoise, latents, draws, lr=6e-4, timestep=told, max_weight=weight)  # type: ignore[arg-type]
        expected = values[f"refine_{variant}_latents"][:, step]
        torch.testing.assert_close(after, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))
        gradient = _gradient(denoise, before, draw, told, weight)
        expected = values[f"refine_{variant}_grads"][:, step]
        torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))
    times = values["timesteps_50"].sort().values
    drawn = values["refine_steps"].T[0]
    assert torch.equal(seen[0][1], drawn if told == "index" else times[drawn])


def _gradient(denoise: Callable[[Tensor, Tensor], Tensor], at: Tensor, draw: Draw, told: str, weight: float) -> Tensor:
    latents = at.clone().requires_grad_()
    error = noise_error(denoise, latents, draw, told)  # type: ignore[arg-type]
    return torch.autograd.grad((error.mse + weight * error.largest).sum(), latents)[0]


def test_the_error_of_a_network_that_predicts_nothing_is_that_of_the_noise() -> None:
    noise = torch.tensor([[1.0, -3.0], [0.5, 0.5]]).reshape(2, 1, 1, 2)
    draw = Draw(noise, torch.tensor([0, 49]))
    error = noise_error(lambda x, t: torch.zeros_like(x), torch.ones_like(noise), draw)
    torch.testing.assert_close(error, NoiseError(torch.tensor([5.0, 0.25]), torch.tensor([3.0, 0.5])))


def test_refined_latents_do_not_depend_on_the_others_of_the_batch_and_leave_the_given_ones() -> None:
    random = torch.Generator().manual_seed(0)
    latents = torch.randn(3, 2, 4, 4, generator=random)
    draws = [Draw(torch.randn(3, 2, 4, 4, generator=random), torch.tensor([1, 5, 11])) for _ in range(4)]
    given = latents.clone()

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        return torch.tanh(x) * t[:, None, None, None] / 100

    together = refine(denoise, latents, draws, lr=0.01, max_weight=1.0)
    assert torch.equal(latents, given)
    assert not together.requires_grad
    for place in range(3):
        one = slice(place, place + 1)
        alone = [Draw(draw.noise[one], draw.step[one]) for draw in draws]
        assert torch.equal(refine(denoise, latents[one], alone, lr=0.01, max_weight=1.0), together[one])
    torch.testing.assert_close((together - latents).abs().max(), torch.tensor(0.04), rtol=0.05, atol=0)  # 4 steps
