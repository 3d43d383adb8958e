"""A file of more parts than a picture has is refused before a library walks through them."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.images.decode import decode
from curation.images.header import Unreadable
from curation.images.lazy_bytes import LazyBytes
from schemas import tiff
from schemas.opening import open_file
from schemas.parts import _COUNTS, check_parts
from schemas.pixels import PixelError, open_rgb
from schemas.reasons import ImageError
from schemas.slices import TooManyParts, most_parts
from tests.bombs import BOMBS, GIF, JP2, JPEG, PHOTO, PNG, box, gif, jp2, jpeg, png, segment
from tests.photos import png_chunk

MANY = 12_000
REFUSED_ANYWAY = {"GIF: frames", "JPEG: restart intervals", "JPEG: markers without a length"}


@pytest.mark.parametrize("name", BOMBS)
def test_a_file_of_very_many_parts_is_refused_by_whoever_opens_it(name: str) -> None:
    data = BOMBS[name](MANY)
    found = f"it has more than {most_parts(len(data))} "
    if name.startswith("PPM"):
        found = "it has 10001 bytes or more in its header, the limit is 10000"
    with pytest.raises(Unreadable, match=found) as caught:
        decode(data)
    assert caught.value.reason == ImageError.CORRUPT
    assert caught.value.detail.startswith(f"{name.partition(':')[0]}: {found}")
    with pytest.raises(PixelError, match=found):
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


def item_tables(num: int) -> dict[str, bytes]:
    """Tables of an AVIF that name so many items."""
    references = b"".join(box(b"cdsc", struct.pack(">HHH", item, 1, 1)) for item in range(num // 2))
    several = box(b"dimg", struct.pack(">HH", 1, num) + bytes(2 * num))
    associations = box(b"ipma", struct.pack(">II", 0, num // 2) + b"\0\1\0" * (num // 2))
    return {
        "places": box(b"iloc", struct.pack(">IHH", 0, 0x4400, num) + bytes(6 * num)),
        "places of long numbers": box(b"iloc", struct.pack(">IHI", 2 << 24, 0x4400, num) + bytes(8 * num)),
        "descriptions": box(b"iinf", struct.pack(">IH", 0, num) + box(b"infe", bytes(4)) * num),
        "descriptions of long numbers": box(b"iinf", struct.pack(">II", 1 << 24, num) + box(b"infe", bytes(4)) * num),
        "references": box(b"iref", bytes(4) + references),
        "a reference to many": box(b"iref", bytes(4) + several),
        "associations": box(b"iprp", box(b"ipco", b"") + associations * 2),
    }


@pytest.mark.parametrize("name", item_tables(0))
def test_an_avif_of_very_many_items_is_refused(name: str) -> None:
    """Their reader looks each name up among all before: 60,000 in 360 KB took 10 s."""
    for num, padding in ((15_000, 0), (20_100, 2_000_000)):
        file = box(b"ftyp", b"avif\0\0\0\0avif") + box(b"meta", bytes(4) + item_tables(num)[name]) + bytes(padding)
        for read in (decode, open_rgb):
            with pytest.raises((Unreadable, PixelError), match="names of items"):
                read(file)
    check_parts(box(b"ftyp", b"avif\0\0\0\0avif") + box(b"meta", bytes(4) + item_tables(9_000)[name]))


def test_tracks_of_an_avif_are_parts() -> None:
    inner = b""
    for name in (b"stbl", b"minf", b"mdia", b"trak"):
        inner = box(name, inner)
    for movies in (box(b"moov", inner * 20_000), box(b"moov", inner) * 20_000):
        with pytest.raises(TooManyParts, match="boxes"):
            check_parts(box(b"ftyp", b"avis") + movies)
    check_parts(box(b"ftyp", b"avis") + box(b"moov", inner * 1000))


def test_directories_of_a_tiff_share_the_fields_that_it_may_have() -> None:
    """Directories may overlap: 190 of a thousand fields in 25 KB were walked four times."""
    num, size = 190, 2 + 12 * 3
    table = bytearray(16 + size * num + 2 + 12 * 1000 + 8)
    table[:8] = struct.pack("<4sI", b"II*\0", 16)
    for number in range(num):
        place, following = 16 + size * number, 16 + size * (number + 1)
        struct.pack_into("<HHHII", table, place, 1000, 256, 4, 1, 16)
        struct.pack_into("<I", table, place + 2 + 12 * 1000, following if number < num - 1 else 0)
    assert len(list(tiff.directories(bytes(table)))) == 10
    assert sum(found.num_fields for found in tiff.directories(bytes(table))) <= most_parts(len(table))


def test_whatever_large_metadata_a_photo_has_it_stays() -> None:
    """A profile in the most segments that there can be, 30 MB of XMP, and a header that is padded."""
    profile = b"".join(segment(0xE2, b"ICC_PROFILE\0" + bytes((number, 255, 0))) for number in range(1, 256))
    xmp = segment(0xE1, b"http://ns.adobe.com/xmp/extension/\0" + bytes(65_000)) * 500
    assert decode(jpeg(profile + xmp + b"\xff" * 65_000)).image.size == PHOTO.size


def test_bytes_behind_the_picture_are_no_parts() -> None:
    for data in (JPEG, GIF, PNG, JP2):
        assert decode(data + bytes(2_000_000)).image.size == PHOTO.size


@pytest.mark.slow
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


SIGNATURES = (*_COUNTS, b"\0\0\0\x10ftypavif", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
SMALL = [file(5) for file in BOMBS.values()] + [
    box(b"ftyp", b"avif") + box(b"meta", bytes(4) + table) for table in item_tables(4).values()
]


@settings(max_examples=400, derandomize=True)
@given(st.sampled_from(SIGNATURES), st.binary(max_size=200))
def test_any_bytes_behind_a_signature_are_counted_to_an_end(signature: bytes, rest: bytes) -> None:
    check_parts(signature + rest)


@pytest.mark.slow
@settings(max_examples=400, derandomize=True)
@given(st.sampled_from(SMALL), st.data())
def test_damaged_files_are_counted_to_an_end_and_lazily_alike(whole: bytes, draw: st.DataObject) -> None:
    damaged = bytearray(whole)
    for _ in range(draw.draw(st.integers(1, 4))):
        damaged[draw.draw(st.integers(0, len(whole) - 1))] = draw.draw(st.integers(0, 255))
    data = bytes(damaged[: draw.draw(st.integers(0, len(whole)))])
    lazy = LazyBytes(data[:20], len(data), lambda begin, count: data[begin : begin + count])
    said = []
    for each in (data, lazy):
        try:
            check_parts(each)
            said.append("")
        except TooManyParts as error:
            said.append(str(error))
    assert said[0] == said[1] or data.startswith((b"\xff\xd8", b"GIF8"))
