"""The boxes of the PixArt-Σ figure: self-attention with KV compression, cross-attention, MLP, block, final layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.model.padding import Packing


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return torch.addcmul(shift, x, 1 + scale)  # (B, N, C), (B, 1, C), (B, 1, C)


class SelfAttention(nn.Module):
    """Multi-head self-attention; with `kv_ratio` R > 1 keys and values are compressed to N / R² tokens. Compression is
    one depthwise R x R convolution of stride R followed by one LayerNorm, both shared by keys and values and applied
    before the split into heads. Queries keep every token. Odd token grids lose their last row or column to the
    stride."""

    def __init__(self, hidden_size: int, num_heads: int, kv_ratio: int = 1) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.kv_ratio = kv_ratio
        self.qkv = nn.Linear(hidden_size, 3 * hidden_size)
        self.proj = nn.Linear(hidden_size, hidden_size)
        if kv_ratio > 1:
            self.sr = nn.Conv2d(hidden_size, hidden_size, kv_ratio, stride=kv_ratio, groups=hidden_size)
            self.norm = nn.LayerNorm(hidden_size, eps=1e-5)
            self.initialise_compression()

    @torch.no_grad()
    def initialise_compression(self) -> None:
        """Conv-Avg-Init: the convolution averages, the norm is plain. Nothing to do without compression. Not the
        identity even so: the norm standardises keys and values."""
        if self.kv_ratio > 1:
            self.sr.weight.fill_(1 / self.kv_ratio**2)
            assert self.sr.bias is not None
            self.sr.bias.zero_()
            self.norm.reset_parameters()

    def compress(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        batch, _, channels = tokens.shape
        image = tokens.transpose(1, 2).reshape(batch, channels, *grid)  # (B, C, rows, columns)
        return self.norm(self.sr(image).flatten(2).transpose(1, 2))  # (B, N/R², C)

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        batch, _, channels = x.shape  # (B, N, C)
        q, k, v = self.qkv(x).chunk(3, dim=-1)  # 3 x (B, N, C)
        if self.kv_ratio > 1:
            k, v = self.compress(torch.cat([k, v]), grid).chunk(2)  # 2 x (B, N/R², C)
        q, k, v = (t.reshape(batch, -1, self.num_heads, channels // self.num_heads).transpose(1, 2) for t in (q, k, v))
        x = F.scaled_dot_product_attention(q, k, v)  # (B, heads, N, C/heads)
        return self.proj(x.transpose(1, 2).reshape(batch, -1, channels))


class CrossAttention(nn.Module):
    """Image tokens attend to the caption's valid tokens; padding has no influence and costs no matrix product."""

    def __init__(self, hidden_size: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q_linear = nn.Linear(hidden_size, hidden_size)
        self.kv_linear = nn.Linear(hidden_size, 2 * hidden_size)
        self.proj = nn.Linear(hidden_size, hidden_size)

    def forward(self, x: Tensor, caption: Tensor, packing: Packing | None) -> Tensor:
        batch, _, channels = x.shape  # x (B, N, C), caption (T, C), or (B, L, C) where nothing is packed
        q, kv, mask = self.q_linear(x), self.kv_linear(caption), None
        if packing is not None:
            kv = packing.pad(kv, batch)  # (B, K, 2C)
            mask = None if packing.keys is None else packing.keys[:, None, None]  # (B, 1, 1, K)
        k, v = kv.chunk(2, dim=-1)
        q, k, v = (t.reshape(batch, -1, self.num_heads, channels // self.num_heads).transpose(1, 2) for t in (q, k, v))
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)  # (B, heads, N, C/heads)
        return self.proj(x.transpose(1, 2).reshape(batch, -1, channels))


class Mlp(nn.Module):
    """Two linear layers around a tanh GELU."""

    def __init__(self, hidden_size: int, inner_size: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(hidden_size, inner_size)
        self.fc2 = nn.Linear(inner_size, hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class Block(nn.Module):
    """One transformer block with adaLN-single: its own table is added to the modulation all blocks share."""

    def __init__(self, hidden_size: int, num_heads: int, mlp_ratio: float, kv_ratio: int) -> None:
        super().__init__()
        self.scale_shift_table = nn.Parameter(torch.randn(6, hidden_size) / hidden_size**0.5)
        self.norm1 = nn.LayerNorm(hidden_size, elementwise_affine=False, eps=1e-6)
        self.attn = SelfAttention(hidden_size, num_heads, kv_ratio)
        self.cross_attn = CrossAttention(hidden_size, num_heads)
        self.norm2 = nn.LayerNorm(hidden_size, elementwise_affine=False, eps=1e-6)
        self.mlp = Mlp(hidden_size, int(hidden_size * mlp_ratio))

    def forward(
        self, x: Tensor, caption: Tensor, modulation: Tensor, packing: Packing | None, grid: tuple[int, int]
    ) -> Tensor:
        # x (B, N, C), caption (T, C) or (B, L, C), modulation (B, 6, C)
        shift_attn, scale_attn, gate_attn, shift_mlp, scale_mlp, gate_mlp = (self.scale_shift_table + modulation).chunk(
            6, dim=1
        )  # 6 x (B, 1, C)
        x = x + gate_attn * self.attn(modulate(self.norm1(x), shift_attn, scale_attn), grid)
        x = x + self.cross_attn(x, caption, packing)  # no norm before, no gate after
        return x + gate_mlp * self.mlp(modulate(self.norm2(x), shift_mlp, scale_mlp))


class FinalLayer(nn.Module):
    """Tokens -> patches, modulated by the timestep vector itself (not by the shared six)."""

    def __init__(self, hidden_size: int, patch_channels: int) -> None:
        super().__init__()
        self.scale_shift_table = nn.Parameter(torch.randn(2, hidden_size) / hidden_size**0.5)
        self.norm_final = nn.LayerNorm(hidden_size, elementwise_affine=False, eps=1e-6)
        self.linear = nn.Linear(hidden_size, patch_channels)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        shift, scale = (self.scale_shift_table + t[:, None]).chunk(2, dim=1)  # 2 x (B, 1, C)
        return self.linear(modulate(self.norm_final(x), shift, scale))  # (B, N, p * p * 2 * C_latent)
