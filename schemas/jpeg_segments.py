"""The segments of a JPEG (ITU-T T.81, annex B): where each begins and ends, whatever bytes are between them."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

SCAN, END = 0xDA, 0xD9

_MARKER = re.compile(rb"\xff[\x02-\xcf\xd9-\xfe]")
"""A marker with a length, or the end; stuffed and fill bytes are none (B.1.1)."""
_NEXT_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
"""The marker behind the data of a scan; restarts are part of it."""


class Segment:
    """One segment and, of a scan, the data behind it."""

    __slots__ = ("_data_end", "data", "end", "marker", "start")

    def __init__(self, data: bytes, marker: int, start: int, end: int) -> None:
        """`data` is the whole file, `start` the marker's first byte, `end` the first one behind the payload."""
        self.data, self.marker, self.start, self.end = data, marker, start, end
        self._data_end = None if marker == SCAN else end

    @property
    def payload(self) -> bytes:
        """Its bytes without marker and length."""
        return self.data[self.start + 4 : self.end]

    @property
    def data_end(self) -> int:
        """First byte behind the data of a scan, fill bytes included; else `end`. It is searched for at the first use:
        of most files that is a pass over all bytes."""
        if self._data_end is None:
            self._data_end = _data_end(self.data, self.end)
        return self._data_end


def _data_end(data: bytes, at: int) -> int:
    """The first marker from a place on, restarts and fill bytes left out. One byte in some 150 is 0xFF. So the first
    0xFF that no zero follows is searched for by numpy, in a quarter of the pattern's time."""
    if behind := _NEXT_MARKER.search(data, at, at + _SHORT):
        return behind.start()
    array, step, at = np.frombuffer(data, np.uint8), _SHORT, at + _SHORT - 1
    while at < len(data) - 1:
        piece = array[at : at + step + 1]
        is_found = (piece[:-1] == 0xFF) & (piece[1:] != 0)
        if is_found.any():
            at += int(is_found.argmax())
            break
        at, step = at + step, min(2 * step, _LONGEST_STEP)
    behind = _NEXT_MARKER.search(data, at)
    return behind.start() if behind else len(data)


_SHORT, _LONGEST_STEP = 1 << 13, 1 << 17
"""Bytes of a scan in which the pattern is as fast, and those that numpy looks at in one go; of short scans less."""


def segments(data: bytes) -> Iterator[Segment]:
    """Each segment up to the end marker, which comes last where there is one. Bytes between two segments are passed
    over, as every decoder does; a scan's data is only searched for the segment after it, once that is asked for."""
    at = 2
    while found := _MARKER.search(data, at):
        start = found.start()
        marker = data[start + 1]
        if marker == END:
            yield Segment(data, marker, start, start + 2)
            return
        segment = Segment(data, marker, start, start + 2 + max(2, int.from_bytes(data[start + 2 : start + 4], "big")))
        if start + 4 <= len(data):
            yield segment
        at = segment.data_end


def is_frame(marker: int) -> bool:
    """Whether a marker begins a frame header (table B.1)."""
    return 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)


def is_metadata(marker: int) -> bool:
    """Whether a segment holds nothing that a decoder of the samples needs: APPn and comments."""
    return 0xE0 <= marker <= 0xEF or marker == 0xFE
