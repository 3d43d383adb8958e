"""Which way up a picture is, and which numbers are black and white: survey and decoder agree, in every format."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from curation.images.decode import decode
from curation.images.header import Unreadable, read_header
from curation.images.lazy_bytes import FIRST_BYTES, LazyBytes
from schemas.metadata import LATE_BYTES, read_metadata
from schemas.opening import open_file
from schemas.pixels import open_picture, open_rgb
from schemas.png import chunks
from tests.photos import (
    BLUE,
    GREEN,
    RED,
    WHITE,
    box,
    corners,
    encode,
    orientation_tag,
    oriented,
    png_chunk,
    quadrants,
    with_chunks,
)

UPRIGHT = [RED, GREEN, BLUE, WHITE]


def xmp(orientation: int, form: str = "attribute") -> bytes:
    written = {
        "attribute": 'xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="{}"/>',
        "quotes": "xmlns:tiff='http://ns.adobe.com/tiff/1.0/' tiff:Orientation = '{}'/>",
        "element": 'xmlns:tiff="http://ns.adobe.com/tiff/1.0/"><tiff:Orientation> {} </tiff:Orientation>',
        "prefix": 'xmlns:t="http://ns.adobe.com/tiff/1.0/" t:Orientation="{}"/>',
    }[form]
    return ("<x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:Description " + written.format(orientation)).encode()


def exif_block(orientation: int) -> bytes:
    return orientation_tag(orientation).tobytes().removeprefix(b"Exif\x00\x00")


def raw_profile(content: bytes) -> bytes:
    """As ImageMagick writes a profile into a text chunk."""
    return b"\nexif\n%8d\n" % len(content) + content.hex().encode() + b"\n"


def uuid_box(uuid: bytes, content: bytes) -> bytes:
    return box(b"uuid", uuid + content)


def with_xmp(image_format: str, number: int, form: str = "attribute") -> bytes:
    """A picture on its side, and nothing but XMP says so."""
    stored, packet = oriented(quadrants(64, 32), number), xmp(number, form)
    if image_format == "PNG":
        return with_chunks(encode(stored, "PNG"), (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + packet))
    if image_format == "JPEG2000":
        uuid = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
        return encode(stored, "JPEG2000") + uuid_box(uuid, packet)
    options: dict[str, Any] = {"WEBP": {"lossless": True}, "AVIF": {"quality": 100, "subsampling": "4:4:4"}}.get(
        image_format, {}
    )
    if image_format == "TIFF":
        return encode(stored, "TIFF", tiffinfo={700: packet})
    return encode(stored, image_format, xmp=packet, **options)


def check(data: bytes, orientation: int) -> None:
    """Both ways of decoding give the upright picture, and the header has its size."""
    header, decoded, picture = read_header(data), decode(data), open_picture(data)
    assert header == decoded.header
    assert (header.width, header.height, header.exif_orientation) == (64, 32, orientation)
    assert decoded.image.tobytes() == picture.rgb.tobytes()
    assert decoded.image.size == (64, 32)
    assert np.allclose(corners(decoded.image), UPRIGHT, atol=40)


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "JPEG2000"])
@pytest.mark.parametrize("number", [1, 3, 6, 8])
def test_xmp_turns_a_picture_without_exif_in_every_format(image_format: str, number: int) -> None:
    check(with_xmp(image_format, number), number)


@pytest.mark.parametrize("form", ["quotes", "element", "prefix"])
@pytest.mark.parametrize("image_format", ["PNG", "TIFF", "JPEG"])
def test_every_spelling_of_xmp_is_read(image_format: str, form: str) -> None:
    check(with_xmp(image_format, 6, form), 6)


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_comes_before_xmp(image_format: str) -> None:
    options: dict[str, Any] = {"lossless": True} if image_format == "WEBP" else {}
    stored = oriented(quadrants(64, 32), 6)
    if image_format == "TIFF":
        data = encode(stored, "TIFF", tiffinfo={274: 6, 700: xmp(3)})
    elif image_format == "PNG":
        data = with_chunks(
            encode(stored, "PNG", exif=orientation_tag(6)), (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp(3))
        )
    else:
        data = encode(stored, image_format, exif=orientation_tag(6), xmp=xmp(3), **options)
    check(data, 6)


EVERY_TEXT = {
    "tEXt exif": (b"tEXt", b"Raw profile type exif\0" + raw_profile(b"Exif\0\0" + exif_block(6))),
    "tEXt exif without its mark": (b"tEXt", b"Raw profile type exif\0" + raw_profile(exif_block(6))),
    "zTXt APP1": (b"zTXt", b"Raw profile type APP1\0\0" + zlib.compress(raw_profile(b"Exif\0\0" + exif_block(6)))),
    "zTXt XMP in APP1": (
        b"zTXt",
        b"Raw profile type APP1\0\0" + zlib.compress(raw_profile(b"http://ns.adobe.com/xap/1.0/\0" + xmp(6))),
    ),
    "tEXt xmp": (b"tEXt", b"Raw profile type xmp\0" + raw_profile(xmp(6))),
    "iTXt, compressed": (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(xmp(6))),
    "eXIf": (b"eXIf", exif_block(6)),
}


@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize("name", EVERY_TEXT)
def test_the_orientation_of_a_png_is_found_in_every_chunk_that_can_hold_it(name: str, behind: bool) -> None:
    data = with_chunks(encode(oriented(quadrants(64, 32), 6), "PNG"), EVERY_TEXT[name], behind=behind)
    check(data, 6)
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (200, 100, 3), np.uint8))
    large = with_chunks(encode(noise, "PNG"), EVERY_TEXT[name], behind=behind)
    lazy = LazyBytes(large[:FIRST_BYTES], len(large), lambda begin, size: large[begin : begin + size])
    assert read_header(lazy) == read_header(large)
    assert read_header(lazy).exif_orientation == 6


@pytest.mark.parametrize("chunk_bytes", [100, 8192, LATE_BYTES // 2, LATE_BYTES + 99, 1 << 30])
def test_exif_behind_the_pixels_is_found_however_these_are_cut(chunk_bytes: int) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (400, 300, 3), np.uint8))
    stored = encode(noise, "PNG")
    pixels = b"".join(stored[start : start + length] for name, start, length in chunks(stored) if name == b"IDAT")
    begin = stored.index(b"IDAT") - 4
    cut = b"".join(png_chunk(b"IDAT", pixels[at : at + chunk_bytes]) for at in range(0, len(pixels), chunk_bytes))
    large = stored[:begin] + cut + png_chunk(b"eXIf", exif_block(6)) + png_chunk(b"IEND", b"")
    lazy = LazyBytes(large[:FIRST_BYTES], len(large), lambda begin, size: large[begin : begin + size])
    assert read_header(lazy) == read_header(large)
    assert read_header(lazy).exif_orientation == 6


def test_exif_of_a_jpeg_2000_turns_it() -> None:
    stored = encode(oriented(quadrants(64, 32), 8), "JPEG2000")
    check(stored + uuid_box(b"JpgTiffExif->JP2", exif_block(8)), 8)


@pytest.mark.parametrize("text", [b"Raw profile type exif\0\nexif\n 4\nzz", b"Raw profile type exif\0", b"", b"\0\0"])
def test_a_broken_text_turns_nothing(text: bytes) -> None:
    check(with_chunks(encode(quadrants(64, 32), "PNG"), (b"tEXt", text)), 1)


def test_a_chunk_with_a_wrong_checksum_turns_nothing() -> None:
    data = with_chunks(encode(quadrants(64, 32), "PNG"), (b"eXIf", exif_block(6)))
    at = data.index(b"eXIf")
    assert read_header(data[: at + 30] + bytes([data[at + 30] ^ 1]) + data[at + 31 :]).exif_orientation == 1


@given(st.binary(max_size=60), st.sampled_from([b"eXIf", b"iTXt", b"tEXt", b"zTXt", b"cICP", b"gAMA", b"cHRM"]))
@settings(max_examples=150, deadline=None)
def test_no_metadata_of_a_png_costs_its_pixels(payload: bytes, name: bytes) -> None:
    data = with_chunks(encode(quadrants(8, 8), "PNG"), (name, payload), behind=name not in (b"cICP",))
    assert open_rgb(data).size == (8, 8)


@given(st.binary(max_size=200), st.integers(0, 3))
@settings(max_examples=150, deadline=None)
def test_any_boxes_give_metadata_or_none(content: bytes, kind: int) -> None:
    data = encode(quadrants(8, 8), "JPEG2000")
    names = (b"uuid", b"jp2h", b"meta", b"colr")
    read_metadata(open_file(data), data[:12] + box(names[kind], content) + data[12:])


def tiff(values: np.ndarray, white_is_zero: bool = False, bits: int | None = None, **tags: Any) -> bytes:
    """An uncompressed TIFF of one channel, whose tags are given by number as `t340=...`."""
    kinds = {"f": 3, "i": 2, "u": 1}
    entries: dict[int, tuple[str, Any]] = {
        256: ("I", values.shape[1]), 257: ("I", values.shape[0]), 258: ("H", bits or values.itemsize * 8),
        259: ("H", 1), 262: ("H", 0 if white_is_zero else 1), 277: ("H", 1), 278: ("I", values.shape[0]),
        339: ("H", kinds[values.dtype.kind]),
    }  # fmt: skip
    entries |= {int(name[1:]): ("f", value) for name, value in tags.items()}
    pixels = values.astype(values.dtype.newbyteorder("<")).tobytes() if bits != 12 else _packed(values)
    start = 8 + 2 + 12 * (len(entries) + 2) + 4
    entries |= {273: ("I", start), 279: ("I", len(pixels))}
    codes = {"H": 3, "I": 4, "f": 11}
    table = b"".join(
        struct.pack("<HHI", tag, codes[code], 1) + struct.pack("<" + code, value).ljust(4, b"\0")
        for tag, (code, value) in sorted(entries.items())
    )
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + table + bytes(4) + pixels


def _packed(values: np.ndarray) -> bytes:
    """12 bits each, the first bit highest."""
    bits = "".join(f"{value:012b}" for value in values.ravel().tolist())
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


def grey(data: bytes) -> list[int]:
    seen = np.asarray(decode(data).image)
    assert np.array_equal(seen, np.asarray(open_rgb(data)))
    return [int(level) for level in seen[0, :, 0]]


WHOLE = np.linspace(0, 1, 256, dtype=np.float32)[None]
RAMP = list(range(256))


def test_one_bright_float_does_not_change_the_others() -> None:
    bright = np.repeat(WHOLE, 8, axis=0)
    for value in (1.0000002, 1.3, 400.0, np.inf):
        bright[7, 255] = value
        assert grey(tiff(bright)) == RAMP
        assert open_rgb(tiff(bright)).getpixel((255, 7)) == WHITE


def test_the_scale_of_floats_comes_from_their_tags() -> None:
    assert grey(tiff(WHOLE * 1000, t341=1000.0, t340=0.0)) == RAMP
    assert grey(tiff(WHOLE * 4 - 2, t341=2.0, t340=-2.0)) == RAMP
    assert grey(tiff(WHOLE * 0.5)) == pytest.approx([level / 2 for level in RAMP], abs=0.51)
    assert grey(tiff(WHOLE, t341=float("nan"))) == RAMP
    assert grey(tiff(WHOLE, white_is_zero=True)) == RAMP[::-1]


@pytest.mark.parametrize("values", [WHOLE * 255, WHOLE * 65535, WHOLE * 2 - 1, WHOLE * 1.1])
def test_floats_that_do_not_say_what_white_is_are_refused(values: np.ndarray) -> None:
    with pytest.raises(Unreadable, match="not between 0 and 1") as caught:
        decode(tiff(values))
    assert caught.value.reason == "hdr"


@pytest.mark.parametrize("order", [">", "<"])
def test_a_pfm_is_scaled_by_its_header(order: str) -> None:
    for scale in (1.0, 4.0):
        head = b"Pf\n256 1\n" + (b"-" if order == "<" else b"") + b"%g\n" % scale
        assert grey(head + (WHOLE / scale).astype(order + "f4").tobytes()) == RAMP


def test_integers_are_read_over_the_whole_range_of_their_type() -> None:
    levels = np.arange(256)[None]
    assert grey(tiff((levels * 257).astype(np.uint16))) == RAMP
    assert grey(tiff((levels * 257).astype(np.uint16), white_is_zero=True)) == RAMP[::-1]
    assert grey(tiff((levels * 257 - 32768).astype(np.int16))) == RAMP
    assert grey(tiff((levels * 16843009).astype(np.uint32))) == RAMP
    assert grey(tiff((levels * 16843009 - 2**31).astype(np.int32))) == RAMP
    assert grey(tiff((levels * 4095 // 255).astype(np.uint16), bits=12)) == RAMP
    assert grey(tiff((levels * 4).astype(np.uint16), t340=0.0, t341=1020.0)) == RAMP


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits", None])
def test_white_is_zero_in_16_bits_of_every_compression(compression: str | None) -> None:
    ramp = Image.fromarray((np.arange(256)[None] * 257).astype(np.uint16))
    assert grey(encode(ramp, "TIFF", compression=compression, tiffinfo={262: 0})) == RAMP[::-1]


def packed_png(depth: int, stored: list[int], key: int | None) -> bytes:
    """A PNG of one row of grey numbers of 1, 2, 4, 8 or 16 bits, one of which is transparent."""
    bits = "".join(f"{value:0{depth}b}" for value in stored)
    row = b"\0" + int(bits, 2).to_bytes(len(bits) // 8, "big")
    header = struct.pack(">IIBBBBB", len(stored), 1, depth, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), *([(b"tRNS", struct.pack(">H", key))] if key is not None else [])]
    chunks += [(b"IDAT", zlib.compress(row)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_the_transparent_grey_counts_in_the_bits_of_the_file(depth: int) -> None:
    most = (1 << depth) - 1
    stored = [0, most // 3, most // 2, most] * 2
    seen = [round(255 * value / most) for value in stored]
    assert grey(packed_png(depth, stored, None)) == pytest.approx(seen, abs=1)
    hidden = decode(packed_png(depth, stored, 0))
    assert np.asarray(hidden.image)[0, :, 0].tolist() == pytest.approx(
        [255 if value == 0 else level for value, level in zip(stored, seen, strict=True)], abs=1
    )
    assert hidden.alpha == sum(value == 0 for value in stored) / 8


def test_only_the_very_number_is_transparent_in_16_bits() -> None:
    stored = [0x8000, 0x8001, 0x80FF, 0x7FFF] * 2
    assert grey(packed_png(16, stored, 0x8001)) == [128, 255, 128, 127] * 2


def test_grey_of_16_bits_with_alpha_is_grey() -> None:
    """Pillow opens it as colour, which a grey profile would not fit."""
    row = b"\0" + struct.pack(">8H", 0x4040, 0xFFFF, 0x4040, 0x8080, 0xFFFF, 0xFFFF, 0, 0xFFFF)
    header = struct.pack(">IIBBBBB", 4, 1, 16, 4, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"gAMA", struct.pack(">I", 100_000)), (b"IDAT", zlib.compress(row)), (b"IEND", b""))
    data = b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)
    assert grey(data) == pytest.approx([137, 196, 255, 0], abs=1)


def test_the_transparent_colour_of_16_bits_is_found() -> None:
    row = b"\0" + struct.pack(">6H", 0x1234, 0x5678, 0x9ABC, 0x8000, 0x8000, 0x8000)
    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    key = struct.pack(">3H", 0x1234, 0x5678, 0x9ABC)
    chunks = ((b"IHDR", header), (b"tRNS", key), (b"IDAT", zlib.compress(row)), (b"IEND", b""))
    data = b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)
    assert grey(data) == [255, 128]


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("kind", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32"])
def test_numbers_of_every_type_in_both_byte_orders(order: Any, compression: str | None, kind: str) -> None:
    levels = np.arange(256)[None].repeat(4, axis=0)
    most = 1 if kind == "float32" else 2 ** int(kind[-2:].lstrip("t")) - 1
    stored = levels * most / 255 - ((most + 1) // 2 if kind.startswith("i") else 0)
    for white_is_zero in (False, True) if kind in ("uint8", "uint16", "float32") else (False,):
        file = io.BytesIO()
        photometric: Any = "miniswhite" if white_is_zero else "minisblack"
        tifffile.imwrite(file, stored.astype(kind), byteorder=order, compression=compression, photometric=photometric)
        assert grey(file.getvalue()) == (RAMP[::-1] if white_is_zero else RAMP)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("planes", ["contig", "separate"])
@pytest.mark.parametrize("channels", [3, 4])
def test_16_bits_of_colour_in_planes_or_not(order: Any, compression: str | None, planes: Any, channels: int) -> None:
    levels = np.kron(np.random.default_rng(1).integers(0, 256, (2, 2, channels)), np.ones((8, 8, 1), int))
    levels[..., 3:] = 255
    stored = (levels * 257).astype(np.uint16)
    file = io.BytesIO()
    tifffile.imwrite(
        file,
        np.moveaxis(stored, -1, 0) if planes == "separate" else stored,
        byteorder=order,
        compression=compression,
        photometric="rgb",
        planarconfig=planes,
        extrasamples=["unassalpha"] if channels == 4 else None,
    )
    assert np.array_equal(np.asarray(decode(file.getvalue()).image), levels[..., :3])
