"""Hostile files: pictures inside others, streams and scans without end, and as many parts as one wants."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

from schemas.jpeg_segments import SCAN, segments
from schemas.parts import gif_blocks
from tests.photos import encode, photo, png_chunk, quadrants

PHOTO = photo("chelsea.png").resize((96, 64))
JPEG, GIF, PNG, JP2 = (encode(PHOTO, each) for each in ("JPEG", "GIF", "PNG", "JPEG2000"))
GIF_FIRST = next(gif_blocks(GIF))


def segment(marker: int, payload: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, 2 + len(payload)) + payload


def box(name: bytes, payload: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(payload), name) + payload


def jpeg(between: bytes, behind: bytes = b"") -> bytes:
    return JPEG[:2] + between + JPEG[2:-2] + behind + JPEG[-2:]


def gif(between: bytes, at: int = GIF_FIRST) -> bytes:
    return GIF[:at] + between + GIF[at:]


def png(between: bytes) -> bytes:
    return PNG[:33] + between + PNG[33:]


def jp2(in_front: bytes = b"", in_header: bytes = b"", in_codestream: bytes = b"") -> bytes:
    head, code = JP2.index(b"jp2h") - 4, JP2.index(b"jp2c") - 4
    header, codestream = JP2[head + 8 : code], JP2[code + 8 :]
    first = 4 + int.from_bytes(codestream[4:6], "big")  # behind SIZ
    codestream = codestream[:first] + in_codestream + codestream[first:]
    return JP2[:head] + in_front + box(b"jp2h", header + in_header) + box(b"jp2c", codestream)


def psd(num: int) -> bytes:
    resources = struct.pack(">4sHHI", b"8BIM", 1028, 0, 0) * num
    head = struct.pack(">4sH6xHIIHH", b"8BPS", 1, 3, 4, 4, 8, 3)
    return head + struct.pack(">II", 0, len(resources)) + resources + struct.pack(">IH", 0, 0) + bytes(48)


BOMBS: dict[str, Callable[[int], bytes]] = {  # format and kind of part -> a file of so many
    "JPEG: comments": lambda num: jpeg(segment(0xFE, b"x") * num),
    "JPEG: metadata": lambda num: jpeg(segment(0xE5, b"") * num),
    "JPEG: restart intervals": lambda num: jpeg(segment(0xDD, b"\0\0") * num),
    "JPEG: comments behind the scan": lambda num: jpeg(b"", segment(0xFE, b"x") * num),
    "JPEG: fill bytes": lambda num: jpeg(b"\xff" * 20 * num),
    "JPEG: markers without a length": lambda num: jpeg(b"\xff\x01" * 10 * num),
    "GIF: comments": lambda num: gif(b"!\xfe\x01x\0" * num),
    "GIF: a comment of one letter each": lambda num: gif(b"!\xfe" + b"\x01x" * num + b"\0"),
    "GIF: frames": lambda num: gif(b",\0\0\0\0\1\0\1\0\0\2\2\x44\1\0" * num),
    "GIF: blocks behind the picture": lambda num: gif(b"!\xfe\0" * num, len(GIF) - 1),
    "PNG: chunks": lambda num: png(png_chunk(b"tEXt", b"") * num),
    "PNG: chunks of pixels": lambda num: png(png_chunk(b"IDAT", b"") * num),
    "JPEG2000: boxes": lambda num: jp2(in_front=box(b"free", b"") * num),
    "JPEG2000: boxes of the header": lambda num: jp2(in_header=box(b"free", b"") * num),
    "JPEG2000: comments": lambda num: jp2(in_codestream=segment(0x64, b"\0\1x") * num),
    "PPM: comments": lambda num: b"P6\n" + b"#\n" * num + b"2 2 255\n" + bytes(12),
    "PPM: spaces": lambda num: b"P4 2" + b" " * num + b"2\n" + bytes(2),
    "PPM: comments inside a number": lambda num: b"Pf\n1" + b"#\n" * num + b" 1 1.0\n" + bytes(4),
    "PSD: image resources": psd,
}

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n%%EndComments\nshowpage\n%%EOF\n"


def in_iptc(inner: bytes, width: int = 16, height: int = 16) -> bytes:
    """An IPTC record that names a size and holds a file."""
    fields = ((3, 20, width), (3, 30, height), (3, 60, 1), (3, 65, 1), (3, 120, 5))
    head = b"".join(struct.pack(">BBBHH", 0x1C, record, name, 2, value) for record, name, value in fields)
    return head + struct.pack(">BBBH", 0x1C, 8, 10, len(inner)) + inner


def in_ico(inner: bytes) -> bytes:
    """An icon of 16 x 16 px that holds a file."""
    return struct.pack("<HHHBBBBHHII", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(inner), 22) + inner


def in_icns(inner: bytes) -> bytes:
    """An Apple icon that holds a file."""
    return b"icns" + struct.pack(">I4sI", 16 + len(inner), b"ic07", 8 + len(inner)) + inner


def bomb(side: int) -> bytes:
    """A PNG of one bit per pixel."""
    rows = zlib.compress(bytes(side * (1 + side // 8)))
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", rows) + png_chunk(b"IEND", b"")


def dos_eps() -> bytes:
    """An EPS behind the header of its DOS form."""
    return b"\xc5\xd0\xd3\xc6" + struct.pack("<6IH", 30, len(EPS), 0, 0, 0, 0, 0xFFFF) + EPS


WRAPPED = {
    "eps": EPS,
    "dos eps": dos_eps(),
    "iptc of eps": in_iptc(EPS),
    "ico of eps": in_ico(EPS),
    "icns of eps": in_icns(EPS),
    "iptc of iptc of eps": in_iptc(in_iptc(EPS)),
    "iptc of a bomb": in_iptc(bomb(2000)),
    "ico of a bomb": in_ico(bomb(2000)),
    "icns of a bomb": in_icns(bomb(2000)),
    "ico of a picture": encode(quadrants(32, 32), "ICO"),
    "icns of a picture": encode(quadrants(128, 128), "ICNS"),
}


def inflating_png() -> bytes:
    """A PNG of 64 x 64 px whose stream goes on for 64 MB."""
    packer, piece = zlib.compressobj(9), bytes(1 << 20)
    stream = b"".join([*(packer.compress(piece) for _ in range(64)), packer.flush()])
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 64, 64, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", stream) + png_chunk(b"IEND", b"")


def many_scans(num: int = 300) -> bytes:
    """A JPEG whose last scan comes again and again."""
    data = encode(PHOTO, "JPEG", progressive=True)
    last = [segment for segment in segments(data) if segment.marker == SCAN][-1]
    return data[:-2] + data[last.start : last.data_end] * num + data[-2:]


def many_blocks() -> bytes:
    """A JPEG 2000 of 2000 x 2000 px in code-blocks of 4 x 4."""
    small = encode(quadrants(64, 64).convert("L"), "JPEG2000", codeblock_size=(4, 4))
    box_at, size_at = small.index(b"ihdr") + 4, small.index(b"\xff\x4f\xff\x51") + 8
    large = struct.pack(">II", 2000, 2000)
    return small[:box_at] + large + small[box_at + 8 : size_at] + large + small[size_at + 8 :]


HOSTILE = {
    "eps.jpg": in_iptc(EPS),
    "eps.bmp": in_ico(EPS),
    "wrapped.jpg": in_iptc(bomb(2000)),
    "wrapped.png": in_ico(bomb(2000)),
    "endless.png": inflating_png(),
    "scans.jpg": many_scans(),
    "blocks.jp2": many_blocks(),
    "comments.jpg": jpeg(segment(0xFE, b"x") * 20_000),
    "exif.jpg": jpeg(segment(0xE1, b"Exif\0\0" + bytes(60_000)) * 150),
    "comments.gif": gif(b"!\xfe\x01x\0" * 20_000),
    "chunks.png": png(png_chunk(b"tEXt", b"") * 20_000),
    "boxes.jp2": jp2(in_header=box(b"free", b"") * 20_000),
}
"""Name -> a file that is refused quickly, but for `endless.png`, which is a picture all the same."""
