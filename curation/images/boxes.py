"""Where the coded picture ends in files of boxes, JPEG 2000, AVIF and HEIF; what follows it is not looked at."""

from __future__ import annotations

from collections.abc import Iterator

from schemas.boxes import boxes
from schemas.slices import Sliced


def jpeg2000_end(data: bytes) -> str | None:
    """How a JPEG 2000 shows that its end is missing; None where each tile is whole and an end marker follows."""
    if data.startswith(b"\xff\x4f"):
        return _codestream_end(data, 0, len(data))
    stream = next((box for box in boxes(data, 0, len(data)) if box.name == b"jp2c"), None)
    if stream is None:
        return "ends before its codestream"
    return _codestream_end(data, stream.start, min(stream.end, len(data)))


def coding_styles(data: Sliced) -> Iterator[bytes]:
    """The payload of each COD and COC segment (ISO/IEC 15444-1, A.6.1), of the file and of its tiles, from the number
    of decomposition levels on."""
    stream = next((box for box in boxes(data, 0, len(data)) if box.name == b"jp2c"), None)
    at = 2 if stream is None else stream.start + 2
    next_part, wide = len(data), False
    for _ in range(_MOST_MARKERS):
        marker, length = _number(data, at, 2), _number(data, at + 2, 2)
        if marker == 0xFF51:
            wide = _number(data, at + 38, 2) > 256
        if marker in (0xFF52, 0xFF53):
            payload = data[at + 4 : at + 2 + length]
            skip = 5 if marker == 0xFF52 else 2 + wide
            has_precincts = payload[:1] if marker == 0xFF52 else payload[1 + wide : skip]
            yield payload[skip:] if has_precincts and has_precincts[0] & 1 else payload[skip : skip + 5]
        if marker == 0xFF90:
            next_part = at + max(12, _number(data, at + 6, 4) or len(data))
        if marker == 0xFF93 or length < 2:
            at = next_part
        else:
            at += 2 + length
        if at + 4 > len(data) or marker < 0xFF00:
            return


_MOST_MARKERS = 200_000


def _codestream_end(data: bytes, begin: int, end: int) -> str | None:
    """Walk from marker to marker, and over the data of each tile-part (ISO/IEC 15444-1, annex A)."""
    at, num_tiles, parts = begin + 2, 1, dict[int, list[int]]()
    while at + 2 <= end:
        marker, length = _number(data, at, 2), _number(data, at + 2, 2)
        if marker == 0xFFD9:
            return _missing_tiles(parts, num_tiles)
        if marker == 0xFF51:
            num_tiles = _num_tiles(data[at + 4 : at + 36])
        if marker == 0xFF90:
            tile, size, number, num_parts = (_number(data, at + place, width) for place, width in _TILE_PART)
            parts.setdefault(tile, []).append(num_parts)
            if size == 0:  # the last one reaches to the end marker
                end_marker = data.rfind(b"\xff\xd9", at, end)
                return "no end-of-codestream marker" if end_marker < 0 else _missing_tiles(parts, num_tiles)
            if at + size > end:
                return f"ends inside part {number} of tile {tile}"
            at += max(size, 12)
        elif marker < 0xFF00 or length < 2:
            return None  # no codestream: the file is corrupt rather than cut, and the decoder refuses it
        else:
            at += 2 + length
    return "no end-of-codestream marker"


_TILE_PART = ((4, 2), (6, 4), (10, 1), (11, 1))
"""Place and width of a tile's index, its part's length, its part's number, and the number of its parts (A.4.2)."""


def _num_tiles(size: bytes) -> int:
    """Tiles of the image and tile sizes of a SIZ segment, from its second field on (A.5.1)."""
    right, bottom, _, _, width, height, left, top = (_number(size, 2 + 4 * field, 4) for field in range(8))
    return -(-(right - left) // width) * -(-(bottom - top) // height) if width and height else 1


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
    last = max((end for _, end in items(data)), default=0)
    return f"holds {len(data)} of {last} bytes" if last > len(data) else None


def items(data: Sliced) -> Iterator[tuple[int, int]]:
    """(first byte, first byte behind) of each part of each item of an AVIF or HEIF that is in the file itself."""
    meta = next((box for box in boxes(data, 0, len(data)) if box.name == b"meta"), None)
    inside = boxes(data, meta.start + 4, min(meta.end, len(data))) if meta else ()
    places = next((box for box in inside if box.name == b"iloc"), None)
    return _item_parts(data[places.start : places.end]) if places else iter(())


def _item_parts(table: bytes) -> Iterator[tuple[int, int]]:
    """The parts in an item location box (`iloc`, ISO/IEC 14496-12, 8.11.3)."""
    version = table[0] if table else 0
    wide = 4 if version == 2 else 2
    sizes = _number(table, 4, 2)
    offset_size, length_size, base_size, index_size = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
    skipped = index_size if version else 0
    at = 6 + wide
    for _ in range(_number(table, 6, wide)):
        method = _number(table, at + wide, 2) & 15 if version else 0
        at += wide + (2 if version else 0) + 2
        base, num_parts = _number(table, at, base_size), _number(table, at + base_size, 2)
        at += base_size + 2
        for _ in range(num_parts if skipped + offset_size + length_size else min(num_parts, 1)):
            if at >= len(table) and offset_size + length_size:
                return
            offset = base + _number(table, at + skipped, offset_size)
            length = _number(table, at + skipped + offset_size, length_size)
            at += skipped + offset_size + length_size
            if method == 0:
                yield offset, offset + length
        if at >= len(table):
            return


def _number(data: Sliced, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "big")
