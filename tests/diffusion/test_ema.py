import pytest
import torch

from dgs_lightning.diffusion.ema import MovingAverage, decay_of_horizon


def test_the_average_starts_from_the_parameters_and_follows_them() -> None:
    weight = torch.zeros(2)
    average = MovingAverage({"weight": weight})
    for _ in range(3):
        weight.sub_(1)
        average.update(0.5)
    # 0 -> -0.5 -> -1.25 -> -2.125 while the weight goes 0, -1, -2, -3
    torch.testing.assert_close(average.averages["weight"], torch.full((2,), -2.125))


def test_an_average_goes_on_from_a_copy_of_another_one_in_the_type_of_the_parameters() -> None:
    weight, before = torch.full((2,), -4.0, dtype=torch.float64), torch.full((2,), -2.0)
    average = MovingAverage({"weight": weight}, {"weight": before})
    average.update(0.5)
    torch.testing.assert_close(average.averages["weight"], torch.full((2,), -3.0, dtype=torch.float64))
    assert torch.equal(before, torch.full((2,), -2.0))


@pytest.mark.parametrize(("horizon", "steps", "decay"), [(0.1, 50, 0.8), (0.1, 5, 0.0), (1, 4, 0.75)])
def test_a_horizon_scales_the_decay_with_the_steps(horizon: float, steps: int, decay: float) -> None:
    assert decay_of_horizon(horizon, steps) == pytest.approx(decay)
