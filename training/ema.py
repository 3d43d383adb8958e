"""The exponential moving average of the weights: what is sampled from and handed to the next stage."""

from __future__ import annotations

import copy

import torch

from schemas.training import Ema
from training.model import PixArt


class AveragedModel:
    """A copy of the model whose weights trail the trained ones.

    Attributes:
        model: the averaged weights in a module of their own, in eval mode.
    """

    def __init__(self, model: PixArt, knobs: Ema) -> None:
        self._knobs = knobs
        self.model = copy.deepcopy(model).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, model: PixArt, step: int) -> None:
        """Move towards `model` after optimizer step `step`, counted from 1."""
        weight = 1 - decay_at(step, self._knobs)
        torch._foreach_lerp_(list(self.model.parameters()), list(model.parameters()), weight)


def decay_at(step: int, knobs: Ema) -> float:
    """Weight of the past at a step counted from 1; 0 where there is no average."""
    if not knobs.enabled:
        return 0.0
    return min(knobs.decay, (1 + step) / (10 + step)) if knobs.warmup else knobs.decay
