"""The interfaces of a codec and a text encoder, and how latents are drawn from moments."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from torch import Tensor

from training.data.chance import noise


class Codec(Protocol):
    """Pictures to latents and back; 8 times smaller per axis, about unit variance."""

    channels: int
    scale: float
    """Drawn latents are multiplied by this."""

    def moments(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> (B, 1 or 2, channels, H / 8, W / 8) float32: mean, and deviation where it draws.
        Each picture goes through alone and depends on no other, unless the codec was made to take them together."""

    def encode(self, pixels: Tensor, seeds: Sequence[int] | None = None) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> (B, channels, H / 8, W / 8): `draw_latents` of the moments."""

    def decode(self, latents: Tensor) -> Tensor:
        """(B, channels, h, w) -> (B, 3, 8h, 8w), about [-1, 1]."""


class TextEncoder(Protocol):
    """Captions to vectors, unpadded."""

    channels: int
    max_tokens: int

    def encode(self, caption: str) -> Tensor:
        """(L, channels) float32, L between 1 and `max_tokens`."""

    def count(self, caption: str) -> int:
        """Tokens of a caption, before any cut; `encode` cuts it to `max_tokens`."""

    @property
    def at_once(self) -> int:
        """Captions of one length that best go through together where it is."""

    def tokens(self, caption: str) -> tuple[int, ...]:
        """What `encoding` takes, cut to `max_tokens`: work for other threads."""

    def encoding(self, captions: Sequence[tuple[int, ...]]) -> Callable[[], Iterable[Tensor]]:
        """Begin with captions of one length; the function that is returned gives what `encode` does of each, on the
        CPU, as the model computed it, which may be bfloat16."""

    def null(self) -> Tensor:
        """(max_tokens, channels): the empty caption with its padding, which replaces a dropped caption."""


def draw_latents(moments: Tensor, seeds: Sequence[int] | None, scale: float) -> Tensor:
    """(B, 1 or 2, C, h, w) -> (B, C, h, w): picture i's latents drawn from `seeds[i]` alone; without seeds the mean."""
    latents = moments[:, 0]
    if moments.shape[1] == 2 and seeds is not None:
        latents = latents + moments[:, 1] * noise(seeds, tuple(latents.shape[1:])).to(latents.device)
    return latents * scale
