"""Padding of captions: no sum is spent on it, and it is put back only where a kernel wants a rectangle."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Packing(NamedTuple):
    """The positions of the valid tokens of B padded captions; T counts them all, K is the most that one caption has."""

    source: Tensor
    """(T,) places of the valid tokens in B * L padded ones, in order."""
    slot: Tensor
    """(T,) their places in B * K, each caption's valid tokens moved to its front."""
    keys: Tensor | None
    """(B, K) bool, true where a slot is filled; None where all are."""
    longest: int
    """K."""

    @classmethod
    def of(cls, mask: Tensor) -> Packing:
        """The packing of a mask (B, L), non-zero where a token is valid; waits once for the mask's device."""
        valid = mask.bool().cpu()
        lengths = valid.sum(dim=1)  # (B,)
        longest = int(lengths.max())
        source = valid.flatten().nonzero()[:, 0]
        rank = (valid.cumsum(dim=1) - 1).flatten()[source]  # of each valid token within its caption
        slot = source // mask.shape[1] * longest + rank
        keys = None if bool((lengths == longest).all()) else torch.arange(longest) < lengths[:, None]
        source, slot = source.to(mask.device, non_blocking=True), slot.to(mask.device, non_blocking=True)
        return cls(source, slot, None if keys is None else keys.to(mask.device, non_blocking=True), longest)

    def pack(self, padded: Tensor) -> Tensor:
        """(B, L, C) -> (T, C)."""
        tokens = padded.flatten(0, 1)
        return tokens if len(self.source) == len(tokens) else tokens.index_select(0, self.source)

    def pad(self, packed: Tensor, batch: int) -> Tensor:
        """(T, C) -> (B, K, C), zero where `keys` is false."""
        if self.keys is not None:
            slots = packed.new_zeros(batch * self.longest, packed.shape[-1])
            packed = slots.index_copy(0, self.slot, packed)
        return packed.unflatten(0, (batch, self.longest))
