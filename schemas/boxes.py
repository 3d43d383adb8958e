"""Walks the boxes that a JPEG 2000, an AVIF or a HEIF is made of, whether it is in memory or read by range."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from schemas.slices import Sliced

_MOST_BOXES = 10_000


class Box(NamedTuple):
    """A box of ISO/IEC 14496-12, or of ISO/IEC 15444-1 annex I."""

    name: bytes
    start: int
    """First byte of its payload."""
    end: int
    """First byte behind it; behind the end of the file where it was cut."""


def boxes(data: Sliced, begin: int, end: int) -> Iterator[Box]:
    """The boxes between two places, up to bytes that are none."""
    at = begin
    for _ in range(_MOST_BOXES):
        if at + 8 > end:
            return
        head = data[at : at + 8]
        size, start = int.from_bytes(head[:4], "big"), at + 8
        if size == 1:
            size, start = int.from_bytes(data[at + 8 : at + 16], "big"), at + 16
        size = end - at if size == 0 else size
        if size < start - at:
            return
        yield Box(head[4:], start, at + size)
        at += size
