"""The inputs of the transformer: patches, their positions, the timestep and the caption."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.model.padding import Packing

SINUSOID_CHANNELS = 256
"""Width of the timestep sinusoid before its MLP."""


def position_table(rows: int, columns: int, channels: int, base: float, pe_interpolation: float) -> Tensor:
    """The fixed sine-cosine position embedding of a token grid, float64, (rows * columns, channels), row-major.

    Each axis is scaled by itself to the range [0, base / pe_interpolation), whatever the aspect ratio, so a
    larger grid samples the same field more densely: that is all that "position-embedding interpolation" is.
    The first half of the channels encodes the column, the second half the row; each half is [sin, cos].

    Args:
        base: tokens per side of the square training resolution.
        pe_interpolation: `image_size / 512` in PixArt-Σ: 0.5, 1, 2, 4 at 256, 512, 1024, 2048 px.
    """
    omega = 10000.0 ** (-torch.arange(channels // 4, dtype=torch.float64) / (channels // 4))  # (C/4,)

    def axis(length: int) -> Tensor:  # float32 coordinates, as the published tables have them
        position = torch.arange(length, dtype=torch.float32) / (length / base) / pe_interpolation
        angle = position.double()[:, None] * omega  # (length, C/4)
        return torch.cat([angle.sin(), angle.cos()], dim=1)  # (length, C/2)

    column = axis(columns)[None].expand(rows, -1, -1)  # (rows, columns, C/2)
    row = axis(rows)[:, None].expand(-1, columns, -1)  # (rows, columns, C/2)
    return torch.cat([column, row], dim=2).reshape(rows * columns, channels)


def timestep_sinusoid(timestep: Tensor) -> Tensor:
    """(B,) timesteps in 0..999, fractions allowed -> (B, `SINUSOID_CHANNELS`) float32, cosines first. Float32 on
    purpose: rounding the argument differently moves the published model's output by 2e-5."""
    half = SINUSOID_CHANNELS // 2
    index = torch.arange(half, dtype=torch.float32, device=timestep.device)
    angle = timestep.float()[:, None] * torch.exp(-math.log(10000.0) * index / half)
    return torch.cat([angle.cos(), angle.sin()], dim=1)


class PatchEmbedder(nn.Module):
    """Latents -> tokens: every patch through one linear map."""

    def __init__(self, in_channels: int, hidden_size: int, patch_size: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, hidden_size, patch_size, stride=patch_size)

    def forward(self, latents: Tensor) -> Tensor:
        # Laid out by token: every sum of the residual stream keeps the layout of its first term.
        return self.proj(latents).flatten(2).transpose(1, 2).contiguous()  # (B, C_latent, h, w) -> (B, N, C), row-major


class TimestepEmbedder(nn.Module):
    """Timestep -> conditioning vector: sinusoid, then a two-layer MLP with SiLU."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(SINUSOID_CHANNELS, hidden_size), nn.SiLU(), nn.Linear(hidden_size, hidden_size)
        )

    def forward(self, timestep: Tensor) -> Tensor:
        return self.from_sinusoid(timestep_sinusoid(timestep))  # (B,) -> (B, C)

    def from_sinusoid(self, sinusoid: Tensor) -> Tensor:
        first = self.mlp[0]
        assert isinstance(first, nn.Linear)
        return self.mlp(sinusoid.to(first.weight.dtype))  # (B, 256) -> (B, C)


class CaptionProjection(nn.Module):
    """Text-encoder width -> model width: two linear layers around a tanh GELU."""

    def __init__(self, caption_channels: int, hidden_size: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(caption_channels, hidden_size)
        self.fc2 = nn.Linear(hidden_size, hidden_size)

    def forward(self, caption: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(caption), approximate="tanh"))  # (B, L, cap) -> (B, L, C)


class CaptionEmbedder(nn.Module):
    """Projects captions, and holds the null caption that replaces a dropped one. `y_embedding` (max tokens, caption
    channels) is a buffer, never trained: the text encoder's answer to "", written by whoever trains or samples."""

    y_embedding: Tensor

    def __init__(self, caption_channels: int, hidden_size: int, max_tokens: int) -> None:
        super().__init__()
        self.y_proj = CaptionProjection(caption_channels, hidden_size)
        self.register_buffer("y_embedding", torch.randn(max_tokens, caption_channels) / caption_channels**0.5)

    def forward(self, caption: Tensor, drop: Tensor | None = None, packing: Packing | None = None) -> Tensor:
        """(B, L, cap) -> (B, L, C), or (T, C) if packed. Where `drop` (B,) is true, every row is the null caption's."""
        if drop is not None:
            null = self.y_embedding[: caption.shape[1]].to(caption.dtype)  # (L, cap)
            caption = torch.where(drop[:, None, None], null, caption)
        return self.y_proj(caption if packing is None else packing.pack(caption))
