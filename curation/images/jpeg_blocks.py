"""Whether the one scan of a baseline JPEG holds all of its blocks.

Some tools put an end marker behind half a JPEG. libjpeg fills the rest with flat blocks and gives only a warning,
which Pillow drops. Without the marker it cannot finish: so the marker is replaced by a few zero bytes (enough that the
decoder may look ahead), and a picture that still decodes to its last row is whole.
"""

from __future__ import annotations

import io

from PIL import Image

from schemas.pixels import DECODER_ERRORS

_PADDING = bytes(64)
_SEQUENTIAL = (0xC0, 0xC1)
"""Start-of-frame markers of baseline and extended sequential JPEG (ITU-T T.81, table B.1)."""
_FLAT = 1
"""Levels by which pixels of filled blocks may differ, after colour conversion and scaling."""


def missing_blocks(data: bytes) -> str | None:
    """What is missing of a JPEG that its decoder took, or None where nothing is, or where this cannot tell.

    Costs a decode at an eighth of the size. Progressive files and those of several scans are not looked at, and up to
    some twenty blocks that the padding stands in for are not missed.
    """
    end = data.rfind(b"\xff\xd9")
    if end < 0 or not _one_scan(data):
        return None
    try:
        image = Image.open(io.BytesIO(data[:end] + _PADDING), formats=("JPEG",))
        image.draft(None, (max(1, image.width // 8), max(1, image.height // 8)))
        image.load()
    except OSError:
        return "its data ends before its last block"
    except DECODER_ERRORS:
        return None  # the decoder took it with its end: what it says now is no finding
    return None


def has_flat_corner(image: Image.Image) -> bool:
    """Whether four pixels in a corner of an RGB picture are alike, as they are where a decoder filled the rest.

    A file may be on its side, so any corner counts. Many whole pictures have one too; most have none.
    """
    right, bottom = max(image.width - 2, 0), max(image.height - 2, 0)
    for left, top in ((0, 0), (right, 0), (0, bottom), (right, bottom)):
        extremes = image.crop((left, top, min(left + 2, image.width), min(top + 2, image.height))).getextrema()
        if all(high - low <= _FLAT for low, high in extremes):  # type: ignore[misc]
            return True
    return False


def _one_scan(data: bytes) -> bool:
    """Whether the frame is sequential and its first scan holds all components."""
    at, num_components = 2, 0
    while at + 10 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        if marker == 0xDA:
            return num_components > 0 and data[at + 4] == num_components
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            if marker not in _SEQUENTIAL:
                return False
            num_components = data[at + 9]
        at += 2 + length
    return False
