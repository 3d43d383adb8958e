"""A whole file of a flavour that the decoder lacks is unsupported, and the flavour named; a preview is no picture."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from curation.images.decode import decode
from curation.images.flavours import camera_raw
from curation.images.header import Unreadable, read_header
from schemas.reasons import ImageError
from tests.photos import encode, photo, png_chunk, quadrants

PREVIEW = np.asarray(photo("chelsea.png").resize((120, 80)))
MOSAIC = np.arange(200 * 300, dtype=np.uint16).reshape(200, 300)
RGB = np.asarray(photo("chelsea.png").resize((300, 200)))


def tiff_file(*pages: tuple[np.ndarray, dict[str, Any]], **options: Any) -> bytes:
    """A TIFF of pages as tifffile writes them."""
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer, **options) as writer:
        for pixels, how in pages:
            writer.write(pixels, metadata=None, **how)
    return buffer.getvalue()


def raw(below: np.ndarray, photometric: int | str, **options: Any) -> bytes:
    """A preview, and the photograph in a directory below it, as DNG, NEF and ARW are made."""
    return tiff_file(
        (PREVIEW, {"subfiletype": 1, "subifds": 1, "photometric": "rgb", **options}),
        (below, {"subfiletype": 0, "photometric": photometric}),
    )


DNG_VERSION = {"extratags": [(50706, 1, 4, (1, 4, 0, 0), True)]}
RAWS = {
    "a mosaic below": raw(MOSAIC, 32803),
    "a dng": raw(MOSAIC, 32803, **DNG_VERSION),
    "a linear dng": raw(RGB, 34892, **DNG_VERSION),
    "a full picture below": raw(RGB, "rgb"),
    "a mosaic in front": tiff_file((MOSAIC, {"photometric": 32803})),
    "a mosaic behind a page": tiff_file((PREVIEW, {"photometric": "rgb"}), (MOSAIC, {"photometric": 32803})),
    "a CR2": b"II*\0\x10\0\0\0CR\x02\0" + encode(quadrants(), "TIFF")[12:],
    "an ORF": b"IIRO\x08\0\0\0" + bytes(40),
    "an RW2": b"IIU\0\x18\0\0\0" + bytes(40),
    "a RAF": b"FUJIFILMCCD-RAW 0201" + bytes(40),
}


@pytest.mark.parametrize("name", RAWS)
def test_camera_raw_is_unsupported(name: str) -> None:
    for read in (read_header, decode):
        with pytest.raises(Unreadable) as caught:
            read(RAWS[name])
        assert caught.value.reason == ImageError.UNSUPPORTED
        assert caught.value.detail.endswith(": no decoder for this format")


def test_pictures_with_smaller_copies_below_are_no_raw() -> None:
    pyramid = tiff_file(
        (RGB, {"subifds": 2, "photometric": "rgb"}),
        (RGB[::2, ::2], {"subfiletype": 1, "photometric": "rgb"}),
        (RGB[::4, ::4], {"subfiletype": 1, "photometric": "rgb"}),
    )
    for data in (pyramid, tiff_file((RGB, {"photometric": "rgb", **DNG_VERSION})), encode(quadrants(), "TIFF")):
        assert camera_raw(data) is None
        assert decode(data).image.mode == "RGB"


def changed(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


JPEG = encode(quadrants(), "JPEG")
FRAME = JPEG.index(b"\xff\xc0")
BMP = encode(quadrants(), "BMP")
PNG = encode(quadrants(), "PNG")
PSD = b"8BPS" + struct.pack(">H6xHIIHH", 1, 3, 16, 16, 16, 3) + bytes(14) + bytes(2 * 3 * 256)
J2K = encode(quadrants(), "JPEG2000")
SIZE = J2K.index(b"\xff\x4f\xff\x51")
FIVE = bytes.fromhex("ff4fff51") + struct.pack(">HH8IH", 38 + 15, 0, 8, 8, 0, 0, 8, 8, 0, 0, 5) + bytes((7, 1, 1)) * 5
ONE_TILE = bytes.fromhex("ff90000a00000000000e0001ff93")
FLAVOURS = {
    "float RGB": (tiff_file((RGB.astype(np.float32), {"photometric": "rgb"})), "3 channels of 32-bit float RGB"),
    "double grey": (
        tiff_file((MOSAIC.astype(np.float64), {"photometric": "minisblack"})),
        "1 channel of 64-bit float grey",
    ),
    "half RGB": (tiff_file((RGB.astype(np.float16), {"photometric": "rgb"})), "3 channels of 16-bit float RGB"),
    "32-bit RGB": (tiff_file((RGB.astype(np.uint32), {"photometric": "rgb"})), "3 channels of 32-bit unsigned RGB"),
    "complex": (tiff_file((MOSAIC.astype(np.complex64), {"photometric": "minisblack"})), "64-bit complex float grey"),
    "12-bit JPEG": (changed(JPEG, FRAME + 4, b"\x0c"), "12 bits per channel"),
    "hierarchical JPEG": (changed(JPEG, FRAME + 1, b"\xc5"), "hierarchical coding"),
    "JPEG without a height": (changed(JPEG, FRAME + 5, b"\0\0"), "a height that is given behind its pixels"),
    "a BMP of a JPEG": (changed(BMP, 28, struct.pack("<HI", 0, 4)), "0 bits per pixel, a JPEG inside"),
    "a deep BMP": (changed(BMP, 28, struct.pack("<HI", 64, 0)), "64 bits per pixel, not compressed"),
    "a deep PSD": (PSD, "3 channels of 16-bit RGB"),
    "a PSB": (changed(PSD, 4, b"\0\2"), "a large document (PSB)"),
    "a PNG of iOS": (
        PNG[:8] + png_chunk(b"CgBI", bytes(4)) + PNG[8:33] + png_chunk(b"IDAT", b"\x4b\x4c") + PNG[-12:],
        "pixels as iOS keeps them (CgBI)",
    ),
    "a JPEG 2000 of five channels": (FIVE + ONE_TILE + b"\xff\xd9", "5 channels of 8 bits"),
}


@pytest.mark.parametrize("name", FLAVOURS)
def test_a_flavour_that_the_decoder_lacks_is_named(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    data, flavour = FLAVOURS[name]
    with pytest.raises(Unreadable) as caught:
        decode(data)
    assert caught.value.reason == ImageError.UNSUPPORTED, caught.value.detail
    assert ": no decoder for " in caught.value.detail
    assert flavour in caught.value.detail
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["float RGB", "32-bit RGB", "12-bit JPEG"])
def test_a_cut_file_of_such_a_flavour_is_truncated(name: str) -> None:
    data, _ = FLAVOURS[name]
    with pytest.raises(Unreadable) as caught:
        decode(data[: len(data) - 200])
    assert caught.value.reason == ImageError.TRUNCATED


def test_a_damaged_header_of_a_flavour_that_the_decoder_has_is_corrupt() -> None:
    for data in (
        changed(JPEG, FRAME + 9, b"\x00"),
        encode(quadrants(), "TIFF").replace(b"\x06\x01\x03\x00", b"\x06\x01\x00\x00"),
    ):
        with pytest.raises(Unreadable) as caught:
            decode(data)
        assert caught.value.reason == ImageError.CORRUPT, caught.value.detail


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "jpeg", "group4", "packbits"])
def test_damaged_strips_say_nothing_on_the_terminal(compression: str, capfd: pytest.CaptureFixture[str]) -> None:
    image = photo("chelsea.png").convert("1" if compression == "group4" else "RGB")
    data = encode(image, "TIFF", compression=compression)
    capfd.readouterr()
    middle = len(data) // 2
    try:
        decode(changed(data, middle, b"\xff" * 500))
    except Unreadable as refused:
        assert refused.reason in (ImageError.CORRUPT, ImageError.TRUNCATED)
    assert capfd.readouterr() == ("", "")


def test_tiles_of_a_lossless_tiff_are_decoded() -> None:
    tiled = tiff_file((RGB, {"photometric": "rgb", "tile": (64, 64), "compression": "zlib"}))
    assert decode(tiled).image.tobytes() == Image.fromarray(RGB).tobytes()
