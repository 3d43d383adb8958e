"""Whether the compressed stream of a PNG holds all of its rows.

Pillow fills what a stream that ends early leaves out with black and says nothing, so half a picture would pass.
"""

from __future__ import annotations

import struct
import zlib

from curation.images.formats import png_chunks

_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Colour type (PNG specification, 11.2.2) -> channels."""

_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""Interlace passes: first column, first row, step of columns, step of rows (section 8.2)."""

_STEP_BYTES = 1 << 20


def missing_rows(data: bytes) -> str | None:
    """What is missing of a PNG that its decoder took, or None where nothing is.

    The stream is inflated a megabyte at a time and thrown away.
    """
    header = next(((start, length) for name, start, length in png_chunks(data) if name == b"IHDR"), None)
    if header is None or header[1] < 13:
        return None
    width, height, depth, colour, _, _, interlaced = struct.unpack_from(">IIBBBBB", data, header[0])
    expected = stream_bytes(width, height, depth * _CHANNELS.get(colour, 0), bool(interlaced))
    inflater, num = zlib.decompressobj(), 0
    for name, start, length in png_chunks(data):
        if name != b"IDAT":
            continue
        piece = data[start : start + length]
        while piece and not inflater.eof:
            try:
                num += len(inflater.decompress(piece, _STEP_BYTES))
            except zlib.error:
                return None  # corrupt rather than short, and the decoder's business
            piece = inflater.unconsumed_tail
    return None if num >= expected else f"its stream holds {num} of {expected} bytes of pixels"


def stream_bytes(width: int, height: int, bits_per_pixel: int, interlaced: bool) -> int:
    """Bytes of the inflated stream: each row of each pass is a filter byte and its pixels, padded to whole bytes."""
    passes = _ADAM7 if interlaced else ((0, 0, 1, 1),)
    num = 0
    for first_column, first_row, column_step, row_step in passes:
        columns = max(0, -(-(width - first_column) // column_step))
        rows = max(0, -(-(height - first_row) // row_step))
        num += rows * (1 + -(-columns * bits_per_pixel // 8)) if columns else 0
    return num
