"""Whether a file holds its whole picture: decoders fill in what is missing of some formats, and say nothing."""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections import deque
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
from PIL import Image

from curation.images.boxes import av1_pixels, item_media_end, jpeg2000_end
from curation.images.formats import webp_pixels
from curation.images.whole_jpeg import missing_blocks, missing_scans
from schemas import png, tiff
from schemas.boxes import Span
from schemas.parts import gif_blocks

_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Colour type (PNG specification, 11.2.2) -> channels."""

ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""Interlace passes: first column, first row, step of columns, step of rows (section 8.2)."""
_ONE_PASS = ((0, 0, 1, 1),)

_STEP_BYTES = 1 << 20


def missing_part(data: bytes, image_format: str, loaded: Image.Image, is_checked: bool) -> str | None:
    """The part that is missing of a file whose picture was decoded, or None where it is whole.

    Args:
        data: the whole file.
        image_format: Pillow's name.
        loaded: the picture as the decoder gave it.
        is_checked: whether the strict decoder of JPEG gave it; it does not know subsampled inks.
    """
    if image_format in ("JPEG", "MPO"):
        missing = missing_scans(data)
        return missing_blocks(data) if missing is None and not is_checked else missing
    check = _ENDS.get(image_format)
    missing = check(data) if check else None
    if missing is None and image_format == "PNG" and is_still_marked(loaded):
        missing = missing_rows(data)
    if missing is None and image_format in _CODED:
        missing = _unwritten(data, _CODED[image_format], loaded.width * loaded.height)
    return missing


def cut_short(data: bytes, image_format: str) -> str | None:
    """How the structure of a file that the decoder refused shows that its end is missing, or None where it does not.
    `data`: the whole file. `image_format`: Pillow's name; formats whose structure says nothing about their end give
    None."""
    checks = (_ENDS.get(image_format), _ENDS_OF_REFUSED.get(image_format))
    return next((missing for check in checks if check and (missing := check(data)) is not None), None)


def mark_last_row(image: Image.Image) -> None:
    """Fill the row of an opened PNG that its stream ends with, so that it shows whether Pillow decodes this row. Pillow
    passes over rows that are missing and says nothing. It refuses a file without any pixels, which is left as it is."""
    if not image.tile:  # type: ignore[attr-defined]
        return
    under = Image.new(image.mode, image.size, None)
    under.paste(_mark(image), (0, _last_row(image)[0]))
    image.im = under.im


def is_still_marked(loaded: Image.Image) -> bool:
    """Whether the last row is as `mark_last_row` left it; of a picture of a few pixels that may be a coincidence."""
    row, columns = _last_row(loaded)
    found = loaded.crop((0, row, loaded.width, row + 1))
    return np.array_equal(np.asarray(found)[0, columns], np.asarray(_mark(loaded))[0, columns])


def _mark(image: Image.Image) -> Image.Image:
    """A row of noise, which no picture has."""
    noise = hashlib.shake_128(b"no decoder wrote this row").digest(4 * image.width)
    return Image.frombytes(image.mode, (image.width, 1), noise)


def _last_row(image: Image.Image) -> tuple[int, slice]:
    """The row whose pixels come last in the stream, and those columns of it that its pass fills."""
    for x, y, across, down in reversed(ADAM7 if image.info.get("interlace") else _ONE_PASS):
        if x < image.width and y < image.height:
            return range(y, image.height, down)[-1], slice(x, None, across)
    raise AssertionError("the first pass has the first pixel")


def missing_rows(data: bytes) -> str | None:
    """The part that is missing of the compressed stream of a PNG, or None where it holds all rows. The stream is
    inflated a megabyte at a time and thrown away, which costs as much as a third of decoding it: only for a file whose
    last row was not decoded."""
    header = next(((start, length) for name, start, length in png.chunks(data) if name == b"IHDR"), None)
    if header is None or header[1] < 13:
        return None
    width, height, depth, colour, _, _, interlaced = struct.unpack_from(">IIBBBBB", data, header[0])
    expected = stream_bytes(width, height, depth * _CHANNELS.get(colour, 0), bool(interlaced))
    inflater, num = zlib.decompressobj(), 0
    for name, start, length in png.chunks(data):
        if name != b"IDAT":
            continue
        piece = data[start : start + length]
        while piece and not inflater.eof and num < expected:
            try:
                num += len(inflater.decompress(piece, _STEP_BYTES))
            except zlib.error:
                return None  # the file is corrupt rather than cut, and the decoder refuses it
            piece = inflater.unconsumed_tail
    return None if num >= expected else f"its stream holds {num} of {expected} bytes of pixels"


def stream_bytes(width: int, height: int, bits_per_pixel: int, interlaced: bool) -> int:
    """Bytes of the inflated stream: each row of each pass is a filter byte and its pixels, padded to whole bytes."""
    passes = ADAM7 if interlaced else _ONE_PASS
    num = 0
    for first_column, first_row, column_step, row_step in passes:
        columns = max(0, -(-(width - first_column) // column_step))
        rows = max(0, -(-(height - first_row) // row_step))
        num += rows * (1 + -(-columns * bits_per_pixel // 8)) if columns else 0
    return num


def _png_end(data: bytes) -> str | None:
    for name, start, length in png.chunks(data):
        if name == b"IEND":
            return None
        if start + length > len(data):
            return f"ends inside its {name.decode('ascii', 'replace')} chunk"
    return "no IEND chunk at its end"


def _jpeg_end(data: bytes) -> str | None:
    """Only used once the decoder has failed: a whole decode needs no end marker."""
    last_scan = data.rfind(b"\xff\xda")  # a thumbnail has an end of its own, so the last end must follow the last scan
    return None if data.rfind(b"\xff\xd9") > last_scan >= 0 else "no end-of-image marker"


def _gif_end(data: bytes) -> str | None:
    """Other bytes that end the blocks are no cut: the file is corrupt, and the decoder refuses it."""
    end = deque(gif_blocks(data), maxlen=1).pop()
    return "ends before its trailer" if end >= len(data) else None


def _webp_end(data: bytes) -> str | None:
    declared = int.from_bytes(data[4:8], "little") + 8
    return f"holds {len(data)} of {declared} bytes" if declared > len(data) else None


class Coded(NamedTuple):
    """Where the coded pixels of a format are, and which run of zeros no picture has among them."""

    parts: Callable[[bytes], Iterable[Span]]
    least_bytes: int
    px_of_byte: int
    """The run is as long as a byte for so many px, where that is more."""


def _unwritten(data: bytes, coded: Coded, num_pixels: int) -> str | None:
    """How the coded pixels in some parts of a file show that a disk or a download never wrote a page of them: by a run
    of zeros, which these decoders take for pixels."""
    run = bytes(max(coded.least_bytes, num_pixels // coded.px_of_byte))
    places = (data.find(run, start, end) for start, end in coded.parts(data))
    return next(
        (f"holds nothing but zeros for {len(run)} bytes from {place} on" for place in places if place >= 0), None
    )


def _tiff_end(data: bytes) -> str | None:
    first = next(tiff.directories(data), None)
    if first is None:
        return "ends before its image directory"
    return "ends before the values of its image directory" if first.end_of_values() > len(data) else None


def _tiff_data_end(data: bytes) -> str | None:
    """Only used once the decoder has failed: writers get the lengths of strips wrong around whole pictures."""
    first = next(tiff.directories(data), None)
    if first is None:
        return None
    last = 0
    for places, lengths in ((tiff.STRIPS, tiff.STRIP_BYTES), (tiff.TILES, tiff.TILE_BYTES)):
        pairs = zip(first.numbers(data, places, _MOST_STRIPS), first.numbers(data, lengths, _MOST_STRIPS), strict=False)
        last = max((place + length for place, length in pairs), default=last)
    return f"holds {len(data)} of {last} bytes" if last > len(data) else None


_MOST_STRIPS = 100_000


_ENDS = {
    "PNG": _png_end,
    "GIF": _gif_end,
    "WEBP": _webp_end,
    "TIFF": _tiff_end,
    "AVIF": item_media_end,
    "HEIF": item_media_end,
    "JPEG2000": jpeg2000_end,
}
"""Pillow's format -> the check whether its end is missing."""

_CODED = {"WEBP": Coded(webp_pixels, 4096, 128), "AVIF": Coded(av1_pixels, 512, 4096)}
"""Formats whose decoders find no damage in their pixels. A plain field of a lossy WebP is a run, too: where the end of
each block is coded with the standard's own probability, of up to 6 bits for 256 px. The coder of AV1 leaves runs of a
few bytes."""

_ENDS_OF_REFUSED = {"JPEG": _jpeg_end, "TIFF": _tiff_data_end}
"""The same, for files that the decoder refused."""
