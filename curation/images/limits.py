"""Bombs that the number of pixels does not show: refused from the structure of the file, before it is decoded."""

from __future__ import annotations

from itertools import islice

from curation.images.boxes import coding_styles, items
from schemas import tiff
from schemas.slices import Sliced

_SMALL_TILE = 2048 * 2048
"""Pixels of a tile that may be larger than the picture."""
_MOST_ENLARGED = 4
_MOST_BLOCKS = 300_000
"""Code-blocks of a channel of a JPEG 2000, at some 5 KB of memory each; 300 megapixels usually have 73,000."""
_SEQUENCE_HEADER = 1
"""Type of the unit that holds the size of an AV1 picture (AV1 specification, 6.2.2)."""


def hidden_pixels(data: Sliced, image_format: str, num_pixels: int, max_pixels: int) -> str | None:
    """How a file makes its decoder take memory for more pixels than its header has.

    Args:
        image_format: Pillow's name.
        num_pixels: of the picture by its header.
        max_pixels: largest picture that is decoded.
    """
    if image_format == "TIFF":
        page = next(islice(tiff.directories(data), tiff.first_page(data), None), None)
        width, height = (page.number(data, tag) for tag in (tiff.TILE_WIDTH, tiff.TILE_HEIGHT)) if page else (0, 0)
        if width * height > max(_SMALL_TILE, _MOST_ENLARGED * num_pixels):
            return f"it has tiles of {width}x{height} px"
    if image_format == "AVIF":
        for start, end in items(data):
            width, height = _av1_size(data[start : min(end, start + 256)])
            if width * height > max_pixels:
                return f"it is coded as {width}x{height} px, the limit is {max_pixels} px"
    if image_format == "JPEG2000":
        num = num_pixels * max((_blocks_per_pixel(style) for style in coding_styles(data)), default=0)
        if num > _MOST_BLOCKS:
            return f"it is coded in {num:.0f} blocks, the limit is {_MOST_BLOCKS}"
    return None


def _blocks_per_pixel(style: bytes) -> float:
    """Code-blocks of a JPEG 2000 per pixel and channel, which the sizes of blocks and precincts bound (A.6.1)."""
    if len(style) < 5:
        return 0
    levels, width, height = style[0], (style[1] & 15) + 2, (style[2] & 15) + 2
    num = 0.0
    for resolution in range(levels + 1):
        precinct = style[5 + resolution] if len(style) > 5 + resolution else 0xFF
        halved = int(resolution > 0)
        across, down = min(width, (precinct & 15) - halved), min(height, (precinct >> 4) - halved)
        num += 1 / (1 << max(across, 0) + max(down, 0)) / 4 ** (levels - resolution)
    return num


def _av1_size(units: bytes) -> tuple[int, int]:
    """(width, height) in the sequence header that begins an AV1 picture, (0, 0) where there is none."""
    at = 0
    while at + 2 < len(units):
        kind, has_size, extended = units[at] >> 3 & 15, units[at] & 2, units[at] >> 2 & 1
        at += 1 + extended
        length, shift = 0, 0
        while has_size and at < len(units):
            length |= (units[at] & 127) << shift
            at, shift = at + 1, shift + 7
            if not units[at - 1] & 128:
                break
        if kind == _SEQUENCE_HEADER:
            return _Bits(units[at:]).av1_size()
        if not has_size or shift > 56:
            break
        at += length
    return 0, 0


class _Bits:
    """Reads numbers of any width from bytes; zeros follow the end."""

    def __init__(self, data: bytes) -> None:
        self._left = len(data) * 8
        self._data = int.from_bytes(data, "big")

    def take(self, num: int) -> int:
        self._left -= num
        return (self._data >> self._left if self._left >= 0 else 0) & ((1 << num) - 1)

    def av1_size(self) -> tuple[int, int]:
        """The largest size of a sequence header (AV1 specification, 5.5.1)."""
        self.take(4)
        if self.take(1):  # the short header of a still picture
            self.take(5)
        else:
            self._skip_operating_points()
        widths, heights = self.take(4) + 1, self.take(4) + 1
        return self.take(widths) + 1, self.take(heights) + 1

    def _skip_operating_points(self) -> None:
        delay_bits = 0
        if self.take(1):  # timing
            self.take(64)
            if self.take(1):
                zeros = 0
                while zeros < 32 and not self.take(1):
                    zeros += 1
                self.take(zeros)
            if self.take(1):  # decoder model
                delay_bits = self.take(5) + 1
                self.take(42)
        has_delays = self.take(1)
        for _ in range(self.take(5) + 1):
            self.take(12)
            if self.take(5) > 7:
                self.take(1)
            if delay_bits and self.take(1):
                self.take(2 * delay_bits + 1)
            if has_delays and self.take(1):
                self.take(4)
