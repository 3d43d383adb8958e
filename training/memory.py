"""Peak memory of a training step by formula, and the activation checkpointing that fits into a device."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from training.model import PixArt, PixArtConfig
from training.model.recompute import Keep

if TYPE_CHECKING:  # the formula needs torch alone, so that a benchmark can run where little is installed
    from schemas.training import Stage, TrainingRecipe

log = logging.getLogger(__name__)

FP32 = 4
BF16 = 2
USABLE = 0.9
"""Share of a device's memory that a prediction may fill; the rest is for the allocator's gaps and the libraries."""
GIB = 2**30


@dataclass(frozen=True)
class Peak:
    """Bytes of one process, by what they are for. `weights`, `average`, `optimizer` (CAME's state): there all the time.
    `gradients`: from the backward pass to the step's end. `casts`: bf16 copies of the weights, made by autocast and
    held by the graph. `activations`: kept by the forward pass. `working`: more of the backward pass, at its largest
    block. `update`: more of the optimizer, for its largest group. `resident`: all else on the device, such as encoders.
    `accumulating`: whether gradients of an earlier micro-batch are held during the backward pass."""

    weights: int
    average: int
    optimizer: int
    gradients: int
    casts: int
    activations: int
    working: int
    update: int
    resident: int = 0
    accumulating: bool = False

    @property
    def total(self) -> int:
        """The larger of two moments: the start of the backward pass, and the optimizer's step."""
        always = self.weights + self.average + self.optimizer + self.resident
        backward = self.casts + self.activations + self.working
        return always + max(backward + self.gradients * self.accumulating, self.gradients + self.update)


def kept_per_token(config: PixArtConfig, layer: int, keep: Keep, element: int) -> float:
    """Bytes of one block's activations per image token that live until the backward pass. The residual stream, the
    norms and what they are multiplied with are fp32; what matrix products and attention read and write has `element`
    bytes. Four norm statistics and two of attention per head are fp32."""
    c, ratio = config.hidden_size, config.kv_ratio(layer)
    if keep == "full":
        return FP32 * c  # the block's input
    statistics = 2 * FP32 * config.num_heads  # log-sum-exp of both attentions
    compressed = 2 * element * c / ratio**2 if ratio > 1 else 0.0  # keys and values after the convolution
    if keep == "selective":
        # The input; qkv 3, attention 1 and its projection 1, the same of cross-attention with q alone 3, MLP 4 + 1.
        return FP32 * c + 13 * element * c + statistics + compressed
    norms = 2 * (2 * FP32 * c + 2 * FP32)  # input and output of both, mean and deviation
    # Inputs of qkv, q and fc1 3; qkv 3; both attentions 2, projection 1; q 1; fc1 4, GELU 4, fc2 1.
    products: float = 19 * element * c
    if ratio > 1:
        products += 2 * element * c + compressed + 2 * FP32 * c / ratio**2  # before, after, after the norm
    return norms + products + statistics


def activations(config: PixArtConfig, grid: tuple[int, int], text_tokens: int, keep: Keep, element: int) -> float:
    """Bytes per picture that the forward pass keeps; `text_tokens` is the longest caption of its batch."""
    c, tokens = config.hidden_size, grid[0] * grid[1]
    image = sum(kept_per_token(config, layer, keep, element) for layer in range(config.depth)) * tokens
    image += (2 * FP32 + element) * c * tokens  # the last layer: its norm's input and output, the cast
    cross_keys = 0 if keep == "full" else 2 * element * c * text_tokens * config.depth
    projection = text_tokens * element * (config.caption_channels + 3 * c)
    return image + cross_keys + projection


def working(config: PixArtConfig, grid: tuple[int, int], keep: Keep, element: int) -> float:
    """Bytes per picture that one block's backward pass holds in addition to what was kept."""
    c, tokens = config.hidden_size, grid[0] * grid[1]
    again = 0.0
    if keep != "none":
        kept = [kept_per_token(config, layer, keep, element) for layer in range(config.depth)]
        whole = [kept_per_token(config, layer, "none", element) for layer in range(config.depth)]
        again = max(a - b for a, b in zip(whole, kept, strict=True))
    # Gradients of the residual stream (fp32), of the MLP's output 1 and of its inner width 4: where that is made
    # for the GELU's input, the GELU's output is free already.
    return (again + FP32 * c + 5 * element * c) * tokens


def predict(
    config: PixArtConfig,
    grid: tuple[int, int],
    text_tokens: int,
    batch: int,
    keep: Keep,
    *,
    bf16: bool = True,
    average: bool = True,
    accumulating: bool = False,
    resident: int = 0,
) -> Peak:
    """Peak memory of one process's training step; what is kept grows with `batch`, its pictures per forward pass.
    `grid`: (rows, columns) of image tokens. `text_tokens`: tokens of the longest caption. `average`: whether a running
    average of the weights is kept. `resident`: bytes of anything else on the device."""
    element = BF16 if bf16 else FP32
    with torch.device("meta"):
        parameters = list(PixArt(config).parameters())
    count = sum(p.numel() for p in parameters)
    cast = sum(p.numel() for p in parameters if p.dim() > 1)  # biases weigh nothing
    return Peak(
        weights=FP32 * count,
        average=FP32 * count * average,
        optimizer=FP32 * came_state(parameters),
        gradients=FP32 * count,
        casts=BF16 * cast if bf16 else 0,
        activations=int(batch * activations(config, grid, text_tokens, keep, element)),
        working=int(batch * working(config, grid, keep, element)),
        update=3 * FP32 * largest_update(parameters),
        accumulating=accumulating,
        resident=resident,
    )


def came_state(parameters: Iterable[Tensor]) -> int:
    """Numbers in CAME's state: the update's mean, and rows and columns of two squares."""
    total = 0
    for p in parameters:
        total += p.numel()
        total += 2 * (p.numel() // p.shape[-1] + p.numel() // p.shape[-2]) if p.dim() > 1 else p.numel()
    return total


def largest_update(parameters: Iterable[Tensor]) -> int:
    """Numbers in the largest tensor that CAME computes with: on a GPU it updates all tensors of a shape at once."""
    sizes: Counter[torch.Size] = Counter()
    for p in parameters:
        sizes[p.shape] += p.numel()
    return max(sizes.values())


def fitting(recipe: TrainingRecipe, stage: Stage, model: PixArt, world_size: int) -> Keep:
    """The recipe's activation checkpointing; `auto` is the cheapest that fits the model's device, and is logged.
    Encoders and a teacher that are loaded by now are counted. On a CPU `auto` is `none`."""
    if recipe.activation_checkpointing != "auto":
        return recipe.activation_checkpointing
    device = next(model.parameters()).device
    if device.type != "cuda":
        return "none"
    knobs = recipe.data_of(stage)
    pictures = knobs.batch // world_size
    per_pass = min(pictures, knobs.micro_batch or pictures) * knobs.timesteps_per_image
    side = stage.resolution // recipe.model.patch_px
    held = sum(p.numel() for p in model.parameters()) * FP32 * (1 + recipe.ema.enabled)
    budget = USABLE * torch.cuda.get_device_properties(device).total_memory
    tried = []
    keeps: tuple[Keep, ...] = ("none", "selective", "full")
    for keep in keeps:
        peak = predict(
            model.config, (side, side), recipe.text.max_tokens, per_pass, keep,
            bf16=recipe.precision == "bf16", average=recipe.ema.enabled, accumulating=per_pass < pictures,
            resident=max(0, torch.cuda.memory_allocated(device) - held),
        )  # fmt: skip
        tried.append(f"{keep} {peak.total / GIB:.1f} GiB")
        if peak.total <= budget:
            break
    log.info(
        "stage %s: activation checkpointing %s; predicted %s, usable %.1f GiB",
        stage.name, keep, ", ".join(tried), budget / GIB,
    )  # fmt: skip
    return keep
