"""A file of more parts than a picture has is refused before a library walks through them."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest

from curation.images.decode import decode
from curation.images.header import Unreadable
from curation.images.lazy_bytes import LazyBytes
from schemas.opening import open_file
from schemas.parts import check_parts, gif_blocks
from schemas.pixels import PixelError, open_rgb
from schemas.reasons import ImageError
from schemas.slices import TooManyParts, most_parts
from tests.photos import encode, photo, png_chunk

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


MANY = 12_000
REFUSED_ANYWAY = {"GIF: frames", "JPEG: restart intervals", "JPEG: markers without a length"}
BOMBS: dict[str, Callable[[int], bytes]] = {
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


@pytest.mark.parametrize("name", BOMBS)
def test_a_file_of_very_many_parts_is_refused_by_whoever_opens_it(name: str) -> None:
    data = BOMBS[name](MANY)
    with pytest.raises(Unreadable, match=f"it has more than {most_parts(len(data))} ") as caught:
        decode(data)
    assert caught.value.reason == ImageError.CORRUPT
    assert caught.value.detail.startswith(name.partition(":")[0] + ": it has more than")
    with pytest.raises(PixelError, match="it has more than"):
        open_rgb(data)


@pytest.mark.parametrize("name", [name for name in BOMBS if name not in REFUSED_ANYWAY])
def test_a_file_of_many_parts_is_as_whole_as_one_of_few(name: str) -> None:
    assert decode(BOMBS[name](600)).image.size


@pytest.mark.parametrize("num", [100, 101])
def test_exif_in_a_hundred_segments_stays(num: int) -> None:
    """Pillow joins them one by one, each time copying all before it: a thousand of 64 KB took 30 s."""
    data = jpeg(segment(0xE1, b"Exif\0\0" + bytes(9)) * num)
    if num == 100:
        check_parts(data)
    else:
        with pytest.raises(TooManyParts, match="101 segments of EXIF, the limit is 100"):
            open_file(data)


def test_whatever_large_metadata_a_photo_has_it_stays() -> None:
    """A profile in the most segments that there can be, 30 MB of XMP, and a header that is padded."""
    profile = b"".join(segment(0xE2, b"ICC_PROFILE\0" + bytes((number, 255, 0))) for number in range(1, 256))
    xmp = segment(0xE1, b"http://ns.adobe.com/xmp/extension/\0" + bytes(65_000)) * 500
    assert decode(jpeg(profile + xmp + b"\xff" * 65_000)).image.size == PHOTO.size


def test_what_encoders_write_has_few_parts() -> None:
    """Blocks of 254 bytes in a GIF, of 4 KB in a PNG, tiles of 64 px at 1 bit a pixel in a JPEG 2000."""
    block = b"\xfe" + bytes(254)
    check_parts(gif(b",\0\0\0\0\1\0\1\0\0\2" + block * 30_000 + b"\0", len(GIF) - 1))
    open_file(png(png_chunk(b"IDAT", bytes(4096)) * 20_000))
    tile = struct.pack(">HHHIBBH", 0xFF90, 10, 0, 14 + 512, 0, 1, 0xFF93) + bytes(512)
    check_parts(jp2(in_codestream=tile * 20_000))


def test_of_a_file_that_is_read_lazily_only_a_header_is_read() -> None:
    lazy = LazyBytes(JPEG[:64], len(JPEG), lambda begin, count: JPEG[begin : begin + count])
    check_parts(lazy)
    assert lazy.num_read == 64
