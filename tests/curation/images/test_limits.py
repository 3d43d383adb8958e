"""A picture whose file is a bomb is refused, or costs what its size justifies."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import pytest
from PIL import Image

from curation.images.decode import decode
from curation.images.header import Unreadable, read_header
from schemas.jpeg_segments import SCAN, segments
from schemas.opening import MOST_SCANS
from schemas.pixels import PixelError, open_rgb
from schemas.png import MOST_ALIKE
from schemas.reasons import ImageError
from tests.photos import encode, photo, png_chunk, quadrants

PHOTO = photo("chelsea.png").resize((96, 64))


def refusal(data: bytes, max_pixels: int = 1_000_000) -> tuple[str, str]:
    with pytest.raises(Unreadable) as caught:
        decode(data, max_pixels=max_pixels)
    return caught.value.reason, caught.value.detail


def png_of(stream: bytes, between: bytes = b"") -> bytes:
    """A PNG of 256 x 256 px around a stream."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 256, 256, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + between + png_chunk(b"IDAT", stream) + png_chunk(b"IEND", b"")


def zeros(num_bytes: int) -> bytes:
    """A stream that inflates to so many zeros, made quickly."""
    packer, piece = zlib.compressobj(9), bytes(1 << 20)
    parts = [packer.compress(piece) for _ in range(num_bytes >> 20)]
    return b"".join([*parts, packer.flush()])


def test_a_stream_is_inflated_no_further_than_its_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    inflated: list[int] = []

    class Inflater:
        def __init__(self) -> None:
            self._inner = make_inflater()

        def __getattr__(self, name: str) -> Any:
            return getattr(self._inner, name)

        def decompress(self, *arguments: Any) -> bytes:
            found = self._inner.decompress(*arguments)
            inflated.append(len(found))
            return found

    make_inflater = zlib.decompressobj
    monkeypatch.setattr(zlib, "decompressobj", Inflater)
    assert decode(png_of(zeros(1 << 25))).image.size == (256, 256)
    assert 0 < sum(inflated) <= 1 << 20


def test_metadata_that_inflates_again_and_again_is_read_a_few_times() -> None:
    chunk = png_chunk(b"iCCP", b"name\0\0" + zeros(1 << 20))
    text = png_chunk(b"zTXt", b"Raw profile type exif\0\0" + zeros(1 << 20))
    bomb = png_of(zlib.compress(bytes(256 * 769)), (chunk + text) * 150)
    assert read_header(bomb).metadata_left_out == 2 * (150 - MOST_ALIKE)
    decode(bomb)


@pytest.mark.parametrize("num", [99, 101, 400])
def test_a_jpeg_has_as_many_scans_as_pictures_have(num: int) -> None:
    data = encode(PHOTO, "JPEG", progressive=True)
    last = [segment for segment in segments(data) if segment.marker == SCAN][-1]
    repeated = data[:-2] + data[last.start : last.data_end] * (num - 10) + data[-2:]
    reason, detail = refusal(repeated)
    assert reason == ImageError.CORRUPT
    assert (f"{num} scans, the limit is {MOST_SCANS}" in detail) == (num > MOST_SCANS)
    if num > MOST_SCANS:
        with pytest.raises(PixelError, match="the limit is"):
            open_rgb(repeated)  # in training, too


def test_thumbnails_are_no_scans_of_the_picture() -> None:
    thumbnail = encode(PHOTO.resize((16, 16)), "JPEG", progressive=True)
    segment = b"\xff\xe5" + struct.pack(">H", 2 + len(thumbnail)) + thumbnail
    data = encode(PHOTO, "JPEG")
    assert decode(data[:2] + segment * 40 + data[2:]).image.size == PHOTO.size


def test_a_tile_much_larger_than_its_tiff_is_refused() -> None:
    tags = [
        (256, 16),
        (257, 16),
        (258, 8),
        (259, 8),
        (262, 1),
        (277, 1),
        (322, 40_000),
        (323, 40_000),
        (324, 134),
        (325, 9),
    ]
    table = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    data = b"II*\0" + struct.pack("<IH", 8, len(tags)) + table + bytes(4) + zlib.compress(b"")
    assert refusal(data) == (ImageError.TOO_MANY_PIXELS, "TIFF: it has tiles of 40000x40000 px")


@pytest.mark.parametrize("size", [(1200, 900), (2000, 1000)])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_an_avif_is_as_large_as_it_is_coded(size: tuple[int, int], mode: str) -> None:
    """The size in its boxes is what Pillow says; the coded picture is decoded first, and then scaled to it."""
    data = encode(Image.new(mode, size, "navy"), "AVIF", speed=10)
    at = data.index(b"ispe") + 8
    lie = data[:at] + struct.pack(">II", 16, 16) + data[at + 8 :]
    coded = f"AVIF: it is coded as {size[0]}x{size[1]} px, the limit is 1000000 px"
    assert refusal(lie) == (ImageError.TOO_MANY_PIXELS, coded)
    assert decode(data, max_pixels=2_000_000).image.size == size


def test_a_frame_larger_than_the_screen_of_a_gif_counts() -> None:
    data = encode(Image.new("P", (1200, 900)), "GIF")
    small = data[:6] + struct.pack("<HH", 16, 16) + data[10:]
    assert refusal(small) == (ImageError.TOO_MANY_PIXELS, "1200x900 px, the limit is 1000000 px")


def test_a_jpeg_2000_whose_box_names_another_size_is_refused() -> None:
    data = encode(quadrants(), "JPEG2000")
    at = data.index(b"ihdr") + 4
    assert refusal(data[:at] + struct.pack(">II", 16, 16) + data[at + 8 :])[0] == ImageError.CORRUPT


@pytest.mark.parametrize("how", [{"codeblock_size": (4, 4)}, {"codeblock_size": (8, 8), "precinct_size": (16, 16)}])
def test_a_jpeg_2000_in_tiny_blocks_is_refused_where_it_is_large(how: dict[str, Any]) -> None:
    """Each block costs its decoder five kilobytes: 9 megapixels in blocks of 4 x 4 took 2.9 GB."""
    small = encode(Image.new("L", (64, 64)), "JPEG2000", **how)
    assert read_header(small).width == 64
    at, size = small.index(b"ihdr") + 4, small.index(b"\xff\x4f\xff\x51") + 8
    tiny = struct.pack(">II", 9000, 9000)
    large = small[:at] + tiny + small[at + 8 : size] + tiny + small[size + 8 :]
    reason, detail = refusal(large, max_pixels=100_000_000)
    assert reason == ImageError.TOO_MANY_PIXELS
    assert "blocks, the limit is 300000" in detail


def test_a_large_jpeg_2000_in_usual_blocks_is_no_bomb() -> None:
    data = encode(Image.new("L", (5000, 5000)), "JPEG2000")
    assert read_header(data, 50_000_000).width == 5000
