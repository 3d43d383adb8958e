"""Chunks of a PNG: the decoder sees those that pixels depend on, and no metadata that would make it refuse them."""

from __future__ import annotations

import struct
import zlib
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from schemas.slices import Sliced, TooManyParts, most_parts

SIGNATURE = b"\x89PNG\r\n\x1a\n"

MAX_METADATA_BYTES = 16 * 1024 * 1024
"""Longest colour profile or block of metadata, inflated; a longer one is left out."""
MAX_TEXT_BYTES = 2 * 1024 * 1024
"""The same of a text, such as XMP."""
TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_TEXTS_KEPT = (b"XML:com.adobe.xmp", b"Raw profile type ")
MOST_ALIKE = 8
"""So many profiles, and texts of one kind, are read; a file can hold millions, each of which inflates."""
_PIXELS = (b"tRNS", b"acTL", b"fcTL", b"fdAT")
"""Chunks of transparency and animation: a damaged one is damage to the picture."""


class Chunk(NamedTuple):
    """A chunk, which may reach past the end of the file."""

    name: bytes
    start: int
    """First byte of its payload."""
    length: int
    """Bytes of its payload; its checksum follows."""


class Tidy(NamedTuple):
    """A PNG without the metadata that would keep its pixels from being read."""

    data: bytes
    num_left_out: int
    """Chunks of metadata that cannot be used, because their checksum is wrong or they are too long."""


def chunks(data: Sliced, at: int = len(SIGNATURE)) -> Iterator[Chunk]:
    """The chunks of a PNG in their order, from the one that begins at a place up to its end."""
    while at + 8 <= len(data):
        length, name = struct.unpack(">I4s", data[at : at + 8])
        yield Chunk(name, at + 8, length)
        if name == b"IEND":
            return
        at += length + 12


def tidy(data: Sliced, *, header_only: bool = False) -> Tidy:
    """The same pixels in a file that a decoder does not refuse for its metadata, which is left out: `schemas.metadata`
    reads it. Chunks whose checksum is wrong, or that are longer than `MAX_METADATA_BYTES`, are counted; those that
    pixels depend on stay, damaged or not. `header_only`: stop at the first pixels, also reading. Raises TooManyParts:
    the file has more chunks than `schemas.slices.most_parts`."""
    pieces: list[bytes] = []
    alike: Counter[bytes] = Counter()
    num_left_out, kept_from, at, most = 0, 0, len(SIGNATURE), most_parts(len(data))
    for number, chunk in enumerate(chunks(data)):
        if number == most:
            raise TooManyParts(f"it has more than {most} chunks in its {len(data)} bytes")
        if header_only and chunk.name in (b"IDAT", b"fdAT", b"IEND"):
            return Tidy(b"".join([*pieces, data[kept_from : chunk.start + 4]]), num_left_out)
        if chunk.name in (b"iCCP", *TEXTS):
            alike[chunk.name] += is_metadata(data, chunk)
        drop, counts = _judge(data, chunk, alike[chunk.name])
        at = chunk.start + chunk.length + 4
        if drop:
            pieces.append(data[kept_from : chunk.start - 8])
            num_left_out, kept_from = num_left_out + counts, at
    if not pieces and not header_only:
        return Tidy(bytes(data), 0)
    return Tidy(b"".join([*pieces, data[kept_from : len(data)]]), num_left_out)


def is_metadata(data: Sliced, chunk: Chunk) -> bool:
    """Whether a chunk is no text, or one that holds metadata of the picture; other texts are for people."""
    return chunk.name not in TEXTS or data[chunk.start : chunk.start + 32].startswith(_TEXTS_KEPT)


def _judge(data: Sliced, chunk: Chunk, num_alike: int) -> tuple[bool, bool]:
    """Whether a chunk is left out, and whether that is worth counting."""
    if not chunk.name[0] & 32 or chunk.name in _PIXELS or chunk.start + chunk.length + 4 > len(data):
        return False, False
    if not is_metadata(data, chunk):
        return True, False
    if num_alike > MOST_ALIKE:
        return True, True
    whole = data[chunk.start - 4 : chunk.start + chunk.length + 4]
    damaged = zlib.crc32(whole[:-4]) != int.from_bytes(whole[-4:], "big")
    most = MAX_TEXT_BYTES if chunk.name in TEXTS else MAX_METADATA_BYTES
    unusable = damaged or _inflated(chunk.name, whole[4:-4], most) > most
    return True, unusable


def _inflated(name: bytes, payload: bytes, most: int) -> int:
    """Bytes of a payload once it is inflated, as far as they matter."""
    if name in (b"iCCP", b"zTXt"):
        compressed = payload.partition(b"\0")[2][1:]
    elif name == b"iTXt" and payload.partition(b"\0")[2][:1] == b"\1":
        compressed = payload.partition(b"\0")[2][2:].partition(b"\0")[2].partition(b"\0")[2]
    else:
        return len(payload)
    try:
        return len(zlib.decompressobj().decompress(compressed, most + 1))
    except zlib.error:
        return 0
