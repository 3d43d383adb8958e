"""Holds the diffusion that PixArt-Σ is trained and sampled with; others use the names below."""

from training.diffusion.loss import LossTerms, training_loss
from training.diffusion.sampler import guided, sample
from training.diffusion.schedule import NUM_TIMESTEPS, q_sample

__all__ = ["NUM_TIMESTEPS", "LossTerms", "guided", "q_sample", "sample", "training_loss"]
