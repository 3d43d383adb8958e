"""The segments of a JPEG (ITU-T T.81, annex B): where each begins and ends, whatever bytes are between them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

SCAN, END = 0xDA, 0xD9

_MARKER = re.compile(rb"\xff[\x02-\xcf\xd9-\xfe]")
"""A marker with a length, or the end; stuffed and fill bytes are none (B.1.1)."""
_NEXT_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
"""The marker behind the data of a scan; restarts are part of it."""


class Segment(NamedTuple):
    """One segment and, of a scan, the data behind it."""

    marker: int
    start: int
    """The marker's first byte."""
    end: int
    """First byte behind its payload."""
    data_end: int
    """First byte behind the data of a scan, fill bytes included; else `end`."""
    payload: bytes


def segments(data: bytes) -> Iterator[Segment]:
    """Each segment up to the end marker, which comes last where there is one. Bytes between two segments are passed
    over, as every decoder does; a scan's data is only searched for the segment after it."""
    at = 2
    while found := _MARKER.search(data, at):
        start = found.start()
        marker = data[start + 1]
        if marker == END:
            yield Segment(marker, start, start + 2, start + 2, b"")
            return
        end = start + 2 + max(2, int.from_bytes(data[start + 2 : start + 4], "big"))
        at = end
        if marker == SCAN:
            behind = _NEXT_MARKER.search(data, end)
            at = behind.start() if behind else len(data)
        if start + 4 <= len(data):
            yield Segment(marker, start, end, at, data[start + 4 : end])


def is_frame(marker: int) -> bool:
    """Whether a marker begins a frame header (table B.1)."""
    return 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)


def is_metadata(marker: int) -> bool:
    """Whether a segment holds nothing that a decoder of the samples needs: APPn and comments."""
    return 0xE0 <= marker <= 0xEF or marker == 0xFE
