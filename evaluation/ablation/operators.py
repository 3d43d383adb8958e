"""What may replace the convolution that compresses keys and values: for ablations alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from training.model import PixArt
from training.model.blocks import SelfAttention


class KeepFirst(nn.Module):
    """Token discarding: of each window of R x R tokens the one at its top left."""

    def __init__(self, ratio: int) -> None:
        super().__init__()
        self.ratio = ratio

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, rows, columns) -> (B, C, rows // R, columns // R)."""
        rows, columns = (side - side % self.ratio for side in image.shape[-2:])
        return image[..., : rows : self.ratio, : columns : self.ratio]


def compressing(model: PixArt) -> list[SelfAttention]:
    """The attentions that compress, in the order of the blocks."""
    return [module for module in model.modules() if isinstance(module, SelfAttention) and module.kv_ratio > 1]


def remodelling(operator: str, seed: int) -> Callable[[PixArt], None] | None:
    """A function that gives a model another operator: `average` or `discard` in place of the convolution, or `random`,
    the convolution as PyTorch begins one; the LayerNorm behind it stays. None for `conv`, as the model has it."""
    return None if operator == "conv" else partial(_remodel, operator=operator, seed=seed)


def _remodel(model: PixArt, operator: str, seed: int) -> None:
    torch.manual_seed(seed)
    for attention in compressing(model):
        if operator == "random":
            attention.sr.reset_parameters()
        else:  # a module without weights: of a checkpoint only the norm is read
            made = nn.AvgPool2d(attention.kv_ratio) if operator == "average" else KeepFirst(attention.kv_ratio)
            attention.sr = made  # type: ignore[assignment]
