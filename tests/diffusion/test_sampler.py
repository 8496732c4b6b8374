from collections.abc import Callable, Iterator
from typing import Literal

import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from torch import Tensor

from dgs_lightning.diffusion.guidance import ClusterGuidance, StepState
from dgs_lightning.diffusion.objective import linear_alphas_cumprod
from dgs_lightning.diffusion.sampler import (
    Sampler,
    build_scheduler,
    classifier_free,
    draw_noise,
    first_index,
    noised,
    sample,
)
from dgs_lightning.models.dit.network import DiT

ALPHAS = linear_alphas_cumprod()


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def exact_denoiser(x: Tensor, t: Tensor) -> Tensor:
    """Noise that the optimal network predicts where the data are normal with mean 2 and deviation 0.5."""
    alpha = ALPHAS[t].float().reshape(-1, 1, 1, 1)
    variance = alpha * 0.25 + 1 - alpha
    return (1 - alpha).sqrt() * (x - alpha.sqrt() * 2) / variance


class Golden:
    """The published trajectories, and the sampler run with the noises that were recorded with them."""

    def __init__(self, values: dict[str, Tensor], model: DiT, monkeypatch: pytest.MonkeyPatch) -> None:
        self.values, self.model = values, model
        self.noises: Iterator[Tensor] = iter(self.values["sample_noises"])
        name = "diffusers.schedulers.scheduling_ddpm.randn_tensor"
        monkeypatch.setattr(name, lambda *_, **__: next(self.noises))

    def run(self, guidance: "Recorder") -> Tensor:
        denoise = classifier_free(self.model, self.values["sample_y"], self.model.null_label, scale=4.0, channels=3)
        return sample(denoise, self.values["sample_xT"], generators(0, 0), guidance=guidance)


@pytest.fixture
def published(golden_diffusion: dict[str, Tensor], golden_dit: DiT, monkeypatch: pytest.MonkeyPatch) -> Golden:
    return Golden(golden_diffusion, golden_dit, monkeypatch)


class Recorder:
    """Guidance that keeps the latents it sees, and passes on what another guidance says."""

    def __init__(self, guidance: ClusterGuidance | None = None) -> None:
        self.guidance, self.latents, self.guided = guidance, list[Tensor](), 0

    def __call__(self, state: StepState) -> Tensor | None:
        self.latents.append(state.latent)
        shift = None if self.guidance is None else self.guidance(state)
        self.guided += shift is not None
        return shift


def assert_relative(found: Tensor, expected: Tensor) -> None:
    assert (found - expected).norm() <= 1e-3 * expected.norm()


@pytest.mark.golden
def test_classifier_free_guidance_equals_the_published_one(
    golden_diffusion: dict[str, Tensor], golden_dit: DiT
) -> None:
    values = golden_diffusion
    images = len(values["cfg_out"]) // 2
    denoise = classifier_free(golden_dit, torch.tensor([0, 3, 9]), golden_dit.null_label, scale=4.0, channels=3)
    with torch.no_grad():
        found = denoise(values["x"][:images], values["t"][:images])
    torch.testing.assert_close(found, values["cfg_out"][:images], rtol=1e-4, atol=1e-5)


@pytest.mark.golden
def test_the_steps_are_the_published_ones(golden_diffusion: dict[str, Tensor]) -> None:
    assert build_scheduler("ancestral", 50).timesteps.tolist() == golden_diffusion["timesteps_50"].flip(0).tolist()


@pytest.mark.golden
def test_the_trajectory_equals_the_published_one(published: Golden) -> None:
    seen = Recorder()
    final = published.run(seen)
    assert_relative(final, published.values["sample_final"])
    after = [*seen.latents[1:], final]
    assert_relative(torch.stack([after[0], after[24], after[48]]), published.values["sample_step_0_24_48"])


@pytest.mark.golden
@pytest.mark.parametrize("form", ["x0", "latent"])
@pytest.mark.parametrize(("stop", "guided"), [(0, 49), (25, 24), (50, 0)])
def test_guided_trajectories_equal_the_published_ones(
    published: Golden, form: Literal["x0", "latent"], stop: int, guided: int
) -> None:
    scale = float(published.values["guided_scale"])
    guidance = Recorder(ClusterGuidance(published.values["guided_centers"], scale, stop, form))
    assert_relative(published.run(guidance), published.values[f"guided_{form}_stop{stop}"])
    assert guidance.guided == guided


@pytest.mark.parametrize("sampler", ["ancestral", "ddim", "dpm++"])
@pytest.mark.parametrize("learned", [False, True])
def test_every_sampler_finds_the_distribution_of_an_exact_denoiser(sampler: Sampler, learned: bool) -> None:
    def denoise(x: Tensor, t: Tensor) -> Tensor:
        noise = exact_denoiser(x, t)
        return torch.cat([noise, -torch.ones_like(noise)], 1) if learned else noise

    each = generators(*range(16))
    drawn = sample(denoise, draw_noise(each, (2, 16, 16)), each, sampler=sampler, steps=250)
    assert drawn.shape == (16, 2, 16, 16)
    assert abs(drawn.mean() - 2) < 0.03
    assert abs(drawn.std() - 0.5) < 0.03


@pytest.mark.parametrize("sampler", ["ddim", "dpm++"])
@pytest.mark.parametrize("steps", [61, 334, 1000])
def test_steps_need_not_divide_the_thousand_of_training(sampler: Sampler, steps: int) -> None:
    each = generators(*range(16))
    drawn = sample(exact_denoiser, draw_noise(each, (2, 16, 16)), each, sampler=sampler, steps=steps)
    assert abs(drawn.mean() - 2) < 0.07
    assert abs(drawn.std() - 0.5) < 0.03


@pytest.mark.parametrize("sampler", ["ancestral", "ddim", "dpm++"])
@pytest.mark.parametrize("steps", [1, 61, 122, 999, 1000])
def test_every_step_has_a_timestep_of_its_own(sampler: Sampler, steps: int) -> None:
    timesteps = build_scheduler(sampler, steps).timesteps.tolist()
    assert sorted(set(timesteps), reverse=True) == timesteps
    assert len(timesteps) == steps
    assert min(timesteps) >= 0
    assert max(timesteps) < 1000


def test_ddim_is_that_of_diffusers_where_the_steps_divide_the_thousand() -> None:
    scheduler = DDIMScheduler(beta_schedule="linear", timestep_spacing="trailing", clip_sample=False)
    scheduler.set_timesteps(20)
    each = generators(0)
    latent = draw_noise(each, (2, 4, 4))
    found = sample(exact_denoiser, latent, each, sampler="ddim", steps=20)
    for timestep in scheduler.timesteps:
        latent = scheduler.step(exact_denoiser(latent, timestep[None]), timestep, latent).prev_sample
    torch.testing.assert_close(found, latent, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("sampler", ["ancestral", "ddim", "dpm++"])
def test_an_image_is_the_same_in_any_batch(sampler: Sampler) -> None:
    def run(*seeds: int) -> Tensor:
        each = generators(*seeds)
        return sample(exact_denoiser, draw_noise(each, (1, 4, 4)), each, sampler=sampler, steps=5)

    torch.testing.assert_close(run(3, 4, 5)[1:2], run(4), rtol=0, atol=1e-6)


def test_the_state_agrees_with_the_scheduler_that_takes_the_step() -> None:
    seen: list[StepState] = []

    def watch(state: StepState) -> None:
        seen.append(state)

    each = generators(0)
    latent = draw_noise(each, (1, 2, 2))
    sample(exact_denoiser, latent, each, steps=10, guidance=watch)
    scheduler = build_scheduler("ancestral", 10)
    for state in seen:
        output = exact_denoiser(state.latent, torch.tensor([state.timestep]))
        step = scheduler.step(torch.cat([output, -torch.ones_like(output)], 1), state.timestep, state.latent)
        torch.testing.assert_close(state.pred_x0, step.pred_original_sample, rtol=1e-3, atol=1e-4)
        if state.index:
            variance = scheduler._get_variance(state.timestep, variance_type="fixed_small")
            torch.testing.assert_close(state.sigma.square().mean(), variance, rtol=1e-3, atol=0)
    assert [state.index for state in seen] == list(range(9, -1, -1))
    assert not seen[-1].sigma.any()


def test_there_is_no_second_branch_at_scale_one() -> None:
    sizes = []

    def model(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        sizes.append(len(x))
        return x * y.reshape(-1, 1, 1, 1)

    x, t, y = torch.ones(3, 4, 2, 2), torch.zeros(3, dtype=torch.long), torch.tensor([1, 2, 3])
    plain = classifier_free(model, y, 10, scale=1.0, channels=4)(x, t)
    guided = classifier_free(model, y, 10, scale=3.0, channels=3)(x, t)
    assert sizes == [3, 6]
    assert plain[:, 0, 0, 0].tolist() == [1, 2, 3]
    assert guided[:, 0, 0, 0].tolist() == [10 + 3 * (1 - 10), 10 + 3 * (2 - 10), 10 + 3 * (3 - 10)]
    assert guided[:, 3, 0, 0].tolist() == [1, 2, 3]


def test_an_unknown_sampler_is_refused() -> None:
    with pytest.raises(ValueError, match="choose one of ancestral, ddim"):
        build_scheduler("euler", 10)  # type: ignore[arg-type]


@pytest.mark.parametrize("sampler", ["ancestral", "ddim", "dpm++"])
@pytest.mark.parametrize("guided", [False, True])
def test_a_listener_hears_every_step_and_changes_nothing(sampler: Sampler, guided: bool) -> None:
    latent, states = draw_noise(generators(0, 1), (1, 2, 2)), list[StepState]()
    guidance = ClusterGuidance(torch.ones_like(latent), stop_timestep=2) if guided else None
    heard = sample(
        exact_denoiser,
        latent,
        generators(0, 1),
        sampler=sampler,
        steps=6,
        guidance=guidance,
        on_step=states.append,
    )
    plain = sample(exact_denoiser, latent, generators(0, 1), sampler=sampler, steps=6, guidance=guidance)
    assert torch.equal(heard, plain)
    assert [state.index for state in states] == [5, 4, 3, 2, 1, 0]
    assert torch.equal(states[0].latent, latent)


@pytest.mark.golden
@pytest.mark.parametrize("strength", [0.5, 0.7, 1.0])
def test_a_start_from_noised_prototypes_gives_the_recorded_trajectory(
    strength: float,
    generative: Callable[[str], dict[str, Tensor]],
    golden_dit: DiT,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = generative("d4m.npz")
    index, timestep, start, final = (
        values[f"dit_s{strength * 100:.0f}_{part}"] for part in ("index", "timestep", "start", "final")
    )
    first = first_index(50, strength)
    assert first == index
    assert build_scheduler("ancestral", 50).timesteps[49 - first] == timestep
    latent = noised(values["dit_prototype"], values["dit_noise"], first)
    torch.testing.assert_close(latent, start, rtol=1e-5, atol=1e-6)
    noises = iter(values["dit_step_noise"])
    monkeypatch.setattr("diffusers.schedulers.scheduling_ddpm.randn_tensor", lambda *_, **__: next(noises))
    denoise = classifier_free(golden_dit, values["dit_labels"], golden_dit.null_label, scale=4.0, channels=3)
    found = sample(denoise, latent, generators(0, 0), first=first)
    assert (found - final).abs().max() <= 1e-4 * final.abs().max()


def test_the_steps_of_a_strength_are_counted_exactly() -> None:
    assert [first_index(50, strength) for strength in (0.02, 0.58, 0.59, 0.7, 1)] == [0, 28, 28, 34, 49]
    for strength in (0, 0.019, 1.1):
        with pytest.raises(ValueError, match=f"a strength of {strength} takes"):
            first_index(50, strength)


@pytest.mark.parametrize("sampler", ["ancestral", "ddim", "dpm++"])
def test_every_sampler_goes_on_from_a_step_in_the_middle(sampler: Sampler) -> None:
    each, states = generators(*range(16)), list[StepState]()
    clean = 2 + 0.5 * draw_noise(each, (2, 16, 16))
    latent = noised(clean, draw_noise(each, (2, 16, 16)), 49, sampler=sampler, steps=250)
    drawn = sample(exact_denoiser, latent, each, sampler=sampler, steps=250, first=49, on_step=states.append)
    assert [state.index for state in states] == list(range(49, -1, -1))
    assert abs(drawn.mean() - 2) < 0.03
    assert abs(drawn.std() - 0.5) < 0.03
    free = sample(exact_denoiser, draw_noise(each, (2, 16, 16)), each, sampler=sampler, steps=250)
    assert (drawn - clean).square().mean() < 0.9 * (free - clean).square().mean()
