"""The offline defaults: encoders that need no download and learned nothing. `BlockDCT` is a block cosine transform, not
a learned VAE, and `HashedText` gives each word a fixed random vector and knows no language. Both are enough to train a
toy model end to end; a checkpoint records which encoders were used."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache, partial

import torch
from torch import Tensor

from schemas.tokens import VOCABULARY, count_tokens, token_ids
from schemas.training import LATENT_DOWNSAMPLING
from training.encoders.base import draw_latents

BLOCK = LATENT_DOWNSAMPLING
"""Side in px of a block of the cosine transform, which becomes one latent cell."""
YCBCR = torch.tensor(
    [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]], dtype=torch.float64
)
"""RGB -> Y, Cb, Cr of JPEG (ITU-T T.871), without the offset: [-1, 1] maps to [-1, 1]."""

LUMA_STD = 3.6
CHROMA_STD = 0.9
"""Standard deviation of the mean (DC) coefficient, over photographs of 64 to 256 px in [-1, 1]."""
FALL_OFF = 0.6
"""Coefficients are divided by (frequency + 0.7)^-FALL_OFF. Photographs of these sizes fall off about with 1.5, which
would give every channel unit variance; with less, fine detail keeps less weight, and a small model spends itself on
the colours and shapes that one sees."""


class BlockDCT:
    """Keeps the lowest cosine coefficients of every 8x8 block of Y, Cb and Cr. Coefficients are taken in order of
    frequency, where one of Cb or Cr counts double, so that 12 channels are 6 of Y and 3 each of Cb and Cr. `decode`
    inverts `encode` up to the coefficients that were dropped. `mixed`: turn the channels into each other by the
    orthonormal cosine matrix over them: the same pictures in other latents, as another VAE has them."""

    scale = 1.0

    def __init__(self, channels: int, *, mixed: bool = False) -> None:
        self.channels = channels
        kept = sorted(
            ((u + v) * (1 if plane == 0 else 2), plane, u, v)
            for plane in range(3)
            for u in range(BLOCK)
            for v in range(BLOCK)
        )[:channels]
        cosine = cosine_basis()
        bases, scales = [], []
        for _, plane, u, v in kept:
            pattern = torch.outer(cosine[u], cosine[v])  # (8, 8), unit norm
            bases.append(torch.einsum("c,yx->cyx", YCBCR[plane], pattern))
            std = (LUMA_STD if plane == 0 else CHROMA_STD) * ((u + v + 0.7) / 0.7) ** -FALL_OFF
            scales.append(1 / std)
        self._analysis = torch.stack(bases)  # (C, 3, 8, 8)
        to_rgb = torch.linalg.inv(YCBCR)
        self._synthesis = torch.stack(
            [torch.einsum("c,yx->cyx", to_rgb[:, plane], torch.outer(cosine[u], cosine[v])) for _, plane, u, v in kept]
        )
        scale = torch.tensor(scales, dtype=torch.float64)[:, None, None, None]
        turn = cosine_basis(channels) if mixed else torch.eye(channels, dtype=torch.float64)
        self._analysis = torch.einsum("jk,kcyx->jcyx", turn, self._analysis * scale).float()
        self._synthesis = torch.einsum("jk,kcyx->jcyx", turn, self._synthesis / scale).float()

    def moments(self, pixels: Tensor) -> Tensor:
        batch, _, height, width = pixels.shape
        blocks = pixels.reshape(batch, 3, height // BLOCK, BLOCK, width // BLOCK, BLOCK)
        analysis = self._analysis.to(pixels.device)
        return torch.stack([torch.einsum("chywx,kcyx->khw", picture, analysis) for picture in blocks])[:, None]

    def encode(self, pixels: Tensor, seeds: Sequence[int] | None = None) -> Tensor:
        return draw_latents(self.moments(pixels), seeds, self.scale)

    def decode(self, latents: Tensor) -> Tensor:
        blocks = torch.einsum("bkhw,kcyx->bchywx", latents.float(), self._synthesis.to(latents.device))
        return blocks.flatten(4, 5).flatten(2, 3)  # (B, 3, 8h, 8w)


def cosine_basis(size: int = BLOCK) -> Tensor:
    """The orthonormal DCT-II matrix, (frequencies, positions), float64."""
    position = torch.arange(size, dtype=torch.float64) + 0.5
    basis = torch.cos(math.pi / size * torch.arange(size, dtype=torch.float64)[:, None] * position)
    basis *= math.sqrt(2 / size)
    basis[0] /= math.sqrt(2)
    return basis


class HashedText:
    """A fixed random vector per hashed word, mixed with its neighbours and its position. Not learned. Word order counts
    through the position and through the share of the preceding word, so two captions of the same words differ."""

    SEED = 300
    NEIGHBOUR = 0.5
    """Weight of the preceding word's vector."""
    POSITION = 0.3
    """Weight of the position's sinusoid."""
    NORM = 64.0
    """Length of every row: that of 4096 channels of unit size, the width which the model's initialisation of the
    caption projection is made for. Shorter rows are hardly heard early in training."""

    at_once = 32

    def __init__(self, channels: int, max_tokens: int) -> None:
        self.channels = channels
        self.max_tokens = max_tokens
        self._words = torch.randn(VOCABULARY, channels, generator=torch.Generator().manual_seed(self.SEED))
        half = (channels + 1) // 2
        angle = torch.arange(max_tokens)[:, None] * 10000.0 ** (-torch.arange(half) / half)
        self._positions = torch.cat([angle.sin(), angle.cos()], dim=1)[:, :channels]  # (max tokens, channels)
        self._encode = lru_cache(maxsize=4096)(self._encode_ids)

    def count(self, caption: str) -> int:
        return count_tokens(caption)

    def encode(self, caption: str) -> Tensor:
        return self._encode(self.tokens(caption))

    def tokens(self, caption: str) -> tuple[int, ...]:
        ids = token_ids(caption)
        return (*ids[: self.max_tokens - 1], ids[-1]) if len(ids) > self.max_tokens else tuple(ids)

    def encoding(self, captions: Sequence[tuple[int, ...]]) -> Callable[[], Iterable[Tensor]]:
        return partial(map, self._encode, captions)

    def null(self) -> Tensor:
        padding = 0
        return self._encode((*token_ids(""), *[padding] * (self.max_tokens - 1)))

    def _encode_ids(self, ids: tuple[int, ...]) -> Tensor:
        words = self._words[list(ids)]  # (L, channels)
        before = torch.cat([torch.zeros(1, self.channels), words[:-1]])
        mixed = words + self.NEIGHBOUR * before + self.POSITION * self._positions[: len(ids)]
        return mixed / mixed.norm(dim=1, keepdim=True) * self.NORM
