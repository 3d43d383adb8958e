"""What a reader of containers needs of a file: bytes, or an object that reads them when they are sliced."""

from __future__ import annotations

from typing import Protocol

_FREE_PARTS, _BYTES_PER_PART = 10_000, 128


def most_parts(num_bytes: int) -> int:
    """Parts (segments, chunks, blocks, boxes) that a file of so many bytes may have: 10,000, and one for 128 bytes."""
    return _FREE_PARTS + num_bytes // _BYTES_PER_PART


class TooManyParts(ValueError):
    """A file has more parts than `most_parts` or than a picture has of their kind."""


class Sliced(Protocol):
    """Bytes, or an object that reads them when they are sliced."""

    def __len__(self) -> int: ...
    def __getitem__(self, place: slice, /) -> bytes: ...
    def __bytes__(self) -> bytes: ...
    def startswith(self, start: bytes, /) -> bool:
        """As of bytes."""
