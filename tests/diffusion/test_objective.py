import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from dgs_lightning.diffusion.objective import (
    add_noise,
    discretised_log_likelihood,
    gaussian_kl,
    learned_log_variance,
    linear_alphas_cumprod,
    posterior_log_variance,
    posterior_mean,
    predict_x0,
    training_terms,
)
from dgs_lightning.models.dit.network import DiT

ALPHAS = linear_alphas_cumprod()


@pytest.mark.golden
def test_training_terms_equal_the_published_implementation(
    golden_diffusion: dict[str, Tensor], golden_dit: DiT
) -> None:
    values = golden_diffusion
    x0, noise, t = values["train_x0"], values["train_noise"], values["t"]
    with torch.no_grad():
        output = golden_dit(add_noise(x0, noise, ALPHAS[t]), t, values["y"])
    terms = training_terms(output, x0, noise, t, ALPHAS)
    torch.testing.assert_close(terms.mse, values["train_mse"], rtol=1e-4, atol=0)
    torch.testing.assert_close(terms.bound, values["train_vb"], rtol=1e-4, atol=0)
    torch.testing.assert_close(terms.mse + terms.bound, values["train_loss"], rtol=1e-4, atol=0)
    assert (terms.pred_x0 - values["train_output"]).norm() <= 1e-4 * values["train_output"].norm()


def test_the_schedule_falls_from_almost_all_signal_to_almost_none() -> None:
    assert math.isclose(ALPHAS[0], 1 - 1e-4)
    assert math.isclose(ALPHAS[1], (1 - 1e-4) * (1 - 1e-4 - 0.0199 / 999))
    assert 3e-5 < ALPHAS[-1] < 5e-5


def test_predicting_x0_inverts_adding_noise() -> None:
    x0, noise, t = torch.randn(3, 2, 4, 4), torch.randn(3, 2, 4, 4), torch.tensor([0, 300, 900])
    torch.testing.assert_close(predict_x0(add_noise(x0, noise, ALPHAS[t]), noise, ALPHAS[t]), x0, rtol=1e-4, atol=1e-4)


def test_the_posterior_is_bayes_rule_for_two_normal_steps() -> None:
    alpha, previous = ALPHAS[500], ALPHAS[479]
    step = alpha / previous
    x0, x_t = torch.tensor([[[[0.7]]]]), torch.tensor([[[[-0.3]]]])
    # prior N(sqrt(previous) x0, 1 - previous), likelihood of x_t: N(sqrt(step) x, 1 - step)
    precision = 1 / (1 - previous) + step / (1 - step)
    mean = (previous.sqrt() * x0.double() / (1 - previous) + step.sqrt() * x_t.double() / (1 - step)) / precision
    torch.testing.assert_close(posterior_mean(x0, x_t, alpha, previous).double(), mean, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(posterior_log_variance(alpha, previous), -precision.log())


def test_the_learned_variance_lies_between_the_posterior_and_the_step() -> None:
    alpha, previous = ALPHAS[500], ALPHAS[479]
    lower = posterior_log_variance(alpha, previous)
    values = torch.tensor([-1.0, 0.0, 1.0]).reshape(3, 1, 1, 1)
    low, middle, high = learned_log_variance(values, alpha, lower, previous).double().flatten()
    torch.testing.assert_close(low, lower, rtol=1e-6, atol=0)
    torch.testing.assert_close(high, (1 - alpha / previous).log(), rtol=1e-6, atol=0)
    torch.testing.assert_close(middle, (low + high) / 2)


def test_the_divergence_of_normals_equals_that_of_torch() -> None:
    p, q = Normal(torch.tensor(0.3), torch.tensor(0.5)), Normal(torch.tensor(-1.0), torch.tensor(2.0))
    found = gaussian_kl(p.mean, 2 * p.stddev.log(), q.mean, 2 * q.stddev.log())
    torch.testing.assert_close(found, kl_divergence(p, q))


def test_the_bins_of_the_likelihood_sum_to_one() -> None:
    bins = torch.linspace(-1, 1, 256)
    total = discretised_log_likelihood(bins, torch.tensor(0.2), torch.tensor(0.3).log()).exp().sum()
    torch.testing.assert_close(total, torch.tensor(1.0))


def test_the_bound_teaches_sigma_and_not_the_mean() -> None:
    output = torch.randn(4, 4, 2, 2, requires_grad=True)
    x0, noise, t = torch.randn(4, 2, 2, 2), torch.randn(4, 2, 2, 2), torch.tensor([0, 1, 500, 999])
    bound = training_terms(output, x0, noise, t, ALPHAS).bound
    (gradient,) = torch.autograd.grad(bound.sum(), output)
    assert not gradient[:, :2].any()
    assert gradient[:, 2:].abs().amin() > 0


def test_without_learned_sigma_there_is_no_bound() -> None:
    x0, noise, t = torch.randn(2, 2, 2, 2), torch.randn(2, 2, 2, 2), torch.tensor([0, 999])
    terms = training_terms(noise.bfloat16(), x0, noise, t, ALPHAS)
    assert not terms.bound.any()
    assert terms.mse.dtype == torch.float32
    torch.testing.assert_close(terms.pred_x0[0], x0[0], rtol=0, atol=1e-3)


def test_terms_keep_double_precision() -> None:
    x0, noise = torch.randn(2, 2, 2, 2, dtype=torch.float64), torch.randn(2, 2, 2, 2, dtype=torch.float64)
    terms = training_terms(torch.randn(2, 4, 2, 2, dtype=torch.float64), x0, noise, torch.tensor([0, 999]), ALPHAS)
    assert {term.dtype for term in terms} == {torch.float64}
