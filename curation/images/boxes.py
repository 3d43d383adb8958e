"""Where the coded picture ends in files of boxes, JPEG 2000, AVIF and HEIF; what follows it is not looked at."""

from __future__ import annotations

from collections.abc import Iterator

from schemas.boxes import Span, boxes, items, num_tiles, number


def jpeg2000_end(data: bytes) -> str | None:
    """How a JPEG 2000 shows that its end is missing; None where each tile is whole and an end marker follows."""
    if data.startswith(b"\xff\x4f"):
        return _codestream_end(data, 0, len(data))
    stream = next((box for box in boxes(data, 0, len(data)) if box.name == b"jp2c"), None)
    if stream is None:
        return "ends before its codestream"
    return _codestream_end(data, stream.start, min(stream.end, len(data)))


def _codestream_end(data: bytes, begin: int, end: int) -> str | None:
    """Walk from marker to marker, and over the data of each tile-part (ISO/IEC 15444-1, annex A)."""
    at, tiles, parts = begin + 2, num_tiles(data), dict[int, list[int]]()
    while at + 2 <= end:
        marker, length = number(data, at, 2), number(data, at + 2, 2)
        if marker == 0xFFD9:
            return _missing_tiles(parts, tiles)
        if marker == 0xFF90:
            tile, size, part, num_parts = (number(data, at + place, width) for place, width in _TILE_PART)
            parts.setdefault(tile, []).append(num_parts)
            if size == 0:  # the last one reaches to the end marker
                end_marker = data.rfind(b"\xff\xd9", at, end)
                return "no end-of-codestream marker" if end_marker < 0 else _missing_tiles(parts, tiles)
            if at + size > end:
                return f"ends inside part {part} of tile {tile}"
            at += max(size, 12)
        elif marker < 0xFF00 or length < 2:
            return None  # no codestream: the file is corrupt rather than cut, and the decoder refuses it
        else:
            at += 2 + length
    return "no end-of-codestream marker"


_TILE_PART = ((4, 2), (6, 4), (10, 1), (11, 1))
"""Place and width of a tile's index, its part's length, its part's number, and the number of its parts (A.4.2)."""


def _missing_tiles(parts: dict[int, list[int]], num_tiles: int) -> str | None:
    whole = sum(len(found) >= max(found) for found in parts.values())
    return None if whole >= num_tiles else f"holds {whole} of {num_tiles} tiles"


def item_media_end(data: bytes) -> str | None:
    """How an AVIF or HEIF shows that its end is missing: an item ends behind the file, or the list of items does."""
    found = {box.name: box for box in boxes(data, 0, len(data))}
    meta = found.get(b"meta")
    if meta is None:
        cut = any(box.end > len(data) for box in found.values()) or b"moov" not in found
        return "ends inside a box" if cut else None
    if meta.end > len(data):
        return "ends inside its list of items"
    last = max((end for item in items(data) for _, end in item), default=0)
    return f"holds {len(data)} of {last} bytes" if last > len(data) else None


def av1_pixels(data: bytes) -> Iterator[Span]:
    """The parts of an AVIF with coded pixels, of items that begin as AV1 does: with a sequence header or a temporal
    delimiter (AV1 specification, 5.3.2)."""
    return (span for item in items(data) if data[item[0][0] : item[0][0] + 1] in (b"\x0a", b"\x12") for span in item)
