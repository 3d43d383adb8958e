"""DPM-Solver++ (2M): noise to latents in about twenty steps, with classifier-free guidance. Lu et al., "DPM-Solver++:
Fast Solver for Guided Sampling of Diffusion Probabilistic Models", arXiv 2211.01095, algorithm 2, on times spaced
uniformly; the last step is of first order, as in PixArt-Σ's sampler."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from training.diffusion.schedule import NUM_TIMESTEPS, linear_schedule

NoiseModel = Callable[[Tensor, Tensor], Tensor]
"""(latents (B, C, h, w), timestep (B,)) -> predicted noise (B, C, h, w)."""


def guided(conditional: NoiseModel, unconditional: NoiseModel, guidance: float) -> NoiseModel:
    """Classifier-free guidance (arXiv 2207.12598): `guidance` 1 is the conditional model, 4.5 PixArt-Σ's default."""

    def predict(latents: Tensor, timestep: Tensor) -> Tensor:
        free = unconditional(latents, timestep)
        return free + guidance * (conditional(latents, timestep) - free)

    return predict


def solver_times(steps: int) -> Tensor:
    """The `steps` + 1 times of the states, float64, from 1 (pure noise) to 1 / 1000."""
    return torch.linspace(1.0, 1 / NUM_TIMESTEPS, steps + 1, dtype=torch.float64)


def log_alpha(time: Tensor) -> Tensor:
    """log sqrt(alphas_cumprod) at times in [1 / 1000, 1], linear between the schedule's points, float64."""
    table = 0.5 * linear_schedule().alphas_cumprod.log()  # entry i belongs to time (i + 1) / 1000
    position = (time * NUM_TIMESTEPS - 1).clamp(0, NUM_TIMESTEPS - 1)
    lower = position.floor().long().clamp(max=NUM_TIMESTEPS - 2)
    return table[lower].lerp(table[lower + 1], position - lower)


@torch.no_grad()
def sample(model: NoiseModel, noise: Tensor, steps: int = 20) -> Tensor:
    """Integrate from `noise` (B, C, h, w) to latents of the same shape; one model call per step. The model sees
    fractional timesteps: 999, 949.05, ... for 20 steps. Raises ValueError: fewer than one step."""
    if steps < 1:
        raise ValueError(f"{steps} sampling steps; at least 1 is needed")
    times = solver_times(steps)
    log_alphas = log_alpha(times)
    alphas = log_alphas.exp()
    sigmas = (1 - alphas.square()).sqrt()
    log_snr = log_alphas - sigmas.log()

    x, before = noise, None
    for i in range(steps):
        timestep = ((times[i] - 1 / NUM_TIMESTEPS) * NUM_TIMESTEPS).to(x.device, torch.float32).expand(len(x))
        clean = (x - float(sigmas[i]) * model(x, timestep)) / float(alphas[i])
        step = log_snr[i + 1] - log_snr[i]
        direction = clean
        if before is not None and i < steps - 1:  # second order: extrapolate from the last two predictions
            ratio = (log_snr[i] - log_snr[i - 1]) / step
            direction = clean + (clean - before) / float(2 * ratio)
        x = float(sigmas[i + 1] / sigmas[i]) * x - float(alphas[i + 1] * torch.expm1(-step)) * direction
        before = clean
    return x
