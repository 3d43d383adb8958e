from __future__ import annotations

import io
import struct
import zlib
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from PIL import Image

from curation.images.decode import decode
from curation.images.header import Unreadable
from curation.images.whole import ADAM7, missing_part, missing_rows, stream_bytes
from schemas.reasons import ImageError
from tests.photos import encode, photo, png_chunk


def png(width: int, height: int, rows: bytes, depth: int = 8, colour: int = 2, pieces: int = 1) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    stream = zlib.compress(rows)
    cuts = [len(stream) * piece // pieces for piece in range(pieces + 1)]
    chunks = [png_chunk(b"IDAT", stream[begin:end]) for begin, end in pairwise(cuts)]
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + b"".join(chunks) + png_chunk(b"IEND", b"")


def png_interlaced(width: int, height: int, pixels: bytes, num_missing: int = 0) -> bytes:
    """A grey Adam7 file of one level, without the last bytes of its stream."""
    rows = b""
    for x, y, step_x, step_y in ADAM7:
        columns = len(range(x, width, step_x))
        rows += (b"\x00" + pixels[:columns]) * len(range(y, height, step_y)) if columns else b""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 1)
    stream = zlib.compress(rows[: len(rows) - num_missing])
    chunks = ((b"IHDR", header), (b"IDAT", stream), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


def filtered(image: Image.Image) -> bytes:
    return b"".join(b"\x00" + row.tobytes() for row in np.asarray(image))


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.99])
def test_a_valid_stream_that_ends_early_is_truncated(kept: float) -> None:
    """Every chunk is whole and every checksum is right; Pillow takes it, with black where rows are missing."""
    image = photo("chelsea.png")
    rows = filtered(image)
    data = png(*image.size, rows[: int(len(rows) * kept)], pieces=3)
    assert Image.open(io.BytesIO(data)).convert("RGB").getpixel((0, image.height - 1)) == (0, 0, 0)
    with pytest.raises(Unreadable) as caught:
        decode(data)
    assert caught.value.reason == ImageError.TRUNCATED
    assert caught.value.detail == f"PNG: its stream holds {int(len(rows) * kept)} of {len(rows)} bytes of pixels"


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
@pytest.mark.parametrize("num_missing", [1, 7, 40])
def test_a_missing_last_row_is_found_in_every_colour_type(mode: str, num_missing: int) -> None:
    image = photo("chelsea.png").resize((5, 3)).convert(mode)
    rows = filtered(image)
    colour = {"L": 0, "LA": 4, "RGB": 2, "RGBA": 6}[mode]
    decode(png(5, 3, rows, colour=colour))
    num_missing = min(num_missing, len(rows))
    with pytest.raises(Unreadable) as caught:
        decode(png(5, 3, rows[: len(rows) - num_missing], colour=colour))
    assert caught.value.reason == ImageError.TRUNCATED


def test_missing_rows_of_an_interlaced_file_are_found() -> None:
    """Its last row comes before its last pass, so that the last row says nothing."""
    white = png_interlaced(8, 7, b"\xff" * 8 * 7)
    decode(white)
    half = png_interlaced(8, 7, b"\xff" * 8 * 7, num_missing=9)
    loaded = Image.open(io.BytesIO(half))
    assert any(loaded.convert("L").crop((0, 6, 8, 7)).tobytes())
    with pytest.raises(Unreadable) as caught:
        decode(half)
    assert (caught.value.reason, caught.value.detail) == (
        ImageError.TRUNCATED,
        f"PNG: its stream holds {stream_bytes(8, 7, 8, True) - 9} of {stream_bytes(8, 7, 8, True)} bytes of pixels",
    )


@pytest.fixture
def inflaters(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Those that Python has made; Pillow's are C."""
    made: list[Any] = []
    make_inflater = zlib.decompressobj
    monkeypatch.setattr(zlib, "decompressobj", lambda: made.append(make_inflater()) or made[-1])
    return made


def test_a_normal_file_is_inflated_once(inflaters: list[Any]) -> None:
    """Pillow inflates it in C; we do again only where it has left the last row as it was."""
    image = photo("chelsea.png")
    decode(png(*image.size, filtered(image)))
    for colour in ("white", "black"):
        decode(encode(Image.new("RGB", (9, 9), colour), "PNG"))
        for mode in ("1", "L", "LA", "P", "RGBA", "I;16"):
            decode(encode(Image.new("L", (33, 17), colour).convert(mode), "PNG"))
    for width, height in ((33, 17), (8, 9), (9, 1), (2, 40)):
        for level in (b"\0", b"\xff"):
            decode(png_interlaced(width, height, level * width))
    assert inflaters == []


@pytest.mark.parametrize("level", [b"\0", b"\x80", b"\xff"])
def test_a_row_that_is_missing_of_an_interlaced_file_is_found_whichever_pass_is_its_last(level: bytes) -> None:
    for width in range(1, 10):
        for height in range(1, 10):
            assert decode(png_interlaced(width, height, level * width)).image.size == (width, height)
            with pytest.raises(Unreadable, match=r"^truncated: PNG: "):
                decode(png_interlaced(width, height, level * width, num_missing=1))


def test_one_missing_byte_counts_and_more_than_enough_does_not() -> None:
    rows = filtered(photo("chelsea.png").resize((5, 3)))
    assert missing_rows(png(5, 3, rows[:-1])) is not None
    assert missing_rows(png(5, 3, rows)) is None
    assert missing_rows(png(5, 3, rows + rows)) is None


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
@pytest.mark.parametrize("size", [(1, 1), (7, 5), (33, 17)])
def test_whole_files_of_every_mode(mode: str, size: tuple[int, int]) -> None:
    image = photo("chelsea.png").resize(size)
    image = image.convert("L").convert(mode) if mode == "I;16" else image.convert(mode)
    assert missing_rows(encode(image, "PNG")) is None


def test_bytes_of_interlaced_rows() -> None:
    """8 x 8 px of 8 bits: passes of 1x1, 1x1, 2x1, 2x2, 4x2, 4x4 and 8x4 px, with a filter byte per row."""
    assert stream_bytes(8, 8, 8, interlaced=True) == 64 + (1 + 1 + 1 + 2 + 2 + 4 + 4)
    assert stream_bytes(1, 1, 8, interlaced=True) == 2
    assert stream_bytes(5, 3, 1, interlaced=False) == 3 * 2


@pytest.mark.parametrize("ground", ["black", "white"])
@pytest.mark.parametrize(
    "options",
    [
        {"image_format": "WEBP", "quality": 100, "method": 0},
        {"image_format": "WEBP", "quality": 80},
        {"image_format": "WEBP", "lossless": True, "quality": 0, "method": 0},
        {"image_format": "AVIF", "quality": 60, "speed": 10},
    ],
)
def test_a_plain_ground_is_no_part_that_is_missing(ground: str, options: dict[str, Any]) -> None:
    image = Image.new("RGB", (2000, 1500), ground)
    image.paste(photo("coffee.png"), (0, 0))
    for whole in (image, Image.new("RGB", image.size, ground)):
        assert missing_part(encode(whole, **options), options["image_format"], whole, False) is None


@pytest.mark.parametrize(("image_format", "num_zeros"), [("WEBP", 4200), ("AVIF", 520)])
def test_zeros_among_lossy_pixels_are_a_part_that_is_missing(image_format: str, num_zeros: int) -> None:
    image = photo("coffee.png")
    data = bytearray(encode(image, image_format))
    middle = len(data) // 2
    data[middle : middle + num_zeros] = bytes(num_zeros)
    assert "nothing but zeros" in str(missing_part(bytes(data), image_format, image, False))
