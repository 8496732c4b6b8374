import pytest
import torch
from tests.matching.conftest import Load, assert_golden, part

from dgs_lightning.matching.distances import (
    BY_LAYER,
    CONVOLUTIONS,
    EVERY_LAYER,
    WEIGHTS,
    gradient_distance,
    mean_embedding_distance,
    rowwise,
)

DC = {"ours": ("rowwise", WEIGHTS), "mse": ("mse", EVERY_LAYER), "cos": ("cosine", EVERY_LAYER)}
IDC = {"mse": "mse", "l1": "l1", "l1_mean": "l1_mean", "cos": "rowwise"}


def test_the_distance_of_means_is_summed_over_features() -> None:
    real, synthetic = torch.tensor([[0.0, 2.0], [2.0, 2.0]]), torch.tensor([[4.0, 2.0], [2.0, 8.0]])
    assert mean_embedding_distance(real, synthetic).item() == 4 + 9


def test_a_row_without_gradient_has_distance_one() -> None:
    real = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    assert rowwise(real, torch.ones(2, 2)).item() == pytest.approx(1, abs=1e-6)


@pytest.mark.golden
@pytest.mark.parametrize("published", DC)
def test_distances_of_dc_and_their_gradients_are_the_published_ones(published: str, values: Load) -> None:
    given = values("distances")
    real, synthetic = part(given, "real/"), part(given, "syn/")
    for gradient in synthetic.values():
        gradient.requires_grad_()
    found = gradient_distance([*real.values()], [*synthetic.values()], *DC[published])
    assert_golden(found, given[f"dc/{published}"])
    found.backward()  # type: ignore[no-untyped-call]
    for name, gradient in synthetic.items():
        expected = given[f"dc/{published}/grad/{name}"]
        if gradient.grad is None:
            assert expected == 0
        else:
            assert_golden(gradient.grad, expected)


@pytest.mark.golden
def test_the_rowwise_distance_of_each_layer_is_the_published_one(values: Load) -> None:
    given = values("distances")
    real, synthetic = part(given, "real/"), part(given, "syn/")
    for name, expected in part(given, "dc/ours/layer/").items():
        found = rowwise(real[name], synthetic[name]) if real[name].dim() in WEIGHTS else torch.tensor(0.0)
        assert_golden(found, expected)


@pytest.mark.golden
@pytest.mark.parametrize("published", IDC)
def test_distances_of_idc_are_the_published_ones(published: str, values: Load) -> None:
    given = values("distances")
    real, synthetic = part(given, "real/"), part(given, "syn/")
    for name, expected in part(given, f"idc/{published}/layer/").items():
        assert_golden(BY_LAYER[IDC[published]](real[name], synthetic[name]), expected)
    for bias, linear in ((0, 0), (0, 1), (1, 0), (1, 1)):
        layers = (*CONVOLUTIONS, *[1] * bias, *[2] * linear)
        found = gradient_distance([*real.values()], [*synthetic.values()], IDC[published], layers)
        assert_golden(found, given[f"idc/{published}/bias{bias}_fc{linear}"])
