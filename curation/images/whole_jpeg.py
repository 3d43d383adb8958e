"""What is missing or damaged in a JPEG that Pillow takes: it gives a picture for half a file with an end marker.
libjpeg fills what is missing or damaged with flat blocks, or with coarser ones where the file is progressive, and gives
a warning that Pillow drops. Three checks find such files: a strict decoder (`decode_whole`), the headers of the scans
(`missing_scans`), and a second decode where the strict decoder cannot be used (`missing_blocks`)."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

import pyarrow as pa
import simplejpeg
from PIL import Image

from curation.images.jpeg_planes import grey_views
from schemas.jpeg_segments import SCAN, is_frame, is_metadata, segments
from schemas.opening import open_file
from schemas.pixels import DECODER_ERRORS

_SEQUENTIAL = (0xC0, 0xC1)
"""Start-of-frame markers of baseline and extended sequential JPEG (ITU-T T.81, table B.1)."""
_LAYOUTS = {"RGB": "RGBX", "L": "GRAY", "CMYK": "CMYK"}
"""Pillow's mode -> the decoder's colour space in which a pixel has as many bytes as Pillow's own."""

_ENDINGS = {
    "premature end of data segment": "its data ends before its last block",
    "premature end of jpeg file": "the file ends before its end marker",
}
"""libjpeg's warnings about data that ends early -> what is missing."""

_NUM_FREQUENCIES = 64
_UNSENT = 255
"""Stands for "no bit sent yet"; a real value is at most 13."""

_UNKNOWN_LAYOUT = "Could not determine subsampling"
_PADDING = bytes(64)
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
_DAMAGE = re.compile(r"corrupt jpeg data: (.*)|(inconsistent progression .*)", re.IGNORECASE)
"""libjpeg's warnings about data that it could not follow; the others are about what pixels do not depend on."""
_GAP = re.compile(r"(\d+) extraneous bytes before marker 0x([0-9a-f]{2})", re.IGNORECASE)
"""libjpeg's warning about bytes that are left when a scan is whole: padding, or the rest of a scan that it misread."""
_PADDING_BYTES = 8
"""So many bytes are padding, whatever they are; more are where they are all the same, or readable text."""
_MOST_TRIES = 24
_USUAL_SCANS = 12
"""Decodes, at an eighth of the size, that one file of so many scans is worth; one of more scans gets fewer."""


class EndsEarly(ValueError):
    """The data of a JPEG ends before its picture is whole."""


class Damaged(ValueError):
    """The data of a JPEG is damaged in the middle."""


def decode_whole(image: Image.Image, data: bytes) -> Image.Image | None:
    """The pixels of an opened JPEG if none of them is filled in.

    `simplejpeg` is the same libjpeg-turbo as Pillow's and gives the same pixels, but its warnings are errors.

    Args:
        image: opened from `data` and not loaded; its size after `draft` is the size that comes out.
        data: the whole file.

    Returns:
        A loaded picture with the metadata of `image`. None where the decoder objects to what pixels do not depend on,
        such as bytes between two segments, and where it does not know the layout: Pillow decodes these.

    Raises:
        EndsEarly, Damaged: says what is missing or damaged.
    """
    if image.mode not in _LAYOUTS:
        return None
    try:
        pixels = simplejpeg.decode_jpeg(data, _LAYOUTS[image.mode], min_width=image.width, min_height=image.height)
    except ValueError as objection:
        _refuse_damage(data, _UNKNOWN_LAYOUT in str(objection))
        return None
    if pixels.shape[:2] != (image.height, image.width):
        return None
    if image.mode == "CMYK":
        pixels = ~pixels  # Pillow stores the ink inverted
    whole = Image.fromarrow(pa.array(pixels.reshape(-1)), image.mode, image.size)  # without a copy
    whole.info = dict(image.info)
    return whole


def _refuse_damage(data: bytes, is_unknown_layout: bool) -> None:
    """Refuse a file whose samples the strict decoder cannot follow. The decoder names its first objection and stops. So
    all that may be objected to without harm is taken away first: metadata, bytes between segments, padding behind
    scans, band limits that a sequential scan does not use."""
    pieces = _samples_only(data)
    num_scans = max(_USUAL_SCANS, sum(piece[:2] == bytes((0xFF, SCAN)) for piece in pieces))
    tries = iter(range(_MOST_TRIES * _USUAL_SCANS // num_scans))
    for view in grey_views(pieces) if is_unknown_layout else (pieces,):
        _refuse_damaged(view, tries)


def _refuse_damaged(pieces: list[bytes], tries: Iterator[int]) -> None:
    objection = _objection(pieces)
    while gap := _GAP.search(objection):
        found = _without_padding(pieces, objection, int(gap[1]), int(gap[2], 16), tries)
        if found is None:
            break
        pieces, objection = found
    what = next((what for words, what in _ENDINGS.items() if words in objection.lower()), None)
    if what is not None:
        raise EndsEarly(what)
    if damage := _DAMAGE.search(objection):
        raise Damaged(f"its data is damaged: {damage[1] or damage[2]}")


def _objection(pieces: list[bytes]) -> str:
    """What the strict decoder objects to first; empty where it takes the file."""
    try:
        simplejpeg.decode_jpeg(b"".join(pieces), "GRAY", min_factor=8)
    except ValueError as objection:
        return str(objection)
    return ""


def _samples_only(data: bytes) -> list[bytes]:
    """The segments that samples depend on, and the data of each scan as a piece of its own."""
    pieces, sequential = [data[:2]], False
    for segment in segments(data):
        if is_frame(segment.marker):
            sequential = segment.marker in _SEQUENTIAL
        if not is_metadata(segment.marker):
            head = data[segment.start : segment.end]
            pieces.append(head[:-3] + _ALL_BANDS if segment.marker == SCAN and sequential else head)
            pieces.append(data[segment.end : segment.data_end].rstrip(b"\xff"))
    return pieces


_ALL_BANDS = bytes((0, 63, 0))
"""First and last frequency and bits of a sequential scan (B.2.3), which decoders know without."""


def _without_padding(
    pieces: list[bytes], objection: str, num: int, marker: int, tries: Iterator[int]
) -> tuple[list[bytes], str] | None:
    """The same file without so many bytes before a marker, and the next objection; None where they are no padding.
    There can be several places that fit; the right one is that where another or no objection is left."""
    for at in range(1, len(pieces) - 1):
        fits = pieces[at + 1][:2] == bytes((0xFF, marker)) and num <= len(pieces[at])
        if not fits or not _is_padding(pieces[at][-num:]) or next(tries, None) is None:
            continue
        smaller = [*pieces[:at], pieces[at][:-num], *pieces[at + 1 :]]
        left = _objection(smaller)
        if left != objection and not any(words in left.lower() for words in _ENDINGS):
            return smaller, left
    return None


def _is_padding(run: bytes) -> bool:
    text = run.rstrip(b"\0").decode("latin-1")
    return len(run) <= _PADDING_BYTES or len(set(run)) == 1 or (text.isascii() and text.isprintable())


def missing_scans(data: bytes) -> str | None:
    """The part that is missing of a JPEG whose scans are each whole; None where nothing is, or this cannot tell. A
    progressive JPEG sends its picture several times over, each scan a band of frequencies or a further bit of them. Cut
    between two scans and given an end marker, it decodes without a warning to a coarser picture; so does a sequential
    one without its last components. A picture is complete when the lowest bit of each frequency of each component was
    sent: a scan of frequencies Ss..Se with Al = 0 (T.81, G.1.1). Costs a search through the data where there are
    several scans, else nothing."""
    lowest_bits: dict[int, list[int]] = {}
    sequential = False
    for segment in segments(data):
        if is_frame(segment.marker):
            lowest_bits, sequential = _components(segment.payload), segment.marker in _SEQUENTIAL
        elif segment.marker == SCAN:
            scan = segment.payload[:-3] + _ALL_BANDS if sequential else segment.payload
            if not _note_scan(scan, lowest_bits):
                return None  # no scan of this frame: the file is corrupt rather than cut, and the decoder refuses it
            if not _unfinished(lowest_bits):
                return None
    missing = _unfinished(lowest_bits)
    if not missing:
        return None
    return f"its last scans are missing: {missing} of {_NUM_FREQUENCIES * len(lowest_bits)} frequencies are unfinished"


def missing_blocks(data: bytes) -> str | None:
    """The part that is missing of a JPEG whose layout the strict decoder does not know; None where nothing is, or this
    cannot tell: it counts restart markers, and of a baseline file of one scan finds a missing end. Without a marker
    behind it libjpeg cannot finish a scan: so a few zero bytes replace what is there (enough that the decoder may look
    ahead), and a picture that still decodes to its last row is whole. Costs a decode at an eighth of the size. The
    padding can stand in for up to some twenty blocks, which are then not missed."""
    scans = [segment for segment in segments(data) if segment.marker == SCAN]
    for scan in scans:
        restarts = _RESTART.findall(data, scan.end, scan.data_end)
        if any(restart[1] != 0xD0 + number % 8 for number, restart in enumerate(restarts)):
            return "one of its restart markers is lost"
    if not scans or not _has_one_scan(data):
        return None
    try:
        image = open_file(data[: scans[0].data_end] + _PADDING, ("JPEG",))
        image.draft(None, (max(1, image.width // 8), max(1, image.height // 8)))
        image.load()
    except OSError:
        return _ENDINGS["premature end of data segment"]
    except DECODER_ERRORS:
        return None  # the decoder took the file with its end, so this error says nothing about it
    return None


def _components(frame: bytes) -> dict[int, list[int]]:
    """Component of a frame header (B.2.2) -> the lowest bit sent of each frequency."""
    identifiers = frame[6 : 6 + 3 * frame[5] : 3] if len(frame) > 5 else b""
    return {identifier: [_UNSENT] * _NUM_FREQUENCIES for identifier in identifiers}


def _note_scan(scan: bytes, lowest_bits: dict[int, list[int]]) -> bool:
    """Note which bits a scan header (B.2.3) announces; False where it does not fit the frame."""
    num = scan[0] if scan else 0
    identifiers = scan[1 : 1 + 2 * num : 2]
    if not num or len(scan) < 4 + 2 * num or not lowest_bits.keys() >= set(identifiers):
        return False
    first, last, bits = struct.unpack_from("BBB", scan, 1 + 2 * num)
    if not first <= last < _NUM_FREQUENCIES:
        return False
    for identifier in identifiers:
        lowest_bits[identifier][first : last + 1] = [bits & 0x0F] * (last + 1 - first)
    return True


def _unfinished(lowest_bits: dict[int, list[int]]) -> int:
    return sum(bit != 0 for bits in lowest_bits.values() for bit in bits)


def _has_one_scan(data: bytes) -> bool:
    """Whether the frame is sequential and its first scan holds all components."""
    num_components = 0
    for segment in segments(data):
        if segment.marker == SCAN:
            return num_components > 0 and segment.payload[:1] == bytes([num_components])
        if is_frame(segment.marker):
            if segment.marker not in _SEQUENTIAL:
                return False
            num_components = segment.payload[5] if len(segment.payload) > 5 else 0
    return False
