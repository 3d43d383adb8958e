"""The exponential moving average of the weights: what is sampled from and handed to the next stage."""

from __future__ import annotations

import copy

import torch
from torch.distributed.tensor import DTensor

from schemas.training import Ema
from training.model import PixArt
from training.parallel.sharding import whole


class AveragedModel:
    """A copy of the model whose weights trail the trained ones; `model` holds them in a module of its own, in eval
    mode."""

    def __init__(self, model: PixArt, knobs: Ema) -> None:
        self._knobs = knobs
        self.model = copy.deepcopy(model).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, model: PixArt, step: int) -> None:
        """Move towards `model` after optimizer step `step`, counted from 1."""
        weight = 1 - decay_at(step, self._knobs)
        torch._foreach_lerp_(list(self.model.parameters()), list(model.parameters()), weight)

    def whole(self) -> PixArt:
        """The averaged model to call. Under FSDP a copy of whole weights, which every process must ask for."""
        if not any(isinstance(parameter, DTensor) for parameter in self.model.parameters()):
            return self.model
        model = PixArt(self.model.config).to(next(self.model.parameters()).device).eval().requires_grad_(False)
        model.load_state_dict(whole(self.model.state_dict()))
        return model


def decay_at(step: int, knobs: Ema) -> float:
    """Weight of the past at a step counted from 1; 0 where there is no average."""
    if not knobs.enabled:
        return 0.0
    return min(knobs.decay, (1 + step) / (10 + step)) if knobs.warmup else knobs.decay
