"""Files gone bad at random, the same ones for the same seed: what a crawl brings home, only more of it."""

from __future__ import annotations

import random
import re
import struct
import zlib
from collections.abc import Iterator

from tests.photos import animation, encode, in_jp2, orientation_tag, photo, swapped_primaries, with_chunks

_SMALL = photo("chelsea.png").resize((96, 64))
_EXIF_AS_TEXT = b"\nexif\n 26\n" + orientation_tag(6).tobytes().hex().encode()

SEEDS = {
    "JPEG": encode(_SMALL, "JPEG", exif=orientation_tag(6), icc_profile=swapped_primaries()),
    "progressive JPEG": encode(_SMALL, "JPEG", progressive=True),
    "JPEG with restarts": encode(_SMALL, "JPEG", restart_marker_blocks=2),
    "CMYK JPEG": encode(_SMALL.convert("CMYK"), "JPEG"),
    "RGBA PNG": encode(_SMALL.convert("RGBA"), "PNG", exif=orientation_tag(3), icc_profile=swapped_primaries()),
    "palette PNG": encode(_SMALL.convert("P"), "PNG", transparency=3),
    "16 bit PNG": encode(_SMALL.convert("I;16"), "PNG"),
    "WEBP": encode(_SMALL, "WEBP", exif=orientation_tag(8)),
    "lossless WEBP": encode(_SMALL, "WEBP", lossless=True),
    "AVIF": encode(_SMALL, "AVIF"),
    "TIFF": encode(_SMALL, "TIFF", exif=orientation_tag(5)),
    "LZW TIFF": encode(_SMALL, "TIFF", compression="tiff_lzw"),
    "GIF": encode(_SMALL, "GIF"),
    "BMP": encode(_SMALL, "BMP"),
    "TGA": encode(_SMALL, "TGA"),
    "JPEG2000": encode(_SMALL, "JPEG2000"),
    "PNG of many words": with_chunks(
        encode(_SMALL, "PNG"),
        (b"cICP", b"\x0c\x0d\0\1"),
        (b"gAMA", b"\0\0\xb1\x8f"),
        (b"cHRM", struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)),
        (
            b"zTXt",
            b"Raw profile type exif\0\0"
            + zlib.compress(b"\nexif\n 14\n" + orientation_tag(6).tobytes().hex().encode()),
        ),
        (b"iTXt", b'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="3"/>'),
    ),
    "JPEG2000 with a profile": in_jp2(encode(_SMALL, "JPEG2000"), b"\2\0\0" + swapped_primaries()),
    "TIFF of floats": encode(
        _SMALL.convert("F").point(lambda level: level / 255),
        "TIFF",
        tiffinfo={318: (0.3127, 0.3290), 700: b"<x:xmpmeta/>"},
    ),
    "JPEG2000 of tiles": encode(_SMALL, "JPEG2000", tile_size=(40, 40)),
    "AVIF with alpha": encode(_SMALL.convert("RGBA"), "AVIF", exif=orientation_tag(6)),
    "animated GIF": animation("GIF", 2),
    "APNG": animation("PNG", 2),
    "MPO": animation("MPO", 2),
}
"""Name -> a whole file of every format that a crawl meets."""


def mutants(count: int, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """(what was done to what, the bytes), `count` of them, the formats in turn."""
    names = sorted(SEEDS)
    for number in range(count):
        chance = random.Random(f"{seed}/{number}")
        name = names[number % len(names)]
        change = chance.choice(_CHANGES)
        yield f"{seed}/{number}: {name}, {change.__name__}", change(SEEDS[name], chance)


def flips(data: bytes, chance: random.Random) -> bytes:
    """Some bytes are others; half of the time near the header."""
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 4, 16, 64))):
        changed[_place(changed, chance)] = chance.choice((0, 1, 127, 128, 255, chance.randrange(256)))
    return bytes(changed)


def cut(data: bytes, chance: random.Random) -> bytes:
    """The end is missing."""
    return data[: chance.randrange(len(data))]


def hole(data: bytes, chance: random.Random) -> bytes:
    """A piece of the middle is missing."""
    at = _place(data, chance)
    return data[:at] + data[at + chance.randrange(1, 400) :]


def insertion(data: bytes, chance: random.Random) -> bytes:
    """Foreign bytes stand in the middle."""
    at = _place(data, chance)
    return data[:at] + chance.randbytes(chance.randrange(1, 200)) + data[at:]


def swap(data: bytes, chance: random.Random) -> bytes:
    """Two stretches have changed places, as the blocks of a broken disk."""
    size = chance.randrange(1, max(2, len(data) // 4))
    first, second = sorted(chance.randrange(len(data) - 2 * size + 1) for _ in range(2))
    second = max(second, first + size)
    head, middle = data[:first], data[first + size : second]
    return head + data[second : second + size] + middle + data[first : first + size] + data[second + size :]


def chunk_swap(data: bytes, chance: random.Random) -> bytes:
    """Two chunks of a PNG or segments of a JPEG have changed places; other formats have stretches swapped."""
    pieces = _pieces(data)
    if len(pieces) < 4:
        return swap(data, chance)
    one, two = chance.sample(range(1, len(pieces)), 2)
    pieces[one], pieces[two] = pieces[two], pieces[one]
    return b"".join(pieces)


def other_size(data: bytes, chance: random.Random) -> bytes:
    """A number of two or four bytes near the header is huge: sizes, counts, offsets."""
    at = chance.randrange(min(len(data), 300))
    number = chance.choice((0, 1, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1))
    width = chance.choice((">H", "<H", ">I", "<I"))
    packed = struct.pack(width, number & (2 ** (8 * struct.calcsize(width)) - 1))
    return data[:at] + packed + data[at + len(packed) :]


_CHANGES = (flips, flips, cut, hole, insertion, swap, chunk_swap, other_size)


def _place(data: bytes | bytearray, chance: random.Random) -> int:
    return chance.randrange(len(data) if chance.random() < 0.5 else min(len(data), 300))


def _pieces(data: bytes) -> list[bytes]:
    """Chunks of a PNG, or a JPEG cut before each marker."""
    if data.startswith(b"\x89PNG"):
        at, pieces = 8, [data[:8]]
        while at < len(data):
            end = at + 12 + int.from_bytes(data[at : at + 4], "big")
            pieces.append(data[at:end])
            at = end
        return pieces
    if data.startswith(b"\xff\xd8"):
        return re.split(rb"(?=\xff[\xc0-\xfe])", data)
    return [data]
