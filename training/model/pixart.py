"""PixArt-Σ: a latent diffusion transformer with adaLN-single, cross-attention and KV-token compression. Chen et al.,
"PixArt-Σ: Weak-to-Strong Training of Diffusion Transformer for 4K Text-to-Image Generation", arXiv 2403.04692.
Parameter names and shapes are those of the published weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from training.model.blocks import Block, FinalLayer
from training.model.embed import CaptionEmbedder, PatchEmbedder, TimestepEmbedder, position_table, timestep_sinusoid
from training.model.padding import Packing
from training.model.recompute import Keep, run_block

LATENT_DOWNSAMPLING = 8
"""Pixels per latent cell and axis."""


@dataclass(frozen=True)
class KVCompression:
    """Which blocks compress keys and values, and by how much. `layers` are 0-based block indices; `ratio` is per axis,
    so tokens shrink by ratio². The paper's: the last 14 of 28 blocks, ratio 2."""

    layers: tuple[int, ...]
    ratio: int = 2


@dataclass(frozen=True)
class PixArtConfig:
    """The knobs of the architecture; the defaults are PixArt-Σ-XL/2 at 512 px."""

    depth: int = 28
    hidden_size: int = 1152
    num_heads: int = 16
    caption_channels: int = 4096
    max_caption_tokens: int = 300
    """Rows of the null caption; longer captions are refused by `forward`."""
    image_size: int = 512
    """Pixels per side of the square training resolution; sets the position table's base."""
    pe_interpolation: float = 1.0
    """`image_size` / 512 in PixArt-Σ."""
    kv_compression: KVCompression | None = None
    """None for none."""
    in_channels: int = 4
    """Latent channels; the output has twice as many (noise, then variance)."""
    patch_size: int = 2
    mlp_ratio: float = 4.0

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_heads:
            raise ValueError(f"hidden_size {self.hidden_size} is not divisible by num_heads {self.num_heads}")
        if self.hidden_size % 4:
            raise ValueError(f"hidden_size {self.hidden_size} is not divisible by 4, which the position table needs")
        if self.kv_compression is not None:
            outside = [i for i in self.kv_compression.layers if not 0 <= i < self.depth]
            if outside:
                raise ValueError(f"kv_compression layers {outside} are outside the model's 0..{self.depth - 1}")
            if self.kv_compression.ratio < 2:
                raise ValueError(f"kv_compression ratio {self.kv_compression.ratio} compresses nothing; use 2 or more")

    @property
    def base_tokens(self) -> float:
        """Tokens per side of the square training resolution."""
        return self.image_size / (LATENT_DOWNSAMPLING * self.patch_size)

    def kv_ratio(self, layer: int) -> int:
        return self.kv_compression.ratio if self.kv_compression and layer in self.kv_compression.layers else 1


class PixArt(nn.Module):
    """Predicts the noise in a latent, and how uncertain each reverse step is. `activation_checkpointing` may be set at
    any time; it changes memory and time, and no number."""

    def __init__(self, config: PixArtConfig) -> None:
        super().__init__()
        self.config = config
        c = config.hidden_size
        self.x_embedder = PatchEmbedder(config.in_channels, c, config.patch_size)
        self.t_embedder = TimestepEmbedder(c)
        self.t_block = nn.Sequential(nn.SiLU(), nn.Linear(c, 6 * c))
        self.y_embedder = CaptionEmbedder(config.caption_channels, c, config.max_caption_tokens)
        self.blocks = nn.ModuleList(
            Block(c, config.num_heads, config.mlp_ratio, config.kv_ratio(i)) for i in range(config.depth)
        )
        self.final_layer = FinalLayer(c, config.patch_size**2 * 2 * config.in_channels)
        self.activation_checkpointing: Keep = "none"
        self._positions: dict[tuple[int, int, torch.device, torch.dtype], Tensor] = {}
        self.initialise()

    def initialise(self) -> None:
        """The published initialisation: Xavier everywhere, cross-attention and output start at zero. The gates are not
        zero, unlike DiT's, and the patch bias keeps PyTorch's default."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        patch = self.x_embedder.proj.weight
        nn.init.xavier_uniform_(patch.view(len(patch), -1))
        y_proj = self.y_embedder.y_proj
        for linear in (self.t_embedder.mlp[0], self.t_embedder.mlp[2], self.t_block[1], y_proj.fc1, y_proj.fc2):
            assert isinstance(linear, nn.Linear)
            nn.init.normal_(linear.weight, std=0.02)
        for block in self.blocks:
            assert isinstance(block, Block)
            nn.init.zeros_(block.cross_attn.proj.weight)
        nn.init.zeros_(self.final_layer.linear.weight)

    def initialise_compression(self, layer: int) -> None:
        """Conv-Avg-Init of one block's KV compression; see `SelfAttention.initialise_compression`."""
        block = self.blocks[layer]
        assert isinstance(block, Block)
        block.attn.initialise_compression()

    def compile_blocks(self, backend: str = "inductor") -> None:
        """Compile the block, whose one graph serves every token grid, batch and caption length. Another is made for
        blocks with KV compression, for a single picture, and for captions of equal length."""
        for block in self.blocks:
            block.compile(dynamic=True, backend=backend)

    def positions(self, grid: tuple[int, int], like: Tensor) -> Tensor:
        """The position table of a token grid, (1, N, C), computed once per grid, device and dtype."""
        key = (*grid, like.device, like.dtype)
        if key not in self._positions:
            c = self.config
            table = position_table(*grid, c.hidden_size, c.base_tokens, c.pe_interpolation)
            self._positions[key] = table.to(like.device, torch.float32).to(like.dtype)[None]
        return self._positions[key]

    def forward(
        self,
        latents: Tensor,
        timestep: Tensor,
        caption: Tensor,
        caption_mask: Tensor | None = None,
        drop_caption: Tensor | None = None,
    ) -> Tensor:
        """Latents (B, C, h, w) at noise level `timestep` -> (B, 2C, h, w): predicted noise, then variance. `timestep`:
        (B,) in 0..999, whole or fractional. `caption`, `caption_mask`, `drop_caption`: as `from_waves`."""
        return self.from_waves(latents, timestep_sinusoid(timestep), caption, caption_mask, drop_caption)

    def from_waves(
        self,
        latents: Tensor,
        sinusoid: Tensor,
        caption: Tensor,
        caption_mask: Tensor | None = None,
        drop_caption: Tensor | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        """What `forward` computes once it has the sines and cosines, whose angles bf16 would round too much.

        Args:
            sinusoid: (B, 256) float32, the `timestep_sinusoid`.
            positions: (1, N, C) float32, the `position_table`; None takes the model's own.
            caption: (B, L, caption_channels), L at most `max_caption_tokens`.
            caption_mask: (B, L), non-zero where a token is valid; every row needs one. None: all are valid.
            drop_caption: (B,) bool; true replaces the caption by the null caption, under the caption's own mask.

        Raises:
            ValueError: a latent side is no multiple of the patch size, or the caption is too long.
        """
        p = self.config.patch_size
        batch, _, height, width = latents.shape
        if height % p or width % p:
            raise ValueError(f"latents of {height}x{width} cells do not divide into patches of {p}x{p}")
        if caption.shape[1] > self.config.max_caption_tokens:
            raise ValueError(
                f"a caption of {caption.shape[1]} tokens, the model takes {self.config.max_caption_tokens}"
            )
        grid = (height // p, width // p)
        x = self.x_embedder(latents)  # (B, N, C)
        x = x + (self.positions(grid, x) if positions is None else positions.to(x.dtype))
        t = self.t_embedder.from_sinusoid(sinusoid)  # (B, C)
        modulation = self.t_block(t).reshape(batch, 6, -1)  # (B, 6, C)
        packing = None if caption_mask is None else Packing.of(caption_mask)
        y = self.y_embedder(caption, drop_caption, packing)  # (T, C), the valid tokens; without a mask (B, L, C)
        for block in self.blocks:
            x = run_block(block, self.activation_checkpointing, x, y, modulation, packing, grid)
        return self.unpatchify(self.final_layer(x, t), grid)

    def unpatchify(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        """(B, N, p * p * 2C) -> (B, 2C, h, w); the channel is the fastest index of a token."""
        p = self.config.patch_size
        x = x.reshape(x.shape[0], *grid, p, p, 2 * self.config.in_channels)
        return x.permute(0, 5, 1, 3, 2, 4).flatten(2, 3).flatten(3)  # (B, 2C, rows * p, columns * p)
