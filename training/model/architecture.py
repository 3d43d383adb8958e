"""The architecture that a set of weights implies: depth and widths from shapes, the rest from what the file says."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from training.model.convert import KV_COMPRESSION_KEY, refuse_micro_conditioning
from training.model.embed import position_table
from training.model.layouts import NULL_CAPTION, POSITION_TABLE
from training.model.pixart import LATENT_DOWNSAMPLING, KVCompression, PixArtConfig

HEAD_DIM = 72
"""Channels per attention head of every published PixArt."""
MAX_CAPTION_TOKENS = 300
"""Assumed where the weights hold no null caption."""


_RANGES = (
    ("num_heads", int, 1, 4096),
    ("image_size", int, 1, 2**20),
    ("pe_interpolation", (int, float), 2**-10, 2**11),
)


@dataclass(frozen=True)
class Hints:
    """Knobs that the shapes of tensors do not determine; None is unknown. `image_size`: px per side of the square
    training resolution. `pe_interpolation`: image_size / 512 in PixArt-Σ, and so where None. Raises ValueError: a value
    that no model has."""

    num_heads: int | None = None
    image_size: int | None = None
    pe_interpolation: float | None = None

    def __post_init__(self) -> None:
        for name, kind, least, most in _RANGES:
            value = getattr(self, name)
            if value is not None and not (isinstance(value, kind) and least <= value <= most):
                raise ValueError(f"{name} {value!r}: is no number from {least:g} to {most}")

    def over(self, other: Hints) -> Hints:
        """These, and `other`'s where these are unknown."""
        known = {name: value for name, value in vars(self).items() if value is not None}
        return replace(other, **known)


def infer_config(weights: dict[str, Tensor], hints: Hints, origin: str) -> PixArtConfig:
    """The configuration of weights in the official layout. The number of heads is the width / 72 unless a hint says
    otherwise, and the image size is that of the stored position table. A stored table must agree with the result.
    Raises ValueError: a tensor is missing, the shapes fit no PixArt, or a hint is needed."""
    refuse_micro_conditioning(weights, origin)

    def shape(key: str, dimensions: int) -> torch.Size:
        if key not in weights:
            raise ValueError(f"{origin}: is no PixArt; missing: {key}")
        if weights[key].dim() != dimensions or 0 in weights[key].shape:
            raise ValueError(f"{origin}: is no PixArt; {key} has the shape {tuple(weights[key].shape)}")
        return weights[key].shape

    hidden_size, in_channels, patch_size, _ = shape("x_embedder.proj.weight", 4)
    mlp_width, _ = shape("blocks.0.mlp.fc1.weight", 2)
    _, caption_channels = shape("y_embedder.y_proj.fc1.weight", 2)
    null = weights.get(NULL_CAPTION)
    blocks = {int(match[1]) for key in weights if (match := re.match(r"blocks\.(\d+)\.", key))}
    num_heads = hints.num_heads or hidden_size // HEAD_DIM
    if hints.num_heads is None and hidden_size % HEAD_DIM:
        raise ValueError(f"{origin}: {hidden_size} channels do not say the number of heads; give it (--num-heads)")
    image_size = hints.image_size or _stored_image_size(weights, patch_size)
    if image_size is None:
        raise ValueError(f"{origin}: does not say its resolution; give it (--image-size, in px)")
    config = PixArtConfig(
        depth=len(blocks),
        hidden_size=hidden_size,
        num_heads=num_heads,
        caption_channels=caption_channels,
        max_caption_tokens=len(null) if null is not None else MAX_CAPTION_TOKENS,
        image_size=image_size,
        pe_interpolation=image_size / 512 if hints.pe_interpolation is None else hints.pe_interpolation,
        kv_compression=_compression(weights, origin),
        in_channels=in_channels,
        patch_size=patch_size,
        mlp_ratio=mlp_width / hidden_size,
    )
    _check_position_table(weights, config, origin)
    return config


def square_position_table(config: PixArtConfig) -> Tensor:
    """The table of the square training resolution, (1, N, C) float32: the buffer `pos_embed` of official files."""
    side = config.image_size // (LATENT_DOWNSAMPLING * config.patch_size)
    return position_table(side, side, config.hidden_size, config.base_tokens, config.pe_interpolation).float()[None]


def _stored_image_size(weights: dict[str, Tensor], patch_size: int) -> int | None:
    table = weights.get(POSITION_TABLE)
    if table is None or table.dim() != 3 or math.isqrt(table.shape[1]) ** 2 != table.shape[1]:
        return None
    return math.isqrt(table.shape[1]) * patch_size * LATENT_DOWNSAMPLING


def _compression(weights: dict[str, Tensor], origin: str) -> KVCompression | None:
    ratios = {
        int(match[1]): value.shape[-1]
        for key, value in weights.items()
        if (match := KV_COMPRESSION_KEY.fullmatch(key)) and key.endswith("sr.weight")
    }
    if not ratios:
        return None
    if len(set(ratios.values())) > 1:
        raise ValueError(f"{origin}: compresses keys and values by several ratios, {sorted(set(ratios.values()))}")
    return KVCompression(tuple(sorted(ratios)), next(iter(ratios.values())))


def _check_position_table(weights: dict[str, Tensor], config: PixArtConfig, origin: str) -> None:
    stored = weights.get(POSITION_TABLE)
    if stored is None:
        return
    expected = square_position_table(config)
    if stored.shape != expected.shape or (stored.float() - expected).abs().max() > 1e-3:
        raise ValueError(
            f"{origin}: its position table is not that of {config.image_size} px at pe_interpolation "
            f"{config.pe_interpolation:g}; give what it was trained with (--image-size, --pe-interpolation)"
        )
