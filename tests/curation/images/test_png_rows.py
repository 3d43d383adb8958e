from __future__ import annotations

import io
import struct
import zlib
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from curation.images.decode import decode
from curation.images.header import Unreadable
from curation.images.png_rows import missing_rows, stream_bytes
from schemas.reasons import ImageError
from tests.photos import encode, photo, png_chunk


def png(width: int, height: int, rows: bytes, depth: int = 8, colour: int = 2, pieces: int = 1) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    stream = zlib.compress(rows)
    cuts = [len(stream) * piece // pieces for piece in range(pieces + 1)]
    chunks = [png_chunk(b"IDAT", stream[begin:end]) for begin, end in pairwise(cuts)]
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + b"".join(chunks) + png_chunk(b"IEND", b"")


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
