"""What a reader of containers needs of a file: bytes, or an object that reads them when they are sliced."""

from __future__ import annotations

from typing import Protocol


class Sliced(Protocol):
    """Bytes, or an object that reads them when they are sliced."""

    def __len__(self) -> int: ...
    def __getitem__(self, place: slice, /) -> bytes: ...
    def __bytes__(self) -> bytes: ...
    def startswith(self, start: bytes, /) -> bool:
        """As of bytes."""
        ...
