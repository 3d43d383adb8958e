"""An input whose bytes are read only when they are used."""

from __future__ import annotations

import os
from collections.abc import Callable

FIRST_BYTES = 16 * 1024
"""Read of every input at first. Most headers end before; one with a large thumbnail or colour profile does not."""
BLOCK_BYTES = 64 * 1024
"""Read at once behind that, where a header goes on."""

Fetch = Callable[[int, int], bytes]
"""(begin, how many) -> those bytes of an input, fewer at its end."""


class LazyBytes:
    """An input as bytes and as a file, which fetches only the ranges that are read. A decoder may report an error of
    the disk or the network as damaged data; then `failed` holds the real error."""

    def __init__(self, first: bytes, num_bytes: int, fetch: Fetch, file: int | None = None) -> None:
        """`first` are its first bytes, `file` a descriptor that `close` closes."""
        self.first = first
        self.num_read = len(first)
        """Bytes that were fetched."""
        self.failed: OSError | None = None
        """The first error of fetching."""
        self._num_bytes, self._fetch, self._file = num_bytes, fetch, file
        self._at = 0
        self._block, self._block_at = first, 0

    def __len__(self) -> int:
        return self._num_bytes

    def __getitem__(self, place: slice) -> bytes:
        """A slice without a step; exactly its bytes are read."""
        if place.stop is not None and 0 <= place.stop <= len(self.first) and (place.start or 0) >= 0:
            return self.first[place]
        begin, end, _ = place.indices(self._num_bytes)
        return self.first[begin:end] if end <= len(self.first) else self._fetched(begin, max(0, end - begin))

    def startswith(self, start: bytes) -> bool:
        """As of bytes; looks no further than the first ones."""
        return self.first.startswith(start)

    def __bytes__(self) -> bytes:
        """All bytes; those that are not known yet are fetched in one read."""
        return self.first + self._fetched(len(self.first), self._num_bytes - len(self.first))

    def read(self, size: int = -1) -> bytes:
        """As of a file, in blocks."""
        end = self._num_bytes if size < 0 else min(self._at + size, self._num_bytes)
        begin, self._at = self._at, max(self._at, end)
        if begin >= end:
            return b""
        if not self._block_at <= begin < end <= self._block_at + len(self._block):
            if end <= len(self.first):
                self._block, self._block_at = self.first, 0
            else:
                size = min(max(end - begin, BLOCK_BYTES), self._num_bytes - begin)
                self._block, self._block_at = self._fetched(begin, size), begin
        return self._block[begin - self._block_at : end - self._block_at]

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._num_bytes}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def close(self) -> None:
        """Close the file; may be called again."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _fetched(self, begin: int, size: int) -> bytes:
        try:
            data = self._fetch(begin, size)
        except OSError as error:
            self.failed = self.failed or error
            raise
        self.num_read += len(data)
        return data
