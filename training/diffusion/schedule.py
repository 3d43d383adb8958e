"""The linear noise schedule of 1000 steps (Ho et al. 2020, arXiv 2006.11239) and the forward process."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

NUM_TIMESTEPS = 1000
BETA_FIRST = 1e-4
BETA_LAST = 0.02


@dataclass(frozen=True)
class Schedule:
    """Tables over t = 0..999, computed in float64, where 1 - alphas_cumprod keeps its digits."""

    betas: Tensor
    """Variance added by step t."""
    alphas_cumprod: Tensor
    """Share of the signal's variance left after step t."""
    signal: Tensor
    """x_t = signal * x_0 + sigma * noise; the squares of the two add up to 1."""
    sigma: Tensor
    posterior_log_variance: Tensor
    """Log variance of q(x_{t-1} | x_t, x_0); t = 0, where that is log 0, has that of t = 1."""
    posterior_mean_coef1: Tensor
    """The posterior's mean is coef1 * x_0 + coef2 * x_t."""
    posterior_mean_coef2: Tensor

    def to(self, device: torch.device, dtype: torch.dtype) -> Schedule:
        return Schedule(**{name: table.to(device, dtype) for name, table in vars(self).items()})


def linear_schedule() -> Schedule:
    """The schedule's tables in float64 on the CPU."""
    betas = torch.linspace(BETA_FIRST, BETA_LAST, NUM_TIMESTEPS, dtype=torch.float64)
    alphas = 1 - betas
    cumprod = alphas.cumprod(0)
    before = torch.cat([torch.ones(1, dtype=torch.float64), cumprod[:-1]])  # alphas_cumprod at t - 1
    variance = betas * (1 - before) / (1 - cumprod)
    return Schedule(
        betas=betas,
        alphas_cumprod=cumprod,
        signal=cumprod.sqrt(),
        sigma=(1 - cumprod).sqrt(),
        posterior_log_variance=torch.cat([variance[1:2], variance[1:]]).log(),
        posterior_mean_coef1=betas * before.sqrt() / (1 - cumprod),
        posterior_mean_coef2=alphas.sqrt() * (1 - before) / (1 - cumprod),
    )


@cache
def schedule_on(device: torch.device) -> Schedule:
    """The schedule's tables where they are used, made once."""
    return linear_schedule().to(device, torch.float32)


def at(table: Tensor, timestep: Tensor) -> Tensor:
    """Entries of a table for each sample, (B,) -> (B, 1, 1, 1)."""
    return table[timestep].reshape(-1, 1, 1, 1)


def q_sample(latents: Tensor, timestep: Tensor, noise: Tensor) -> Tensor:
    """Noise clean latents (B, C, h, w) to `timestep` (B,), whole numbers in 0..999."""
    schedule = schedule_on(latents.device)
    return at(schedule.signal, timestep) * latents + at(schedule.sigma, timestep) * noise
