"""The noise schedule: published tables and the identities between them."""

from __future__ import annotations

import torch

from training.diffusion.schedule import NUM_TIMESTEPS, linear_schedule, q_sample


def test_the_schedule_equals_the_published_one(published):
    case, schedule = published("iddpm_schedule"), linear_schedule()
    names = {
        "betas": "betas",
        "alphas_cumprod": "alphas_cumprod",
        "posterior_log_variance": "posterior_log_variance_clipped",
        "posterior_mean_coef1": "posterior_mean_coef1",
        "posterior_mean_coef2": "posterior_mean_coef2",
    }
    for ours, theirs in names.items():
        assert torch.allclose(getattr(schedule, ours), case[theirs], rtol=1e-12, atol=1e-15), ours


def test_posterior_mean_of_a_noiseless_path_is_the_path():
    """With x_t = sqrt(a_t) x_0 exactly, the posterior mean is sqrt(a_{t-1}) x_0."""
    s = linear_schedule()
    before = torch.cat([torch.ones(1, dtype=torch.float64), s.alphas_cumprod[:-1]])
    mean = s.posterior_mean_coef1 + s.posterior_mean_coef2 * s.alphas_cumprod.sqrt()
    assert torch.allclose(mean, before.sqrt(), rtol=1e-9)


def test_q_sample_equals_the_published_one(published):
    case = published("iddpm_loss")
    assert (q_sample(case["x_start"], case["timestep"], case["noise"]) - case["x_t"]).abs().max() < 1e-6


def test_variance_is_kept():
    noise, x = torch.randn(3, 1, 64, 64), torch.randn(3, 1, 64, 64)
    noised = q_sample(x, torch.tensor([0, 500, NUM_TIMESTEPS - 1]), noise)
    assert torch.allclose(noised.std(dim=(1, 2, 3)), torch.ones(3), atol=0.1)
    assert torch.allclose(noised[0], x[0], atol=0.1)
    assert torch.allclose(noised[2], noise[2], atol=0.1)
