from typing import Literal

import pytest
import torch

from dgs_lightning.diffusion.guidance import ClusterGuidance, Side, StepState


def state(index: int = 49) -> StepState:
    latent = torch.full((1, 1, 2, 2), 3.0)
    return StepState(latent, pred_x0=latent - 1, sigma=torch.tensor(0.5), index=index, timestep=999)


@pytest.mark.parametrize(("form", "distance"), [("x0", 8.0), ("latent", 7.0)])
def test_the_shift_is_scale_times_sigma_times_the_distance(form: Literal["x0", "latent"], distance: float) -> None:
    shift = ClusterGuidance(torch.full((1, 1, 2, 2), 10.0), scale=0.1, form=form)(state())
    torch.testing.assert_close(shift, torch.full((1, 1, 2, 2), 0.1 * 0.5 * distance))


def test_steps_are_guided_while_their_index_is_above_the_stop() -> None:
    guidance = ClusterGuidance(torch.zeros(1, 1, 2, 2), stop_timestep=25)
    assert guidance(state(index=25)) is None
    assert guidance(state(index=26)) is not None


@pytest.mark.parametrize(("guided", "steps"), [("above", [49, 24, 0]), ("below", [0, 25, 50])])
def test_of_50_steps_those_on_one_side_of_the_stop_are_guided(guided: Side, steps: list[int]) -> None:
    for stop, count in zip((0, 25, 50), steps, strict=True):
        guidance = ClusterGuidance(torch.zeros(1, 1, 2, 2), stop_timestep=stop, guided=guided)
        assert sum(guidance(state(index)) is not None for index in range(50)) == count


def test_centres_of_another_shape_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"centres of shape \(1, 1, 4, 4\) cannot guide latents of shape \(1, 1, 2, 2\)"
    ):
        ClusterGuidance(torch.zeros(1, 1, 4, 4))(state())
