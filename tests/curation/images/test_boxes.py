"""Bytes behind a whole JPEG 2000, AVIF or HEIF change nothing; a file that was cut is found wherever it was cut."""

from __future__ import annotations

import io
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.images.boxes import boxes, item_media_end, jpeg2000_end
from curation.images.decode import decode
from curation.images.header import Unreadable
from schemas.reasons import ImageError
from tests.photos import encode, orientation_tag, photo

PHOTO = photo("chelsea.png").resize((120, 80))


def raw_codestream(**options: Any) -> bytes:
    """A JPEG 2000 without boxes around it."""
    buffer = io.BytesIO()
    buffer.name = "a.j2k"
    PHOTO.save(buffer, "JPEG2000", **options)
    return buffer.getvalue()


WHOLE = {
    "jp2": encode(PHOTO, "JPEG2000"),
    "jp2 of tiles": encode(PHOTO, "JPEG2000", tile_size=(50, 50)),
    "codestream": raw_codestream(),
    "codestream of tiles": raw_codestream(tile_size=(50, 50)),
    "avif": encode(PHOTO, "AVIF"),
    "avif with alpha": encode(PHOTO.convert("RGBA"), "AVIF"),
    "avif with exif": encode(PHOTO, "AVIF", exif=orientation_tag(6)),
}
BEHIND = {
    "a newline": b"\n",
    "seven bytes": b"\0\1\2\3\4\5\6",
    "zeros": bytes(100),
    "a uuid box": struct.pack(">I4s", 40, b"uuid") + bytes(32),
    "a title": struct.pack(">I4s", 24, b"xml ") + b"<title>a cat</title>"[:16],
    "half a box": struct.pack(">I4s", 4000, b"uuid") + b"xmp",
    "another picture": encode(PHOTO.resize((20, 20)), "PNG"),
}


@pytest.mark.parametrize("behind", BEHIND)
@pytest.mark.parametrize("name", WHOLE)
def test_bytes_behind_the_picture_do_no_harm(name: str, behind: str) -> None:
    expected = decode(WHOLE[name]).image.tobytes()
    assert decode(WHOLE[name] + BEHIND[behind]).image.tobytes() == expected


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("missing", [1, 2, 3, 10, 300, 0.3, 0.7])
@pytest.mark.parametrize("end", [b"", b"\xff\xd9", b"\xff\xd9\n"])
def test_a_cut_file_is_truncated_whatever_end_it_was_given(name: str, missing: float, end: bytes) -> None:
    data = WHOLE[name]
    kept = len(data) - missing if isinstance(missing, int) else int(len(data) * (1 - missing))
    if end and missing in (1, 2, 3):
        return  # the file is as long as before
    with pytest.raises(Unreadable) as caught:
        decode(data[:kept] + (end if "avif" not in name else b""))
    assert caught.value.reason == ImageError.TRUNCATED, caught.value.detail


def test_a_tile_that_is_missing_is_found_behind_a_whole_end() -> None:
    data = raw_codestream(tile_size=(50, 50))
    last_tile = data.rindex(b"\xff\x90\x00\x0a")
    assert jpeg2000_end(data[:last_tile] + b"\xff\xd9") == "holds 5 of 6 tiles"
    with pytest.raises(Unreadable, match=r"truncated: JPEG2000: holds 5 of 6 tiles"):
        decode(data[:last_tile] + b"\xff\xd9")


def test_a_tile_that_reaches_to_the_end_is_whole_where_an_end_marker_follows() -> None:
    data = raw_codestream()
    length = data.rindex(b"\xff\x90\x00\x0a") + 6
    open_ended = data[:length] + bytes(4) + data[length + 4 :]
    assert jpeg2000_end(open_ended) is None
    assert jpeg2000_end(open_ended + b"\n") is None
    assert jpeg2000_end(open_ended[:-2]) == "no end-of-codestream marker"


def test_a_box_of_64_bits_and_one_that_reaches_to_the_end_of_the_file() -> None:
    long = struct.pack(">I4sQ", 1, b"mdat", 20) + b"abcd"
    rest = struct.pack(">I4s", 0, b"free") + b"xy"
    found = list(boxes(long + rest, 0, 30))
    assert [(box.name, box.start, box.end) for box in found] == [(b"mdat", 16, 20), (b"free", 28, 30)]


@pytest.mark.slow
@settings(max_examples=300, derandomize=True, deadline=2000)
@given(st.sampled_from(sorted(WHOLE)), st.data())
def test_any_bytes_are_whole_or_have_a_word(name: str, data: st.DataObject) -> None:
    changed = bytearray(WHOLE[name])
    for _ in range(data.draw(st.integers(1, 6))):
        changed[data.draw(st.integers(0, min(len(changed) - 1, 400)))] = data.draw(st.integers(0, 255))
    for check in (jpeg2000_end, item_media_end):
        assert check(bytes(changed)) is None or check(bytes(changed))
