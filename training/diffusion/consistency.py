"""Latent consistency models: their function, what one learns from a teacher, and how it draws in few steps. Song et
al., "Consistency Models", arXiv 2303.01469; Luo et al., "Latent Consistency Models", arXiv 2310.04378, whose boundary
condition and schedule are used, so that weights go between this code and others."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from training.diffusion.loss import LossTerms
from training.diffusion.sampler import NoiseModel
from training.diffusion.schedule import at, q_sample, schedule_on

SIGMA_DATA = 0.5
TIMESTEP_SCALING = 10.0
"""The published constants of the boundary condition."""


def clean_of(predicted: Tensor, latents: Tensor, timestep: Tensor) -> Tensor:
    """The clean latents that a predicted noise implies."""
    schedule = schedule_on(latents.device)
    return (latents - at(schedule.sigma, timestep) * predicted) / at(schedule.signal, timestep)


def consistency(predicted: Tensor, latents: Tensor, timestep: Tensor) -> Tensor:
    """The consistency function of a model that predicts noise: clean latents, and at timestep 0 the latents themselves.
    `predicted`: (B, C, h, w), the noise in `latents`. `timestep`: (B,), whole numbers in 0..999."""
    scaled = (timestep.float() * TIMESTEP_SCALING).reshape(-1, 1, 1, 1)
    norm = (scaled.square() + SIGMA_DATA**2).sqrt()
    return (SIGMA_DATA / norm).square() * latents + scaled / norm * clean_of(predicted, latents, timestep)


def solver_step(predicted: Tensor, latents: Tensor, timestep: Tensor, end: Tensor) -> Tensor:
    """One step of DDIM (arXiv 2010.02502) along the teacher's ODE, from `timestep` to `end`."""
    return q_sample(clean_of(predicted, latents, timestep), end, predicted)


def solver_interval(timestep: Tensor, skip: int) -> tuple[Tensor, Tensor]:
    """The teacher's step of a timestep in 0..999: from a multiple of `skip` less one to its end, 0 at the lowest."""
    begin = (timestep // skip + 1) * skip - 1
    return begin, (begin - skip).clamp(min=0)


def distillation_loss(
    student: NoiseModel, target: NoiseModel, teacher: NoiseModel, latents: Tensor, noise: Tensor, timestep: Tensor,
    *, skip: int, huber: float,
) -> LossTerms:  # fmt: skip
    """Pseudo-Huber distance of the student's clean latents from the target's, one step of the teacher further, (B,). It
    is weighted by the signal left at the timestep: clean latents are the noise's error over that signal, 0.006 at 999,
    so that without the weight only the noisiest timesteps would be learnt. `teacher` gives guided noise; it and
    `target` are called without a gradient. `timestep`: (B,) whole numbers in 0..999; see `solver_interval`."""
    begin, end = solver_interval(timestep, skip)
    noised = q_sample(latents, begin, noise)
    with torch.no_grad():
        further = solver_step(teacher(noised, begin), noised, begin, end)
        wanted = consistency(target(further, end), further, end)
    difference = consistency(student(noised, begin), noised, begin) - wanted
    distance = (difference.square() + huber**2).sqrt() - huber
    loss = (distance * at(schedule_on(latents.device).signal, begin)).mean(dim=(1, 2, 3))
    return LossTerms(loss, torch.zeros_like(loss))


@torch.no_grad()
def sample_few(model: NoiseModel, start: Tensor, timesteps: Sequence[int], renoise: Callable[[int], Tensor]) -> Tensor:
    """Clean latents from pure noise (B, C, h, w), one call per falling timestep in 0..999: predict them, and noise them
    to the next. `renoise`: fresh noise like `start` for each step but the first, counted from 1."""
    latents = start
    for number, value in enumerate(timesteps):
        timestep = torch.full((len(start),), value, device=start.device)
        if number:
            latents = q_sample(latents, timestep, renoise(number))
        latents = consistency(model(latents, timestep), latents, timestep)
    return latents
