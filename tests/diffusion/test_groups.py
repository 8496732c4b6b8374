import pytest
import torch
from torch import Generator, Tensor

from dgs_lightning.diffusion.groups import Gaussian, best_groups, fit_gaussian, group_scores
from dgs_lightning.seeding import generator


def latents(*rows: tuple[float, ...]) -> Tensor:
    """One group of latents of one channel and one row of values."""
    return torch.tensor(rows, dtype=torch.float32)[None, :, None, None]


def gaussian(mean: tuple[float, ...], std: tuple[float, ...]) -> Gaussian:
    return Gaussian(*(torch.tensor(part, dtype=torch.float32)[None, None] for part in (mean, std)))


@pytest.fixture
def drawn() -> Gaussian:
    return fit_gaussian(torch.randn(20, 2, 3, 3, generator=Generator().manual_seed(0)))


def test_the_score_of_a_group_is_that_worked_out_by_hand() -> None:
    # Mean (2, 2) against (2, 0): 2. Deviations (sqrt 2, 0) against (1, 1): sqrt(0.4142^2 + 1). No skewness.
    symmetric = group_scores(latents((1, 2), (3, 2)), gaussian((2, 0), (1, 1)))
    assert symmetric.tolist() == pytest.approx([2 + 1.0823922])
    # Of 0, 0, 3: mean 1, deviation sqrt 3 with n - 1; the third moment is 2, the variance with n is 2.
    skewed = group_scores(latents((0,), (0,), (3,)), gaussian((1,), (3**0.5,)))
    assert skewed.tolist() == pytest.approx([0.1 * 2 / 2**1.5])
    single = group_scores(latents((1.0, 4.0)), gaussian((1, 1), (0, 4)))
    assert single.tolist() == pytest.approx([3 + 4])


def test_mean_and_deviation_of_a_class_are_those_of_each_value() -> None:
    found = fit_gaussian(torch.tensor([[1.0, 5.0], [3.0, 5.0]])[:, None, None])
    assert found.mean.flatten().tolist() == [2, 5]
    assert found.std.flatten().tolist() == pytest.approx([2**0.5, 0])
    with pytest.raises(ValueError, match="1 latents have no standard deviation"):
        fit_gaussian(torch.zeros(1, 1, 2, 2))


def test_the_best_groups_are_kept_and_each_is_drawn_by_its_number(drawn: Gaussian) -> None:
    def random(number: int) -> Generator:
        return generator("group", 7, number)

    found = best_groups(drawn, 4, random, count=50, kept=3)
    every = [drawn.mean + drawn.std * torch.randn(4, 2, 3, 3, generator=random(number)) for number in range(50)]
    scores = group_scores(torch.stack(every), drawn)
    torch.testing.assert_close(found.scores, scores)
    best = sorted(range(50), key=lambda number: scores[number])[:3]
    torch.testing.assert_close(found.latents, torch.stack([every[number] for number in best]))


@pytest.mark.parametrize("values", [1, 500, 2**20])
def test_the_groups_do_not_depend_on_how_many_are_in_memory(drawn: Gaussian, values: int) -> None:
    one, other = (
        best_groups(drawn, 4, lambda number: generator(number), count=50, kept=3, **chosen)
        for chosen in ({}, {"values": values})
    )
    assert torch.equal(one.latents, other.latents)
    torch.testing.assert_close(one.scores, other.scores, rtol=1e-7, atol=0)


def test_more_groups_do_not_change_those_that_were_drawn(drawn: Gaussian) -> None:
    few, many = (best_groups(drawn, 4, lambda number: generator(number), count=count) for count in (20, 60))
    assert torch.equal(many.scores[:20], few.scores)
    assert many.scores.min() <= few.scores.min()
