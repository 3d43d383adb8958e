"""Metadata of a PNG never refuses its pixels: what cannot be used is left out, and counted."""

from __future__ import annotations

import struct
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.images.decode import decode
from curation.images.header import Unreadable, read_header
from curation.images.lazy_bytes import FIRST_BYTES, LazyBytes
from schemas import png
from schemas.metadata import read_metadata
from schemas.opening import open_file
from schemas.pixels import open_rgb
from schemas.png import MAX_METADATA_BYTES, chunks, tidy
from schemas.reasons import ImageError
from tests.photos import BLUE, GREEN, RED, WHITE, corners, encode, photo, png_chunk, quadrants, swapped_primaries

WHOLE = encode(quadrants(), "PNG")


def with_chunk(
    name: bytes, payload: bytes, *, damaged: bool = False, behind: bool = False, data: bytes = WHOLE
) -> bytes:
    """The picture with one more chunk behind its header, or behind its pixels."""
    chunk = png_chunk(name, payload)
    chunk = chunk[:-1] + bytes([chunk[-1] ^ 1]) if damaged else chunk
    at = data.rindex(b"IEND") - 4 if behind else data.index(b"IHDR") + 4 + 13 + 4
    return data[:at] + chunk + data[at:]


def profile_chunk(profile: bytes) -> bytes:
    return b"name\0\0" + zlib.compress(profile)


LONG = zlib.compress(b"a" * 90_000_000)
TEXTS = {
    b"tEXt": b"Comment\0" + b"a" * 3_000_000,
    b"zTXt": b"Comment\0\0" + LONG,
    b"iTXt": b"Comment\0\1\0\0\0" + LONG,
}


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("behind", [False, True])
def test_texts_of_any_length_do_no_harm(name: bytes, behind: bool) -> None:
    data = with_chunk(name, TEXTS[name], behind=behind)
    decoded = decode(data)
    assert corners(decoded.image) == [RED, GREEN, BLUE, WHITE]
    assert decoded.header.metadata_left_out == 0
    assert open_rgb(data).tobytes() == decoded.image.tobytes()


@pytest.mark.parametrize(
    "name", [b"pHYs", b"tIME", b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"tEXt", b"eXIf", b"prIv", b"bKGD"]
)
@pytest.mark.parametrize("behind", [False, True])
def test_metadata_with_a_wrong_checksum_is_passed_over_and_counted(name: bytes, behind: bool) -> None:
    payload = profile_chunk(swapped_primaries()) if name == b"iCCP" else bytes(9)
    data = with_chunk(name, payload, damaged=True, behind=behind)
    decoded = decode(data)
    assert corners(decoded.image) == [RED, GREEN, BLUE, WHITE]
    assert decoded.header.metadata_left_out == (0 if name == b"tEXt" else 1)
    assert open_rgb(data).tobytes() == decoded.image.tobytes()


@pytest.mark.parametrize("name", [b"IHDR", b"IDAT", b"tRNS"])
def test_a_wrong_checksum_of_pixels_is_damage(name: bytes) -> None:
    data = with_chunk(b"tRNS", bytes(6), damaged=True) if name == b"tRNS" else WHOLE
    at = data.index(name) + 5
    with pytest.raises(Unreadable) as caught:
        decode(data if name == b"tRNS" else data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    assert caught.value.reason == ImageError.CORRUPT


def test_a_profile_of_two_megabytes_is_applied() -> None:
    profile = swapped_primaries() + bytes(2_000_000)
    profile = struct.pack(">I", len(profile)) + profile[4:]
    decoded = decode(with_chunk(b"iCCP", profile_chunk(profile)))
    assert corners(decoded.image)[:2] == [GREEN, RED]
    assert decoded.header.icc


def test_a_profile_that_inflates_without_end_is_passed_over() -> None:
    decoded = decode(with_chunk(b"iCCP", profile_chunk(bytes(3 * MAX_METADATA_BYTES))))
    assert (decoded.header.icc, decoded.header.metadata_left_out) == (False, 1)


def test_the_xmp_block_and_profiles_in_texts_are_read_without_the_decoder() -> None:
    xmp = with_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0<x:xmpmeta/>")
    assert read_metadata(open_file(xmp), xmp).xmp == b"<x:xmpmeta/>"
    raw = with_chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n 2\n4d4d\n"))
    assert read_metadata(open_file(raw), raw).exif == b"MM"
    assert not open_file(raw).info


def test_a_file_without_texts_is_not_copied() -> None:
    assert tidy(WHOLE) == (WHOLE, 0)
    assert tidy(WHOLE).data is WHOLE


def test_too_many_chunks_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(png, "most_parts", lambda num_bytes: 50)
    at = WHOLE.index(b"IDAT") - 4
    many = WHOLE[:at] + png_chunk(b"IDAT", b"") * 60 + WHOLE[at:]
    with pytest.raises(Unreadable, match="corrupt: PNG: it has more than 50 chunks"):
        decode(many)


@pytest.mark.parametrize("damaged", [False, True])
def test_the_header_alone_is_read_lazily(damaged: bool) -> None:
    """Pixels are not read, whatever is in front of them."""
    noise = encode(photo("coffee.png"), "PNG")
    data = with_chunk(b"iCCP", profile_chunk(swapped_primaries()), damaged=damaged, data=noise)
    lazy = LazyBytes(data[:FIRST_BYTES], len(data), lambda begin, count: data[begin : begin + count])
    assert read_header(lazy) == read_header(data)
    assert lazy.num_read < len(data) / 3


@pytest.mark.slow
@settings(max_examples=200, derandomize=True, deadline=2000)
@given(
    st.lists(st.tuples(st.sampled_from([b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"prIv", b"gAMA"]), st.binary(max_size=40)))
)
def test_whatever_metadata_is_there_the_chunks_of_pixels_stay(metadata: list[tuple[bytes, bytes]]) -> None:
    data = WHOLE
    for name, payload in metadata:
        data = with_chunk(name, payload, damaged=len(payload) % 2 == 1, behind=len(payload) % 3 == 1, data=data)
    left = [chunk.name for chunk in chunks(tidy(data).data)]
    assert [name for name in left if name[0] < 96] == [chunk.name for chunk in chunks(WHOLE)]
    assert tidy(tidy(data).data).data == tidy(data).data
