"""The loss against the published one, with its gradient."""

from __future__ import annotations

import math

import torch

from training.diffusion import q_sample, training_loss
from training.diffusion.loss import discretised_log_likelihood, normal_cdf
from training.diffusion.schedule import linear_schedule


def test_the_loss_and_its_gradient_equal_the_published_ones(published):
    case = published("iddpm_loss")
    output = case["model_output"].requires_grad_()
    terms = training_loss(output, case["x_start"], case["noise"], case["timestep"])
    tolerance = torch.where(case["timestep"] == 0, 1e-4, 1e-5)
    for name in ("mse", "vb", "loss"):
        assert ((getattr(terms, name) - case[name]).abs() < tolerance).all(), name
    terms.loss.mean().backward()
    assert output.grad is not None
    assert (output.grad - case["grad_model_output"]).abs().max() < 1e-6


def test_bound_equals_its_definition():
    """KL of two Gaussians with means built from x_t, which the implementation cancels."""
    torch.manual_seed(0)
    s = linear_schedule().to(torch.device("cpu"), torch.float32)
    x, noise, output = torch.randn(4, 2, 3, 3), torch.randn(4, 2, 3, 3), torch.randn(4, 4, 3, 3)
    t = torch.tensor([1, 50, 400, 999])
    xt = q_sample(x, t, noise)

    def column(table):
        return table[t].reshape(-1, 1, 1, 1)

    eps, v = output.chunk(2, dim=1)
    predicted = (xt - (1 - column(s.alphas_cumprod)).sqrt() * eps) / column(s.alphas_cumprod).sqrt()
    true_mean = column(s.posterior_mean_coef1) * x + column(s.posterior_mean_coef2) * xt
    mean = column(s.posterior_mean_coef1) * predicted + column(s.posterior_mean_coef2) * xt
    low, high = column(s.posterior_log_variance), column(s.betas).log()
    log_variance = (v + 1) / 2 * high + (1 - v) / 2 * low
    p = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    q = torch.distributions.Normal(true_mean, (0.5 * low).exp().expand_as(mean))
    expected = torch.distributions.kl_divergence(q, p).mean(dim=(1, 2, 3)) / math.log(2)
    assert torch.allclose(training_loss(output, x, noise, t).vb, expected, rtol=2e-3, atol=1e-5)


def test_each_head_learns_from_its_own_term():
    output = torch.randn(2, 4, 4, 4, requires_grad=True)
    terms = training_loss(output, torch.randn(2, 2, 4, 4), torch.randn(2, 2, 4, 4), torch.tensor([0, 700]))
    (of_vb,) = torch.autograd.grad(terms.vb.sum(), output, retain_graph=True)
    (of_mse,) = torch.autograd.grad(terms.mse.sum(), output)
    assert of_vb[:, :2].abs().max() == 0 and of_vb[:, 2:].abs().max() > 0
    assert of_mse[:, 2:].abs().max() == 0 and of_mse[:, :2].abs().max() > 0


def test_a_perfect_prediction_costs_nothing():
    noise = torch.randn(2, 2, 4, 4)
    output = torch.cat([noise, torch.full_like(noise, -1.0)], dim=1)  # -1: the posterior's own variance
    terms = training_loss(output, torch.randn(2, 2, 4, 4), noise, torch.tensor([3, 900]))
    assert terms.loss.abs().max() < 1e-6


def test_bins_of_all_levels_add_up_to_one():
    levels = torch.linspace(-1, 1, 256)
    mean, log_variance = torch.tensor(0.2), torch.tensor(-3.0)
    total = discretised_log_likelihood(levels, mean.expand(256), log_variance.expand(256)).exp().sum()
    assert math.isclose(total, 1, abs_tol=1e-4)
    assert torch.allclose(normal_cdf(torch.tensor([-9.0, 0.0, 9.0])), torch.tensor([0.0, 0.5, 1.0]))


def test_wild_variances_keep_gradients_finite():
    output = (torch.randn(3, 4, 2, 2) * 3).requires_grad_()
    x = torch.full((3, 2, 2, 2), 5.0)
    training_loss(output, x, torch.randn(3, 2, 2, 2), torch.tensor([0, 1, 999])).loss.sum().backward()
    assert output.grad is not None and output.grad.isfinite().all()
