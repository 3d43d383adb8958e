"""Walks the boxes that a JPEG 2000, an AVIF or a HEIF is made of, whether it is in memory or read by range."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from schemas.slices import Sliced, most_parts


class Box(NamedTuple):
    """A box of ISO/IEC 14496-12, or of ISO/IEC 15444-1 annex I."""

    name: bytes
    start: int
    """First byte of its payload."""
    end: int
    """First byte behind it; behind the end of the file where it was cut."""


def boxes(data: Sliced, begin: int, end: int) -> Iterator[Box]:
    """The boxes between two places, up to bytes that are none."""
    at = begin
    for _ in range(most_parts(len(data)) + 1):
        if at + 8 > end:
            return
        head = data[at : at + 8]
        size, start = int.from_bytes(head[:4], "big"), at + 8
        if size == 1:
            size, start = int.from_bytes(data[at + 8 : at + 16], "big"), at + 16
        size = end - at if size == 0 else size
        if size < start - at:
            return
        yield Box(head[4:], start, at + size)
        at += size


def number(data: Sliced, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "big")


Span = tuple[int, int]
"""(first byte, first byte behind) of a part of a file."""


def items(data: Sliced) -> Iterator[list[Span]]:
    """The parts of each item of an AVIF or HEIF that is in the file itself: pictures, their tiles, alpha, EXIF."""
    meta = next((box for box in boxes(data, 0, len(data)) if box.name == b"meta"), None)
    inside = {box.name: box for box in boxes(data, meta.start + 4, min(meta.end, len(data)))} if meta else {}
    places, inner = inside.get(b"iloc"), inside.get(b"idat")
    return _item_parts(data[places.start : places.end], inner.start if inner else None) if places else iter(())


def _item_parts(table: bytes, inner: int | None) -> Iterator[list[Span]]:
    """The parts in an item location box (`iloc`, ISO/IEC 14496-12, 8.11.3); `inner` is where the box `idat` begins."""
    version = table[0] if table else 0
    wide = 4 if version == 2 else 2
    sizes = number(table, 4, 2)
    offset_size, length_size, base_size, index_size = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
    skipped = index_size if version else 0
    at = 6 + wide
    for _ in range(number(table, 6, wide)):
        method = number(table, at + wide, 2) & 15 if version else 0
        at += wide + (2 if version else 0) + 2
        base, num_parts = number(table, at, base_size), number(table, at + base_size, 2)
        at += base_size + 2
        begin = {0: 0, 1: inner}.get(method)
        found = list[Span]()
        for _ in range(num_parts if skipped + offset_size + length_size else min(num_parts, 1)):
            if at >= len(table) and offset_size + length_size:
                break
            offset = base + number(table, at + skipped, offset_size)
            length = number(table, at + skipped + offset_size, length_size)
            at += skipped + offset_size + length_size
            if begin is not None:
                found.append((begin + offset, begin + offset + length))
        if found:
            yield found
        if at >= len(table):
            return


def first_samples(data: Sliced) -> Iterator[list[Span]]:
    """The first sample of each track of a sequence (ISO/IEC 14496-12, 8.7.3, 8.7.5), which is all that is decoded."""
    for movie in _inside(data, Box(b"", 0, len(data)), b"moov"):
        for track in _inside(data, movie, b"trak", b"mdia", b"minf", b"stbl"):
            tables = {box.name: box for box in boxes(data, track.start, min(track.end, len(data)))}
            sizes, chunks = tables.get(b"stsz"), tables.get(b"stco") or tables.get(b"co64")
            if sizes and chunks:
                size = number(data, sizes.start + 4, 4) or number(data, sizes.start + 12, 4)
                begin = number(data, chunks.start + 8, 8 if chunks.name == b"co64" else 4)
                yield [(begin, begin + size)]


def _inside(data: Sliced, found: Box, name: bytes, *deeper: bytes) -> Iterator[Box]:
    for box in boxes(data, found.start, min(found.end, len(data))):
        if box.name == name:
            yield from _inside(data, box, *deeper) if deeper else (box,)


def _codestream(data: Sliced) -> int:
    """Where the codestream of a JPEG 2000 begins."""
    return next((box.start for box in boxes(data, 0, len(data)) if box.name == b"jp2c"), 0)


def num_tiles(data: Sliced) -> int:
    """Tiles of a JPEG 2000, by the image and tile sizes of its SIZ segment (ISO/IEC 15444-1, A.5.1)."""
    size = data[(at := _codestream(data) + 8) : at + 32]
    right, bottom, _, _, width, height, left, top = (number(size, 4 * field, 4) for field in range(8))
    return -(-(right - left) // width) * -(-(bottom - top) // height) if width and height else 1


def markers(data: Sliced) -> Iterator[tuple[int, int, int]]:
    """(marker, first byte of its payload, first byte behind) of the segments of a JPEG 2000, in its header and in those
    of its tile-parts (ISO/IEC 15444-1, A.2)."""
    at, next_part = _codestream(data) + 2, len(data)
    while at + 4 <= len(data):
        marker, length = number(data, at, 2), number(data, at + 2, 2)
        yield marker, at + 4, at + 2 + length
        if marker == _START_OF_TILE_PART:
            next_part = at + max(12, number(data, at + 6, 4) or len(data))
        behind = next_part if marker == _START_OF_DATA or length < 2 else at + 2 + length
        if marker < 0xFF00 or marker == _END or behind <= at:
            return
        at = behind


_START_OF_TILE_PART, _START_OF_DATA, _END = 0xFF90, 0xFF93, 0xFFD9


def coding_styles(data: Sliced) -> Iterator[bytes]:
    """The payload of each COD and COC segment (ISO/IEC 15444-1, A.6.1), from the number of decomposition levels on."""
    wide = False
    for marker, start, end in islice(markers(data), most_parts(len(data))):
        if marker == 0xFF51:
            wide = number(data, start + 34, 2) > 256
        if marker in (0xFF52, 0xFF53):
            payload = data[start:end]
            skip = 5 if marker == 0xFF52 else 2 + wide
            has_precincts = payload[:1] if marker == 0xFF52 else payload[1 + wide : skip]
            yield payload[skip:] if has_precincts and has_precincts[0] & 1 else payload[skip : skip + 5]
