"""The data of a scan ends where a search for a marker says, and is searched when its end is asked for."""

from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.jpeg_segments import END, SCAN, segments
from tests.photos import encode, photo

HEAD = b"\xff\xd8\xff\xda\0\4\1\0"
MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
CODES = st.sampled_from(
    [b"\xff\0", b"\xff\xd3", b"\xff\xff", b"\xff", b"\xff\x01", b"\xff\xd8", b"\xff\xc4", b"\xff\xd9"]
)


@settings(max_examples=300, derandomize=True)
@given(
    st.lists(
        st.tuples(
            st.one_of(st.integers(0, 40), st.sampled_from([8189, 8190, 8191, 8192, 24_575, 24_576, 300_000])), CODES
        )
    )
)
def test_the_data_of_a_scan_ends_at_the_first_marker(runs: list[tuple[int, bytes]]) -> None:
    data = HEAD + b"".join(b"\x55" * length + code for length, code in runs)
    first = next(iter(segments(data)))
    found = MARKER.search(data, len(HEAD))
    assert (first.marker, first.end, first.payload) == (SCAN, len(HEAD), b"\1\0")
    assert first.data_end == (found.start() if found else len(data))


def test_segments_of_a_photograph() -> None:
    data = encode(photo("chelsea.png"), "JPEG", progressive=True)
    found = list(segments(data))
    assert found[-1].marker == END
    assert [each.start for each in found[1:]] == [each.data_end for each in found[:-1]]
    assert all(each.data_end == each.end for each in found if each.marker != SCAN)


def test_the_data_of_the_last_scan_is_not_searched_by_a_reader_of_heads() -> None:
    data = encode(photo("chelsea.png"), "JPEG")
    scan = next(segment for segment in segments(data) if segment.marker == SCAN)
    assert scan._data_end is None
    assert scan.data_end == len(data) - 2
