"""Whether the scans of a JPEG add up to a picture.

A progressive JPEG sends its picture several times over, each scan a band of frequencies or a further bit of them. Cut
between two scans and given an end marker, it decodes without a complaint to a coarser picture; so does a sequential one
whose last components are gone. The headers of the scans tell. What is missing inside a scan is the decoder's to find.
"""

from __future__ import annotations

import re
import struct

_NEXT_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
"""A marker behind the data of a scan; stuffed bytes, restarts and fill bytes are none (ITU-T T.81, B.1.1)."""

_NUM_FREQUENCIES = 64
_UNSENT = 255
"""Stands for "no bit sent yet"; a real value is at most 13."""


def missing_scans(data: bytes) -> str | None:
    """What is missing of a JPEG whose scans are each whole, or None where nothing is, or where this cannot tell.

    A picture is complete when the lowest bit of each frequency of each component was sent: a scan of frequencies
    Ss..Se with Al = 0 (T.81, G.1.1). Costs a search through the data where there are several scans, else nothing.
    """
    lowest_bits: dict[int, list[int]] = {}
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        if marker == 0xD9:
            break
        segment = data[at + 4 : at + 2 + length]
        at += 2 + length
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            lowest_bits = _components(segment)
        elif marker == 0xDA:
            if not _note_scan(segment, lowest_bits):
                return None  # no scan of this frame: corrupt rather than cut, and the decoder's business
            if not _unfinished(lowest_bits):
                return None
            found = _NEXT_MARKER.search(data, at)
            if found is None:
                break
            at = found.start()
    missing = _unfinished(lowest_bits)
    if not missing:
        return None
    return f"its last scans are missing: {missing} of {_NUM_FREQUENCIES * len(lowest_bits)} frequencies are unfinished"


def _components(frame: bytes) -> dict[int, list[int]]:
    """Component of a frame header (B.2.2) -> the lowest bit sent of each frequency."""
    identifiers = frame[6 : 6 + 3 * frame[5] : 3] if len(frame) > 5 else b""
    return {identifier: [_UNSENT] * _NUM_FREQUENCIES for identifier in identifiers}


def _note_scan(scan: bytes, lowest_bits: dict[int, list[int]]) -> bool:
    """Take down what a scan header (B.2.3) says is sent; False where it does not fit the frame."""
    num = scan[0] if scan else 0
    identifiers = scan[1 : 1 + 2 * num : 2]
    if not num or len(scan) < 4 + 2 * num or not lowest_bits.keys() >= set(identifiers):
        return False
    first, last, bits = struct.unpack_from("BBB", scan, 1 + 2 * num)
    if not first <= last < _NUM_FREQUENCIES:
        return False
    for identifier in identifiers:
        lowest_bits[identifier][first : last + 1] = [bits & 0x0F] * (last + 1 - first)
    return True


def _unfinished(lowest_bits: dict[int, list[int]]) -> int:
    return sum(bit != 0 for bits in lowest_bits.values() for bit in bits)
