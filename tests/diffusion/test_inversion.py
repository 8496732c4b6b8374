import pytest
import torch
from tests.diffusion.test_sampler import ALPHAS, exact_denoiser, generators
from torch import Tensor

from dgs_lightning.diffusion.inversion import INDEX, invert
from dgs_lightning.diffusion.sampler import build_scheduler, classifier_free, draw_noise, sample
from dgs_lightning.models.dit.network import DiT


@pytest.mark.golden
@pytest.mark.parametrize(("steps", "index", "error"), [(50, 10, 0.02), (50, INDEX, 0.15), (200, 4 * INDEX, 0.04)])
def test_denoising_leads_back_to_the_inverted_latents(
    golden_dit: DiT, golden_diffusion: dict[str, Tensor], steps: int, index: int, error: float
) -> None:
    clean, y = golden_diffusion["guided_centers"], golden_diffusion["sample_y"]
    denoise = classifier_free(golden_dit, y, golden_dit.null_label, scale=1, channels=3)
    noisy = invert(denoise, clean, steps=steps, index=index)
    found = sample(denoise, noisy, generators(0, 0), sampler="ddim", steps=steps, first=index)
    assert (noisy - clean).norm() > 0.4 * clean.norm()
    assert (found - clean).norm() < error * clean.norm()


def test_the_latents_have_the_distribution_of_the_step() -> None:
    clean = 2 + 0.5 * draw_noise(generators(*range(16)), (2, 16, 16))
    alpha = ALPHAS[build_scheduler("ddim", 250).timesteps[249 - 100]].float()
    noisy = invert(exact_denoiser, clean, steps=250, index=100)
    assert abs(noisy.mean() - alpha.sqrt() * 2) < 0.03
    assert abs(noisy.std() - (alpha * 0.25 + 1 - alpha).sqrt()) < 0.03


def test_each_step_tells_the_network_the_timestep_that_its_inverse_tells() -> None:
    told: dict[str, list[int]] = {"inverted": [], "denoised": []}

    def listen(to: str, x: Tensor, t: Tensor) -> Tensor:
        told[to].extend(t.tolist())
        return torch.zeros_like(x)

    latent = torch.ones(1, 1, 2, 2)
    noisy = invert(lambda x, t: listen("inverted", x, t), latent)
    sample(lambda x, t: listen("denoised", x, t), noisy, generators(0), sampler="ddim", first=INDEX)
    assert told["inverted"] == told["denoised"][::-1]
    assert (told["inverted"][0], told["inverted"][-1], len(told["inverted"])) == (19, 639, 32)
