"""The training loss: squared error of the noise, plus the variational bound that teaches the variance. Nichol &
Dhariwal, "Improved Denoising Diffusion Probabilistic Models", arXiv 2102.09672, hybrid objective with learned-range
variance. PixArt-Σ adds the bound unscaled, in bits."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from training.diffusion.schedule import at, schedule_on

HALF_BIN = 1 / 255
"""Half the width of an 8-bit level in [-1, 1]; the bound at t = 0 is of discrete data, latents or not."""
EDGE = 0.999
"""Beyond this a value belongs to the first or last level, whose bin is open to one side."""
SMALLEST_PROBABILITY = 1e-12


@dataclass(frozen=True)
class LossTerms:
    """Per-sample losses, each (B,) float32: `loss` = `mse` + `vb`; `vb` in bits per latent value."""

    mse: Tensor
    vb: Tensor

    @property
    def loss(self) -> Tensor:
        return self.mse + self.vb


def training_loss(model_output: Tensor, latents: Tensor, noise: Tensor, timestep: Tensor) -> LossTerms:
    """Losses of a prediction made at `q_sample(latents, timestep, noise)`.

    The bound sees the predicted noise as a constant, so it trains the variance alone, and the squared
    error trains the mean alone.

    Args:
        model_output: (B, 2C, h, w): predicted noise, then the variance's place between its two limits (-1..1).
        latents: (B, C, h, w), the clean ones.
        noise: (B, C, h, w).
        timestep: (B,) whole numbers in 0..999.
    """
    predicted, variance = model_output.float().chunk(2, dim=1)
    mse = (noise - predicted).square().mean(dim=(1, 2, 3))
    return LossTerms(mse, variational_bound(predicted.detach(), variance, latents.float(), noise.float(), timestep))


def variational_bound(predicted: Tensor, variance: Tensor, latents: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
    """Bits per latent value by which the model's reverse step misses the true one, (B,). For t > 0 this is KL(q(x_{t-1}
    | x_t, x_0) || p(x_{t-1} | x_t)). Both means are coef1 * x_0 + coef2 * x_t, the model's with the x_0 that its noise
    implies, so x_t cancels and the means differ by coef1 * sigma / signal * (noise - predicted). At t = 0 it is the
    negative log-likelihood of x_0, whose predicted mean is x_0 plus that same difference."""
    schedule = schedule_on(latents.device)
    fraction = (variance + 1) / 2
    log_upper = at(schedule.betas, timestep).log()
    log_lower = at(schedule.posterior_log_variance, timestep)
    log_variance = fraction * log_upper + (1 - fraction) * log_lower  # the model's
    shift = at(schedule.posterior_mean_coef1 * schedule.sigma / schedule.signal, timestep) * (noise - predicted)

    kl = 0.5 * (
        log_variance - log_lower - 1 + (log_lower - log_variance).exp() + shift.square() * (-log_variance).exp()
    )
    first = at(timestep == 0, torch.arange(len(timestep), device=timestep.device))  # (B, 1, 1, 1)
    # A fixed variance keeps the branch that is not taken finite: its gradient is multiplied by 0, and 0 * inf is nan.
    nll = -discretised_log_likelihood(latents, latents + shift, torch.where(first, log_variance, 0.0))
    return torch.where(first, nll, kl).mean(dim=(1, 2, 3)) / math.log(2)


def discretised_log_likelihood(x: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """Log probability of each value's 8-bit level in [-1, 1] under a Gaussian, elementwise."""
    distance = x - mean
    inverse_std = (-0.5 * log_variance).exp()
    below_upper = normal_cdf(inverse_std * (distance + HALF_BIN))
    below_lower = normal_cdf(inverse_std * (distance - HALF_BIN))
    probability = torch.where(x < -EDGE, below_upper, torch.where(x > EDGE, 1 - below_lower, below_upper - below_lower))
    return probability.clamp(min=SMALLEST_PROBABILITY).log()


def normal_cdf(x: Tensor) -> Tensor:
    """The tanh approximation of the standard normal's distribution function that the loss is defined with."""
    return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
