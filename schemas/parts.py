"""The parts of a file: segments, chunks, blocks. Each costs its readers microseconds, however few bytes it has, so a
file of a few megabytes could take minutes. Whoever opens a picture counts them first."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import chain, islice, repeat

from schemas import tiff
from schemas.boxes import boxes, markers, number
from schemas.jpeg_segments import SCAN, segments
from schemas.slices import Sliced, TooManyParts, most_parts

MOST_SCANS = 100
"""Passes over a JPEG. Encoders make about ten; each costs a pass over all of its blocks, however few bytes it has."""
_HEADER = "bytes or more in its header"
USUAL_SCANS = 20
"""Passes that a JPEG of any size may have."""
SCANS = "scans"
_MOST = {SCANS: MOST_SCANS, "segments of EXIF": 100, "names of items": 20_000, _HEADER: most_parts(0)}
"""Parts that cost more the more there are. Pillow joins segments of EXIF one by one: a thousand of 64 KB take half a
minute. Each name of an item in a table of an AVIF is looked up among all before: 60,000 take 10 s."""


def check_parts(data: Sliced) -> Mapping[str, int]:
    """Count the parts of a file by kind, up to those that it may have. A JPEG or a GIF that is read lazily is not
    counted, nor a JPEG with too few bytes and scans to be refused, and a PNG's chunks are counted by
    `schemas.png.tidy`. Raises TooManyParts: says which."""
    head = data[0:8]
    known = head.startswith(_SIGNATURES)  # of most formats there is nothing to be gone through
    count = next((count for start, count in _COUNTS.items() if head.startswith(start)), None) if known else None
    if head[4:8] == b"ftyp":
        count = _items
    if count is None or (count in (_jpeg, _gif) and not isinstance(data, bytes)):
        return {}
    if count is _jpeg and isinstance(data, bytes) and len(data) <= _SHORT and len(_COSTLY.findall(data)) <= USUAL_SCANS:
        return {}
    most = most_parts(len(data))
    found = Counter(islice(count(data), most + 1))
    for kind, limit in _MOST.items():
        if found.get(kind, 0) > limit:
            raise TooManyParts(f"it has {found[kind]} {kind}, the limit is {limit}")
    if found.total() > most:
        raise TooManyParts(f"it has more than {most} {found.most_common(1)[0][0]} in its {len(data)} bytes")
    return found


def _jpeg(data: bytes) -> Iterator[str]:
    at = 2
    for segment in segments(data):
        if between := (segment.start - at) // 16:
            yield from repeat("runs of 16 bytes between segments", between)
        is_exif = segment.marker == 0xE1 and segment.payload.startswith(b"Exif\0\0")
        yield SCANS if segment.marker == SCAN else "segments of EXIF" if is_exif else "segments"
        at = segment.data_end


def _gif(data: bytes) -> Iterator[str]:
    return ("blocks" for _ in gif_blocks(data))


def gif_blocks(data: bytes) -> Iterator[int]:
    """Where each block and sub-block of a GIF is (GIF89a, appendix A), then the place behind them: that of the trailer
    or of bytes that are no block, or one behind the end of a file that is cut."""
    at = 13 + _gif_table(data, 10)
    while at < len(data) and data[at] in b"!,":
        yield at
        at += 2 if data[at] == 0x21 else 11 + _gif_table(data, at + 9)
        while at < len(data) and data[at]:
            yield at
            at += 1 + data[at]
        at += 1
    yield at


def _gif_table(data: bytes, at: int) -> int:
    """Bytes of the colour table that the flags at this place announce."""
    flags = number(data, at, 1)
    return 3 * (2 << (flags & 7)) if flags & 0x80 else 0


def _jp2(data: Sliced) -> Iterator[str]:
    headers = (box for box in boxes(data, 0, len(data)) if box.name == b"jp2h")
    inner = chain.from_iterable(boxes(data, box.start, min(box.end, len(data))) for box in headers)
    yield from ("boxes" for _ in chain(boxes(data, 0, len(data)), inner))
    yield from _codestream(data)


def _items(data: Sliced) -> Iterator[str]:
    """The boxes of tracks of an AVIF or HEIF, and the names of items in its tables (ISO/IEC 14496-12, 8.11; 23008-12,
    9.3)."""
    yield from _boxes_of_tracks(data, 0, len(data), _TO_TRACKS)
    metas = (box for box in boxes(data, 0, len(data)) if box.name == b"meta")
    tables = chain.from_iterable(boxes(data, meta.start + 4, min(meta.end, len(data))) for meta in metas)
    for name, start, end in tables:
        version = number(data, start, 1)
        wide, end, num = 4 if version else 2, min(end, len(data)), 0
        if name == b"iloc":
            num = number(data, start + 6, 4 if version == 2 else 2)
        elif name == b"iinf":
            num = number(data, start + 4, wide)
        elif name == b"iref":
            num = sum(1 + number(data, reference.start + wide, 2) for reference in boxes(data, start + 4, end))
        elif name == b"iprp":
            num = sum(number(data, box.start + 4, 4) for box in boxes(data, start, end) if box.name == b"ipma")
        yield from repeat("names of items", num)


def _boxes_of_tracks(data: Sliced, begin: int, end: int, names: tuple[bytes, ...]) -> Iterator[str]:
    for name, start, behind in boxes(data, begin, end):
        yield "boxes"
        if name in names[:1]:
            yield from _boxes_of_tracks(data, start, min(behind, len(data)), names[1:])


_TO_TRACKS = (b"moov", b"trak", b"mdia", b"minf", b"stbl")


def _codestream(data: Sliced) -> Iterator[str]:
    return ("markers" for _ in markers(data))


def _psd(data: Sliced) -> Iterator[str]:
    """Image resources."""
    start = 34 + number(data, 26, 4)
    section, at = data[start : start + number(data, start - 4, 4)], 0
    while at < len(section):
        yield "image resources"
        at += 8 + number(section, at + 6, 1) // 2 * 2
        size = number(section, at, 4)
        at += 4 + size + size % 2


def _tiff(data: Sliced) -> Iterator[str]:
    return repeat("strips or tiles", tiff.num_pieces(data))


def _ppm(data: Sliced) -> Iterator[str]:
    """The bytes of a header whose end is not found in those that every file may have: it is read byte by byte."""
    words = re.sub(rb"#[^\r\n]*", b"", data[0 : most_parts(0)]).split(maxsplit=4)
    is_whole = len(data) <= most_parts(0) or len(words) > (2 if data[1:2] in b"14" else 3)
    return repeat(_HEADER, 0 if is_whole else most_parts(0) + 1)


_COUNTS: dict[bytes, Callable[..., Iterator[str]]] = {
    b"\xff\xd8\xff": _jpeg,
    b"GIF8": _gif,
    b"II": _tiff,
    b"MM": _tiff,
    b"\0\0\0\x0cjP": _jp2,
    b"\xff\x4f\xff\x51": _codestream,
    b"8BPS": _psd,
    **{b"P" + letter: _ppm for letter in (b"1", b"2", b"3", b"4", b"5", b"6", b"f")},
}
"""Signature -> the parts of a file, each by the name of its kind."""
_SIGNATURES = tuple(_COUNTS)

_SHORT = 4 * most_parts(0)
"""Bytes of a JPEG that cannot have too many segments, each of four or more. To go through them takes longer than to
read the header."""
_COSTLY = re.compile(rb"\xff[\xda\xe1]")
"""Whatever may begin a scan or a segment of EXIF."""
