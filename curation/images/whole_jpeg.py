"""What is missing of a JPEG that Pillow takes: it gives a picture for half a file that ends with an end marker.

libjpeg fills what is missing with flat blocks, or with coarser ones where the file is progressive, and gives a warning
that Pillow drops. Three checks find such files: a strict decoder (`decode_whole`), the headers of the scans
(`missing_scans`), and a second decode where the strict decoder cannot be used (`missing_blocks`).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

import simplejpeg
from PIL import Image

from schemas.opening import open_file
from schemas.pixels import DECODER_ERRORS

_END, _SCAN = 0xD9, 0xDA
_SEQUENTIAL = (0xC0, 0xC1)
"""Start-of-frame markers of baseline and extended sequential JPEG (ITU-T T.81, table B.1)."""
_NEXT_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
"""A marker behind the data of a scan; stuffed bytes, restarts and fill bytes are none (T.81, B.1.1)."""

_LAYOUTS = {"RGB": ("RGB", "RGB"), "L": ("GRAY", "L"), "CMYK": ("CMYK", "CMYK;I")}
"""Pillow's mode -> the decoder's colour space, and how Pillow reads its rows: it stores the ink of CMYK inverted."""

_ENDINGS = {
    "premature end of data segment": "its data ends before its last block",
    "premature end of jpeg file": "the file ends before its end marker",
}
"""libjpeg's warnings about data that ends early -> what is missing."""

_NUM_FREQUENCIES = 64
_UNSENT = 255
"""Stands for "no bit sent yet"; a real value is at most 13."""

_PADDING = bytes(64)
_FLAT = 1
"""Levels by which pixels of filled blocks may differ, after colour conversion and scaling."""


class EndsEarly(ValueError):
    """The data of a JPEG ends before its picture is whole."""


def decode_whole(image: Image.Image, data: bytes) -> Image.Image | None:
    """The pixels of an opened JPEG if none of them is filled in.

    `simplejpeg` is the same libjpeg-turbo as Pillow's and gives the same pixels, but its warnings are errors.

    Args:
        image: opened from `data` and not loaded; its size after `draft` is the size that comes out.
        data: the whole file.

    Returns:
        A loaded picture with the metadata of `image`. None where the decoder objects to anything but a missing end:
        bytes between two segments do no harm, and Pillow refuses what does.

    Raises:
        EndsEarly: says what is missing.
    """
    if image.mode not in _LAYOUTS:
        return None
    colours, raw_mode = _LAYOUTS[image.mode]
    try:
        pixels = simplejpeg.decode_jpeg(data, colours, min_width=image.width, min_height=image.height)
    except ValueError as objection:
        what = next((what for words, what in _ENDINGS.items() if words in str(objection).lower()), None)
        if what is not None:
            raise EndsEarly(what) from None
        return None
    if pixels.shape[:2] != (image.height, image.width):
        return None
    whole = Image.frombuffer(image.mode, image.size, pixels, "raw", raw_mode, 0, 1)
    whole.info = dict(image.info)
    return whole


def missing_scans(data: bytes) -> str | None:
    """The part that is missing of a JPEG whose scans are each whole; None where nothing is, or this cannot tell.

    A progressive JPEG sends its picture several times over, each scan a band of frequencies or a further bit of them.
    Cut between two scans and given an end marker, it decodes without a warning to a coarser picture; so does a
    sequential one without its last components. A picture is complete when the lowest bit of each frequency of each
    component was sent: a scan of frequencies Ss..Se with Al = 0 (T.81, G.1.1). Costs a search through the data where
    there are several scans, else nothing.
    """
    lowest_bits: dict[int, list[int]] = {}
    for marker, payload in _segments(data):
        if _is_frame(marker):
            lowest_bits = _components(payload)
        elif marker == _SCAN:
            if not _note_scan(payload, lowest_bits):
                return None  # no scan of this frame: the file is corrupt rather than cut, and the decoder refuses it
            if not _unfinished(lowest_bits):
                return None
    missing = _unfinished(lowest_bits)
    if not missing:
        return None
    return f"its last scans are missing: {missing} of {_NUM_FREQUENCIES * len(lowest_bits)} frequencies are unfinished"


def missing_blocks(data: bytes) -> str | None:
    """The part that is missing of a baseline JPEG of one scan; None where nothing is, or this cannot tell.

    Without its end marker libjpeg cannot finish a picture: so a few zero bytes replace the marker (enough that the
    decoder may look ahead), and a picture that still decodes to its last row is whole. Costs a decode at an eighth of
    the size. The padding can stand in for up to some twenty blocks, which are then not missed.
    """
    end = data.rfind(b"\xff\xd9")
    if end < 0 or not _has_one_scan(data):
        return None
    try:
        image = open_file(data[:end] + _PADDING, ("JPEG",))
        image.draft(None, (max(1, image.width // 8), max(1, image.height // 8)))
        image.load()
    except OSError:
        return _ENDINGS["premature end of data segment"]
    except DECODER_ERRORS:
        return None  # the decoder took the file with its end, so this error says nothing about it
    return None


def has_flat_corner(image: Image.Image) -> bool:
    """Whether four pixels in a corner of an RGB picture are alike, as they are where a decoder filled the rest.

    A file may be on its side, so any corner counts. Many whole pictures have one too; most have none.
    """
    right, bottom = max(image.width - 2, 0), max(image.height - 2, 0)
    for left, top in ((0, 0), (right, 0), (0, bottom), (right, bottom)):
        extremes = image.crop((left, top, min(left + 2, image.width), min(top + 2, image.height))).getextrema()
        if all(high - low <= _FLAT for low, high in extremes):  # type: ignore[misc]
            return True
    return False


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(marker, payload) of each segment up to the end marker; a scan's data is only searched for the segment after."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != _END:
        if data[at + 1] == 0xFF:  # fill byte
            at += 1
            continue
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        yield marker, data[at + 4 : at + 2 + length]
        at += 2 + length
        if marker == _SCAN:
            found = _NEXT_MARKER.search(data, at)
            at = found.start() if found else len(data)


def _is_frame(marker: int) -> bool:
    return 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)


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
    for marker, payload in _segments(data):
        if marker == _SCAN:
            return num_components > 0 and payload[:1] == bytes([num_components])
        if _is_frame(marker):
            if marker not in _SEQUENTIAL:
                return False
            num_components = payload[5] if len(payload) > 5 else 0
    return False
