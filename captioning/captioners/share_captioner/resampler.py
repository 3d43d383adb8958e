"""The resampler of Share-Captioner: learned queries read the vision tokens through one cross-attention."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from captioning.captioners.share_captioner.dimensions import ResamplerChoices


def sincos_2d(dim: int, side: int) -> Tensor:
    """Fixed positions of a square grid, (side * side, dim) float32, row by row, as MAE's `get_2d_sincos_pos_embed`:
    half of the channels for the column, half for the row; each [sin | cos] of the place times 10000^(-i / (dim /
    4))."""
    frequencies = 10_000.0 ** (-torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))
    angles = torch.arange(side, dtype=torch.float64)[:, None] * frequencies
    line = torch.cat((angles.sin(), angles.cos()), dim=1)  # (side, dim / 2)
    columns, rows = line[None].expand(side, -1, -1), line[:, None].expand(-1, side, -1)
    return torch.cat((columns, rows), dim=-1).flatten(0, 1).float()


class Resampler(nn.Module):
    """(B, N, vision width) -> (B, queries, dim); names as the published file has them. Its forward is a reconstruction:
    the shapes are those of the published file, the order of operations that of the code family it belongs to, and
    `choices` holds what neither settles."""

    def __init__(self, num_queries: int, dim: int, vision_width: int, choices: ResamplerChoices) -> None:
        super().__init__()
        self.choices = choices
        self.pos_embed = nn.Parameter(torch.empty(num_queries, dim))
        self.query = nn.Parameter(torch.empty(num_queries, dim))
        self.kv_proj = nn.Linear(vision_width, dim, bias=False)
        self.attn = nn.MultiheadAttention(dim, choices.heads, batch_first=True)
        self.ln_q, self.ln_kv, self.ln_post = (nn.LayerNorm(dim, eps=choices.ln_eps) for _ in range(3))

    def read_as(self, choices: ResamplerChoices) -> None:
        """Take other choices for the same weights."""
        self.choices = choices
        self.attn.num_heads, self.attn.head_dim = choices.heads, self.attn.embed_dim // choices.heads
        for norm in (self.ln_q, self.ln_kv, self.ln_post):
            norm.eps = choices.ln_eps

    def forward(self, vision: Tensor) -> Tensor:
        """Args: vision (B, 1 + patches, vision width), the first token being CLS."""
        if self.choices.cls == "drop":
            vision = vision[:, 1:]
        value = self.ln_kv(self.kv_proj(vision))  # (B, N, dim)
        key = value
        if self.choices.key_pos:
            num_patches = vision.shape[1] - (self.choices.cls == "keep")
            positions = self._key_positions(num_patches)
            key = torch.cat((value[:, :-num_patches], value[:, -num_patches:] + positions), dim=1)
        query = (self.ln_q(self.query) + self.pos_embed).expand(len(vision), -1, -1)
        return self.ln_post(self.attn(query, key, value, need_weights=False)[0])

    def _key_positions(self, num_patches: int) -> Tensor:
        """(patches, dim): the query grid's positions, resized to the grid of the patches."""
        side, target = math.isqrt(len(self.pos_embed)), math.isqrt(num_patches)
        if side == target:
            return self.pos_embed
        grid = self.pos_embed.float().view(1, side, side, -1).permute(0, 3, 1, 2)
        resized = F.interpolate(grid, size=(target, target), mode="bicubic", align_corners=False)
        return resized.flatten(2).squeeze(0).T.to(self.pos_embed.dtype)
