"""A JPEG of a layout that the strict decoder does not know is checked as grey ones of the same codes."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from curation.images.decode import decode
from curation.images.header import Unreadable
from curation.images.jpeg_planes import grey_views
from curation.images.whole_jpeg import _objection, _samples_only
from schemas.jpeg_segments import SCAN, segments
from schemas.reasons import ImageError
from tests.photos import encode, photo

INKS = photo("chelsea.png").convert("CMYK").resize((203, 149))
KINDS: dict[str, dict[str, Any]] = {
    "4:2:0": {"subsampling": 2},
    "4:2:2": {"subsampling": 1},
    "restart markers": {"subsampling": 2, "restart_marker_blocks": 4},
    "progressive": {"subsampling": 2, "progressive": True},
    "progressive 4:2:2": {"subsampling": 1, "progressive": True},
    "progressive with restart markers": {"subsampling": 2, "progressive": True, "restart_marker_rows": 1},
}
FILES = {kind: encode(INKS, "JPEG", **options) for kind, options in KINDS.items()}
FILES |= {
    f"YCCK {kind}": FILES[kind].replace(b"Adobe\0\x64\0\0\0\0\0", b"Adobe\0\x64\0\0\0\0\2")
    for kind in ("4:2:0", "progressive")
}


def scans(data: bytes) -> list[tuple[int, int]]:
    """Where the data of each scan begins and ends."""
    return [(segment.end, segment.data_end) for segment in segments(data) if segment.marker == SCAN]


def reason(data: bytes) -> str | None:
    try:
        decode(data)
    except Unreadable as error:
        return error.reason
    return None


@pytest.mark.parametrize("kind", FILES)
def test_a_whole_file_is_kept(kind: str) -> None:
    assert reason(FILES[kind]) is None


@pytest.mark.parametrize("kind", FILES)
def test_a_hole_in_any_scan_is_found(kind: str) -> None:
    data = FILES[kind]
    for begin, end in scans(data):
        third = (end - begin) // 3
        assert reason(data[: begin + third] + data[end - third :]) in (ImageError.TRUNCATED, ImageError.CORRUPT), (
            begin,
            end,
        )


def test_a_code_that_no_table_has_is_found() -> None:
    """The rest of its restart interval is made up; the markers are all there."""
    data = FILES["restart markers"]
    begin, end = scans(data)[0]
    middle = data.index(b"\xff", (begin + end) // 2) + 2
    assert reason(data[:middle] + b"\xff\x00" * 4 + data[middle + 8 :]) in (ImageError.TRUNCATED, ImageError.CORRUPT)


@pytest.mark.parametrize("kind", FILES)
def test_what_pixels_do_not_depend_on_is_passed_over(kind: str) -> None:
    data = FILES[kind]
    pixels = decode(data).image.tobytes()
    first_end = scans(data)[0][1]
    tables = data.index(b"\xff\xdb")
    for harmless in (
        data + b"behind the end" * 9,
        data[:-2] + bytes(5) + data[-2:],
        data[:-2] + b"padded with words " * 9 + data[-2:],
        data[:first_end] + bytes(5) + data[first_end:],
        data[:first_end] + b"\xff" * 5 + data[first_end:],
        data[:tables] + b"between segments" + data[tables:],
        data[:tables] + b"\xff\xfe\x00\x07words" + data[tables:],
    ):
        assert decode(harmless).image.tobytes() == pixels


@pytest.mark.parametrize("kind", FILES)
def test_the_grey_files_of_a_whole_one_are_whole(kind: str) -> None:
    views = list(grey_views(_samples_only(FILES[kind])))
    assert len(views) == (5 if "progressive" in kind else 1)  # all inks at once, then each by itself
    assert [_objection(view) for view in views] == [""] * len(views)


def test_a_wide_picture_is_laid_down() -> None:
    """Seven blocks of each 16 px beside each other would be wider than any JPEG."""
    data = encode(Image.new("CMYK", (20_000, 20), (9, 9, 9, 9)), "JPEG", subsampling=2)
    (view,) = grey_views(_samples_only(data))
    assert _objection(view) == ""
    assert reason(data[:-20] + data[-2:]) == ImageError.TRUNCATED


@settings(max_examples=50)
@given(st.sampled_from(sorted(FILES)), st.randoms(use_true_random=False))
def test_damaged_headers_give_a_reason(kind: str, chance: random.Random) -> None:
    data = bytearray(FILES[kind][: scans(FILES[kind])[0][0] + 200])
    for _ in range(chance.randrange(1, 4)):
        data[chance.randrange(2, len(data))] = chance.choice((0, 1, 0x11, 0xFF, chance.randrange(256)))
    list(grey_views(_samples_only(bytes(data))))
    assert reason(bytes(data)) is not None
