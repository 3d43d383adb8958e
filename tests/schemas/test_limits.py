"""A picture whose file is a bomb is refused, or costs what its size justifies."""

from __future__ import annotations

import struct
import time
import zlib
from typing import Any

import pytest
from PIL import Image

from curation.images.decode import decode
from curation.images.header import Unreadable, read_header
from curation.images.whole import missing_rows
from schemas.boxes import items
from schemas.colour import Colour, colour_of
from schemas.jpeg_segments import SCAN, segments
from schemas.limits import MAX_SIDE, too_large
from schemas.metadata import Metadata
from schemas.opening import open_file
from schemas.parts import MOST_SCANS
from schemas.pixels import PixelError, open_rgb
from schemas.png import MOST_ALIKE
from schemas.reasons import ImageError
from tests.photos import encode, photo, png_chunk, quadrants

PHOTO = photo("chelsea.png").resize((96, 64))


def refusal(data: bytes, max_pixels: int = 1_000_000) -> tuple[str, str]:
    with pytest.raises(Unreadable) as caught:
        decode(data, max_pixels=max_pixels)
    if caught.value.reason == ImageError.TOO_MANY_PIXELS:
        with pytest.raises(PixelError):  # whoever opens it without curation refuses it, too
            open_rgb(data, max_pixels=max_pixels)
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
    data = png_of(zeros(1 << 25))
    assert decode(data).image.size == (256, 256)
    assert not inflated  # by Pillow alone
    assert missing_rows(data) is None
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


def test_a_large_jpeg_has_fewer_scans_than_a_small_one() -> None:
    """What a scan costs is a pass over all blocks, which 100 MB of the header alone can ask for."""
    data = encode(PHOTO, "JPEG", progressive=True)
    frame = data.index(b"\xff\xc2") + 5
    last = [segment for segment in segments(data) if segment.marker == SCAN][-1]
    for num, side, limit in ((20, 17_000, None), (21, 17_000, 20), (55, 3000, None), (56, 3000, 55)):
        size = struct.pack(">HH", side, side)
        scans = data[last.start : last.data_end] * (num - 10)
        large = data[:frame] + size + data[frame + 4 : -2] + scans + data[-2:]
        image = open_file(large)
        detail = f"JPEG: it has {num} scans, the limit for {side * side} px is {limit}"
        assert too_large(image, large, image.size, 300_000_000) == (limit and detail)


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


@pytest.mark.slow
def test_a_large_jpeg_2000_in_usual_blocks_is_no_bomb() -> None:
    data = encode(Image.new("L", (5000, 5000)), "JPEG2000")
    assert read_header(data, 50_000_000).width == 5000


def test_a_picture_of_a_million_rows_is_refused_however_short_they_are() -> None:
    """A row takes 70 bytes besides its pixels: 300 megapixels of one column took 20 GB."""
    for size in ((1, MAX_SIDE + 1), (MAX_SIDE + 1, 1)):
        header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", *size, 8, 2, 0, 0, 0))
        data = b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", b"") + png_chunk(b"IEND", b"")
        detail = f"{size[0]}x{size[1]} px, the limit of a side is 1000000 px"
        assert refusal(data, 10_000_000) == (ImageError.TOO_MANY_PIXELS, detail)


@pytest.mark.parametrize("num", [1000, 200_001])
def test_a_tiff_has_as_many_strips_as_scans_have_rows(num: int) -> None:
    """Each strip costs Pillow 8 microseconds, and all of them can be the same bytes."""
    tags = [(256, 4), (257, num), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, 1), (279, 12)]
    places, lengths = struct.pack("<I", 8) * num, struct.pack("<I", 4) * num
    start = 12 + len(places) + len(lengths)
    values = {273: 12, 279: 12 + len(places)}
    table = b"".join(
        struct.pack("<HHII", tag, 4, num if tag in values else 1, values.get(tag, value)) for tag, value in tags
    )
    data = b"II*\0" + struct.pack("<I4s", start, bytes(4)) + places + lengths + struct.pack("<H", len(tags)) + table
    data += bytes(4)
    if num == 1000:
        assert decode(data).image.size == (4, 1000)
    else:
        assert refusal(data) == (
            ImageError.CORRUPT,
            "TIFF: it has more than 22501 strips or tiles in its 1600134 bytes",
        )
        with pytest.raises(PixelError, match="22501 strips"):
            open_rgb(data)


def avif_of(*parts: list[bytes], inside: bool = False) -> bytes:
    """An AVIF whose items are made of these parts, in its list of items or behind it."""

    def box(name: bytes, payload: bytes) -> bytes:
        return struct.pack(">I4s", 8 + len(payload), name) + payload

    def file(begin: int) -> bytes:
        table, at = struct.pack(">4sHH", b"\1\0\0\0", 0x4400, len(parts)), begin
        for number, item in enumerate(parts):
            table += struct.pack(">HHHH", number, inside, 0, len(item))
            for part in item:
                table += struct.pack(">II", at, len(part))
                at += len(part)
        pixels = b"".join(b"".join(item) for item in parts)
        meta = bytes(4) + box(b"iloc", table) + (box(b"idat", pixels) if inside else b"")
        return box(b"ftyp", b"avif") + box(b"meta", meta) + (b"" if inside else box(b"mdat", pixels))

    return file(0 if inside else len(file(0)) - sum(len(part) for item in parts for part in item))


def large_avif(data: bytes, size: tuple[int, int], max_pixels: int) -> str | None:
    image = Image.new("L", (1, 1))
    image.format = "AVIF"
    return too_large(image, data, size, max_pixels)


@pytest.mark.parametrize("inside", [False, True])
def test_the_coded_size_of_an_avif_is_found_wherever_its_bytes_are(inside: bool) -> None:
    source = encode(Image.new("RGB", (1200, 900), "navy"), "AVIF", speed=10)
    ((start, end),) = next(items(source))
    units = source[start:end]
    padding = b"\x7a\x90\x03" + bytes(400)  # a unit of padding in front
    for parts in ([units], [padding + units], [units[:1], units[1:4], units[4:]]):
        large = large_avif(avif_of(parts, inside=inside), (16, 16), 1_000_000)
        assert large == "AVIF: it is coded as 1200x900 px, the limit is 1000000 px"
        assert large_avif(avif_of(parts, inside=inside), (1200, 900), 2_000_000) is None
    assert large_avif(avif_of(*[[units]] * 64, inside=inside), (16, 16), 2_000_000) == (
        "AVIF: it is coded as 69120000 px in all, the limit is 2000000 px"
    )
    hidden = units + b"\x32\x01\0" * 17
    assert large_avif(avif_of([hidden], inside=inside), (1200, 900), 2_000_000) == (
        "AVIF: it is coded in more than 16 frames"
    )


def test_an_avif_is_made_of_few_units() -> None:
    """One of 12 MB in units of two bytes took 3 s."""
    units = b"\x12\0" * 10_000
    assert large_avif(avif_of([units], [units]), (16, 16), 1_000_000) == "AVIF: it has more than 10313 units"
    assert large_avif(avif_of([units]), (16, 16), 1_000_000) is None


def test_the_first_frame_of_a_sequence_is_as_large_as_it_is_coded() -> None:
    frames = [Image.new("RGB", (1200, 900), colour) for colour in ("navy", "red")]
    data = encode(frames[0], "AVIF", speed=10, save_all=True, append_images=frames[1:])
    for layout, factor in ((">II", 1), (">II", 1 << 16), (">HH", 1)):
        data = data.replace(struct.pack(layout, 1200 * factor, 900 * factor), struct.pack(layout, factor, factor))
    assert refusal(data) == (ImageError.TOO_MANY_PIXELS, "AVIF: it is coded as 1200x900 px, the limit is 1000000 px")


def test_a_jpeg_2000_of_a_tile_for_each_pixel_is_refused() -> None:
    data = encode(Image.new("L", (255, 255)), "JPEG2000", tile_size=(64, 64))
    at = data.index(b"\xff\x4f\xff\x51") + 24
    assert "blocks, the limit is 10508" in refusal(data[:at] + struct.pack(">II", 1, 1) + data[at + 8 :])[1]


@pytest.mark.parametrize(("num", "is_used"), [(2, True), (64, True), (65, False), (100_000, False)])
def test_a_profile_is_no_endless_chain_of_elements(num: int, is_used: bool) -> None:
    """A kilobyte, compressed, of a chain of 20,000 took 20 s to apply to a picture of any size."""
    element = b"matf" + bytes(4) + struct.pack(">HH12f", 3, 3, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0)
    places = struct.pack(">II", 16 + 8 * num, len(element)) * num
    chain = b"mpet" + bytes(4) + struct.pack(">HHI", 3, 3, num) + places + element
    tags = struct.pack(">I4sII", 1, b"D2B1", 144, len(chain))
    head = struct.pack(
        ">II4s4s4s4s12s4s", 144 + len(chain), 0, b"\4\x30\0\0", b"mntr", b"RGB ", b"XYZ ", bytes(12), b"acsp"
    )
    profile = head + bytes(28) + struct.pack(">3i", 63190, 65536, 54061) + bytes(48) + tags + chain
    found = colour_of("PNG", Metadata(icc=profile), "RGB", False)
    assert found == (Colour("icc", profile) if is_used else Colour())


def test_a_thousand_prefixes_of_xmp_cost_no_search_each() -> None:
    names = b"".join(b' xmlns:p%d="http://ns.adobe.com/tiff/1.0/"' % number for number in range(20_000))
    xmp = b"<x" + names + b" q:x" * 200_000 + b' p19999:Orientation="6"/>'
    assert read_header(encode(Image.new("RGB", (8, 4)), "WEBP", xmp=xmp)).exif_orientation == 6


def test_a_word_of_a_million_letters_in_xmp_costs_no_search_at_each_letter() -> None:
    """Two kilobytes, compressed, took 2.5 s."""
    begun = time.process_time()
    for word in (b"a" * 2_000_000, b"a:Orientation" * 150_000, b"xmlns:" * 300_000):
        xmp = b"<x " + word + b' tiff:Orientation = "6"/>'
        assert read_header(encode(Image.new("RGB", (8, 4)), "WEBP", xmp=xmp)).exif_orientation == 6
    assert time.process_time() - begun < 1


def slow_pictures(width: int, height: int) -> dict[str, bytes]:
    """Pictures that Pillow decodes pixel by pixel in Python, without their pixels."""
    bmp = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, 0, 0, 0, 256, 0) + bytes(1024)
    dds = struct.pack(
        "<7I44x8I20x", 124, 0x1007, height, width, 0, 0, 0, 32, 0x41, 0, 32, 0xFF0000, 0xFF00, 0xFF, 0xFF << 24
    )
    return {
        "QOI": b"qoif" + struct.pack(">IIBB", width, height, 3, 0),
        "BMP": b"BM" + struct.pack("<IHHI", 54 + len(bmp), 0, 0, 14 + len(bmp)) + bmp,
        "DDS": b"DDS " + dds,
        "PPM": b"P3 %d %d 255\n" % (width, height),
    }


@pytest.mark.parametrize("name", slow_pictures(1, 1))
def test_a_picture_that_is_decoded_slowly_is_smaller_than_others(name: str) -> None:
    assert refusal(slow_pictures(8000, 4001)[name], 100_000_000) == (
        ImageError.TOO_MANY_PIXELS,
        f"{name}: it is of a kind that is decoded slowly, and the limit for these is 32000000 px",
    )
    assert "bytes, where 256 px need at most" in refusal(slow_pictures(16, 16)[name] + bytes(1 << 21))[1]
    assert read_header(slow_pictures(8000, 4000)[name]).width == 8000


def test_a_ppm_of_a_million_comments_is_refused() -> None:
    data = b"P2 2 2 255\n%b1 2 3 4\n"
    assert decode(data % (b"#\n" * 1000)).image.size == (2, 2)
    assert refusal(data % (b"#\n" * 1001)) == (
        ImageError.TOO_MANY_PIXELS,
        "PPM: it has 1001 comments, the limit is 1000",
    )


def test_300_megapixels_of_jpeg_2000_in_tiles_of_128_px_stay() -> None:
    data = encode(Image.new("L", (255, 255)), "JPEG2000", tile_size=(128, 128))
    box, size = data.index(b"ihdr") + 4, data.index(b"\xff\x4f\xff\x51") + 8
    large = struct.pack(">II", 17_300, 17_300)
    data = data[:box] + large + data[box + 8 : size] + large + data[size + 8 :]
    assert read_header(data).width == 17_300
